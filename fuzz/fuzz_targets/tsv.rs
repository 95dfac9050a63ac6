//! Separated columns. The first byte chooses a layout.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tidemill_fuzz::{Form, Layout, SCALARS, event_type};

static LAYOUTS: LazyLock<[Layout; 5]> = LazyLock::new(|| {
    let two = || vec![event_type("play", SCALARS), event_type("stop", r#"{"name":"why","type":["null","string"]}"#)];
    let user = r#"{"name":"user","type":"string"},{"name":"ms","type":["null","int"]},{"name":"note","type":["null","string"]}"#;
    let around = r#"{"name":"k","type":["null","string"]},{"name":"h","type":["null","bytes"]},{"name":"o","type":"long"},{"name":"v","type":"string"}"#;
    let layout = |options, types, form| Layout { kind: "tsv", options, types, form };
    [
        layout(json!({}), vec![event_type("play", SCALARS)], Form::Lines),
        layout(
            json!({"separator": ",", "null": ["NA", "\\N"], "time": "epoch_ms", "type_from": {"column": 1}}),
            two(),
            Form::Lines,
        ),
        layout(
            json!({"columns": ["note", "", "at"], "time": "epoch_s", "header": true}),
            vec![event_type("play", &user.replace(r#""string"}"#, r#"["null","string"]}"#))],
            Form::Lines,
        ),
        layout(json!({"time": "epoch_us", "type_from": {"header": "type"}}), two(), Form::Messages(BTreeMap::new())),
        layout(
            json!({"from_message": {"k": "key", "h": "header:type", "o": "offset", "at": "append_time"}}),
            vec![event_type("play", around)],
            Form::Messages(BTreeMap::new()),
        ),
    ]
});

fuzz_target!(|bytes: &[u8]| {
    if let Some((number, chunk)) = bytes.split_first() {
        LAYOUTS[usize::from(*number) % LAYOUTS.len()].run(chunk);
    }
});
