//! JSON records. The first byte chooses a layout.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tidemill_fuzz::{Form, Layout, NESTED, SCALARS, event_type};

static LAYOUTS: LazyLock<[Layout; 4]> = LazyLock::new(|| {
    let rich = || event_type("play", &format!("{SCALARS},{NESTED}"));
    let stop = || event_type("stop", r#"{"name":"why","type":["null","string"]}"#);
    let around = r#"{"name":"k","type":["null","string"]},{"name":"t","type":"string"},{"name":"p","type":"int"},{"name":"v","type":"string"}"#;
    let layout = |options, types, form| Layout { kind: "json", options, types, form };
    [
        layout(json!({}), vec![rich()], Form::Lines),
        layout(json!({"time": "epoch_s", "type_from": {"field": "type"}}), vec![rich(), stop()], Form::Lines),
        layout(json!({"type_from": {"const": "stop"}, "time": "epoch_us"}), vec![rich(), stop()], Form::Lines),
        layout(
            json!({"from_message": {"k": "key", "t": "topic", "p": "partition"}, "time": "epoch_ms"}),
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
