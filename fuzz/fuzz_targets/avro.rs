//! Avro: container files with any header, and messages that refer to schemas. The first byte chooses a layout.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tidemill_fuzz::{Form, Layout, NESTED, SCALARS, event_type, schema};

static LAYOUTS: LazyLock<[Layout; 3]> = LazyLock::new(|| {
    let all = format!("{SCALARS},{NESTED}");
    let rich = || event_type("play", &all);
    let stop = || event_type("stop", r#"{"name":"why","type":["null","string"]}"#);
    // What the type has, in other types that can be read as them, and more.
    let other = r#"{"name":"l","type":"int"},{"name":"d","type":["float","long","null"]},{"name":"s","type":"bytes"},
        {"name":"u","type":{"type":"fixed","name":"U","size":16}},{"name":"e","type":{"type":"enum","name":"E","symbols":["X","BB"]}},
        {"name":"gone","type":{"type":"array","items":{"type":"map","values":["null","bytes"]}}},{"name":"list","type":{"type":"array","items":"int"}}"#;
    let known = |text: String| Ok(Arc::from(text));
    let schemas: BTreeMap<u32, Result<Arc<str>, Arc<str>>> = BTreeMap::from([
        (1, known(schema("play", &all))),
        (2, known(schema("play", other))),
        (3, known("{".into())),
        (4, Err("it is not there".into())),
    ]);
    let layout = |options, types, form| Layout { kind: "avro", options, types, form };
    [
        layout(json!({}), vec![rich()], Form::Avro),
        layout(json!({}), vec![stop(), rich()], Form::Avro),
        layout(json!({"type_from": {"topic": true}}), vec![stop(), rich()], Form::Messages(schemas)),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    if let Some((number, chunk)) = bytes.split_first() {
        LAYOUTS[usize::from(*number) % LAYOUTS.len()].run(chunk);
    }
});
