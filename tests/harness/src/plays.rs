//! A small topology: lines of id, time in milliseconds and an optional text, deduplicated, to hourly files.

use std::path::PathBuf;

use crate::Place;

const SCHEMA: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "who", "type": ["null", "string"]}
]}"#;

/// Some hour of some day.
pub const HOUR: i64 = 1_700_002_800_000;

impl Place {
    /// A topology over `data/*`; `sink` are further options of its sink.
    pub fn plays(&self, sink: &str) -> PathBuf {
        self.write("play.avsc", SCHEMA);
        std::fs::create_dir_all(self.path("data")).expect("a folder");
        let text = format!(
            r#"
            [topology]
            name = "plays"
            allowed_lateness = "30d"
            # Events of long ago are believed alone, as new ones are.
            max_ahead = "36500d"
            [types.play]
            schema = "play.avsc"
            time = "at"
            id = ["id"]
            [sources.lines]
            kind = "file"
            paths = ["data/*"]
            rescan = "50ms"
            [stages.parse]
            kind = "tsv"
            from = ["lines"]
            type_from = {{ const = "play" }}
            time = "epoch_ms"
            [stages.dedup]
            kind = "dedup"
            from = ["parse"]
            window = "30d"
            [sinks.files]
            kind = "avro_files"
            from = ["dedup"]
            {sink}
            "#
        );
        self.write("plays.toml", text)
    }
}

/// The lines with these numbers, spread over some hours.
pub fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| format!("id{number:06}\t{}\tw{}\n", HOUR + i64::from(number) * 100, number.wrapping_mul(7_919)))
        .collect()
}

/// That records hold each of the lines with these numbers, and nothing else.
#[track_caller]
pub fn assert_each_once(records: &[serde_json::Value], numbers: std::ops::Range<u32>) {
    let mut found: Vec<&str> = records.iter().map(|record| record["id"].as_str().expect("an id")).collect();
    found.sort_unstable();
    assert_eq!(found.len(), numbers.len(), "number of records");
    for (found, number) in found.iter().zip(numbers) {
        assert_eq!(*found, format!("id{number:06}"));
    }
}
