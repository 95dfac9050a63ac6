//! What runs have published, and how it is looked at.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::{Place, assert_exit, finish};

impl Place {
    /// Records of all published files of the output root whose path below it begins with `prefix`, as `tidemill cat`
    /// prints them.
    ///
    /// # Panics
    /// When a file can't be read.
    #[track_caller]
    #[must_use]
    pub fn published(&self, prefix: &str) -> Vec<Value> {
        let mut files = Vec::new();
        files_in(&self.out(), &mut files, &|path| path.extension().is_some_and(|ending| ending == "avro"));
        let wanted =
            |file: &&String| Path::new(file).strip_prefix(self.out()).is_ok_and(|path| path.starts_with(prefix));
        let mut records = Vec::new();
        for file in files.iter().filter(wanted) {
            let cat = finish(&mut self.command(&["cat", file]));
            assert_exit(&cat, 0);
            records.extend(json_lines(&cat.stdout));
        }
        records
    }

    /// What the manifests of all sealed hours report that does not depend on the run, by path.
    ///
    /// # Panics
    /// When a manifest can't be read.
    #[must_use]
    pub fn manifests(&self) -> BTreeMap<String, Value> {
        let mut files = Vec::new();
        files_in(&self.out(), &mut files, &|path| path.ends_with("_manifest.json"));
        let stable = |file: String| {
            let manifest: Value = serde_json::from_slice(&std::fs::read(file).expect("a manifest")).expect("JSON");
            let same = ["count", "ids", "event_time", "duplicates_dropped", "late_within_allowed", "reason"];
            let path = manifest["path"].as_str().expect("a path").to_owned();
            let sources: Vec<&String> = manifest["positions"].as_object().expect("positions").keys().collect();
            let same = same.map(|key| (key, manifest[key].clone())).into_iter();
            (path, same.chain([("sources", serde_json::json!(sources))]).collect())
        };
        files.into_iter().map(stable).collect()
    }

    /// `dead-letters replay` with the settings of a run in this place; returns what it prints, or its error.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn replay(&self, more: &[&str], code: i32) -> String {
        let output = finish(self.command(&["dead-letters", "replay"]).args(more));
        assert_exit(&output, code);
        String::from_utf8(if code == 0 { output.stdout } else { output.stderr }).expect("UTF-8")
    }

    /// Verifies the output root; returns how many rows its sealed hours have.
    ///
    /// # Panics
    /// When `verify` finds a fault.
    #[track_caller]
    pub fn verified_rows(&self) -> u64 {
        let verify = finish(&mut self.command(&["verify", "out", "--json"]));
        assert_exit(&verify, 0);
        let report: Value = serde_json::from_slice(&verify.stdout).expect("a report");
        report["rows"].as_u64().expect("a number of rows")
    }
}

/// Values of lines of JSON.
///
/// # Panics
/// When a line is none.
#[must_use]
pub fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a JSON line")).collect()
}

fn files_in(dir: &Path, found: &mut Vec<String>, wanted: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        // What begins with a dot is the program's own.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            files_in(&path, found, wanted);
        } else if wanted(&path) {
            found.push(path.to_str().expect("UTF-8").to_owned());
        }
    }
}

/// The manifests of finished directories below one of the output root.
///
/// # Panics
/// When `_SUCCESS` has no manifest beside it.
#[must_use]
pub fn manifests(out: &Path, below: &str) -> Vec<Value> {
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

/// Count and id hash of every hour that has a manifest below a directory, by type and start.
///
/// # Panics
/// When a manifest can't be read.
#[must_use]
pub fn hours(out: &Path) -> BTreeMap<String, (u64, String)> {
    let hour = |manifest: Value| {
        let key = format!("{} {}", manifest["event_type"], manifest["hour"]["start"]);
        (key, (manifest["count"].as_u64().expect("a count"), manifest["ids"].to_string()))
    };
    assert!(out.is_dir(), "{} is not there", out.display());
    let mut files = Vec::new();
    files_in(out, &mut files, &|path| path.ends_with("_manifest.json"));
    let manifest = |file: String| serde_json::from_slice(&std::fs::read(file).expect("a manifest")).expect("JSON");
    files.into_iter().map(manifest).map(hour).collect()
}
