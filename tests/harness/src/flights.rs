//! The real flights of 2013, which come with the tests.

use std::path::{Path, PathBuf};

use crate::{Place, root};

/// Unpacks the flights into a place, and checks that they are the ones that the figures are about.
pub fn flights(place: &Place) -> PathBuf {
    let packed = std::fs::File::open(root().join("tests/data/flights.tsv.zst")).expect("the flights are there");
    let text = zstd::decode_all(packed).expect("the flights unpack");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&text);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, "f5316c3d7b5f98a132b20b9a603e91bdcb18e04e59910a19665a05abf67b01c7");
    place.write("flights.tsv", text)
}

/// A copy of the shipped topology that reads `input`.
pub fn topology(place: &Place, input: &Path) -> PathBuf {
    let shipped = std::fs::read_to_string(root().join("topologies/flights.toml")).expect("the shipped topology");
    let schema = root().join("topologies/schemas/flight.avsc");
    let text = shipped
        .replace("flights/*.tsv*", &input.display().to_string())
        .replace("schemas/flight.avsc", &schema.display().to_string());
    place.write("flights.toml", text)
}

/// Hours of the year with departures, and all hours from the first to the last of them.
pub const YEAR: (usize, usize) = (6_936, 8_755);

/// Sealed hours below a directory: those with events, and all.
pub fn sealed_hours(dir: &Path) -> (usize, usize) {
    let (mut with_events, mut all) = (0, 0);
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let below = sealed_hours(&path);
            (with_events, all) = (with_events + below.0, all + below.1);
        } else if path.ends_with("_SUCCESS") {
            let text = std::fs::read(path.with_file_name("_manifest.json")).expect("a manifest beside it");
            let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            with_events += usize::from(manifest["count"] != 0);
            all += 1;
        }
    }
    (with_events, all)
}
