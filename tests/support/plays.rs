//! A small topology: lines of id, time in milliseconds and an optional text, deduplicated, to hourly files.

use std::path::{Path, PathBuf};

use super::Place;

const SCHEMA: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "who", "type": ["null", "string"]}
]}"#;

/// Some hour of some day.
pub(crate) const HOUR: i64 = 1_700_002_800_000;

impl Place {
    /// A topology over `data/*`; `sink` are further options of its sink.
    pub(crate) fn plays(&self, sink: &str) -> PathBuf {
        self.write("play.avsc", SCHEMA);
        std::fs::create_dir_all(self.path("data")).expect("a folder");
        let text = format!(
            r#"
            [topology]
            name = "plays"
            allowed_lateness = "30d"
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
pub(crate) fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| format!("id{number:06}\t{}\tw{}\n", HOUR + i64::from(number) * 100, number.wrapping_mul(7_919)))
        .collect()
}

/// That records hold each of the lines with these numbers, and nothing else.
#[track_caller]
pub(crate) fn assert_each_once(records: &[serde_json::Value], numbers: std::ops::Range<u32>) {
    let mut found: Vec<&str> = records.iter().map(|record| record["id"].as_str().expect("an id")).collect();
    found.sort_unstable();
    assert_eq!(found.len(), numbers.len(), "number of records");
    for (found, number) in found.iter().zip(numbers) {
        assert_eq!(*found, format!("id{number:06}"));
    }
}

/// The manifests of finished directories below one of the output root.
pub(crate) fn manifests(out: &Path, below: &str) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let mut left = vec![out.join(below)];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.ends_with("_SUCCESS") {
                let text = std::fs::read(dir.join("_manifest.json")).expect("a manifest beside it");
                found.push(serde_json::from_slice(&text).expect("JSON"));
            }
        }
    }
    found
}
