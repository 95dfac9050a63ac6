//! The topology of plays with buckets of a minute, so that tests see hours close.

use serde_json::Value;

use crate::{Place, manifests, wait_for};

/// Minutes instead of hours, with the source's options.
pub fn minutes(place: &Place, lateness: &str, source: &str) {
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let text = text
        .replace("allowed_lateness = \"30d\"", &format!("allowed_lateness = \"{lateness}\"\nbucket = \"1m\""))
        .replace("kind = \"file\"\n            paths = [\"data/*\"]\n            rescan = \"50ms\"", source);
    assert!(text.contains(source) && text.contains("1m"), "{text}");
    place.write("plays.toml", text);
}

/// Adds lines to the `[topology]` of [`minutes`].
pub fn add_lines(place: &Place, lines: &str) {
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("bucket = \"1m\"", &format!("bucket = \"1m\"\n{lines}")));
}

/// Waits for the hour of a type that begins then, and returns its manifest.
#[track_caller]
pub fn sealed(place: &Place, event_type: &str, start_ms: i64) -> Value {
    let start = tidemill_core::format_time_ms(start_ms);
    wait_for(&format!("the seal of {start}"), || {
        manifests(&place.out(), event_type)
            .into_iter()
            .find(|manifest| manifest["hour"]["start"].as_str().is_some_and(|said| said.get(..19) == start.get(..19)))
    })
}

/// The options of a source of files that counts as idle after that time.
pub fn files(idle_timeout: &str) -> String {
    format!("kind = \"file\"\npaths = [\"data/*\"]\nrescan = \"50ms\"\nidle_timeout = \"{idle_timeout}\"")
}
