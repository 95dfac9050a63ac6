//! Runs that must come to an end, and what they left behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Place, assert_exit, said};

/// Far longer than anything here takes: beyond it, something hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs a command to its end; kills it and fails when there is none.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    end_of(child.expect("the binary runs"))
}

/// The same of a process that runs.
#[track_caller]
pub(crate) fn end_of(child: Child) -> Output {
    let (done, waiting) = channel::<()>();
    let pid = child.id();
    let watch = std::thread::spawn(move || {
        let hangs = waiting.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
        if hangs {
            signal(pid, rustix::process::Signal::KILL);
        }
        hangs
    });
    let output = child.wait_with_output().expect("its output can be read");
    drop(done);
    let hung = watch.join().expect("the watch does not panic");
    assert!(!hung, "it hangs: {}", said(&output));
    output
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    // It may have ended already; whoever waits for it sees how.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Asks a run to stop, and sees that it ends well.
#[track_caller]
pub(crate) fn stop(child: Child) {
    signal(child.id(), rustix::process::Signal::TERM);
    assert_exit(&end_of(child), 0);
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Place {
    /// Records of all published files of the output root whose path below it begins with `prefix`, as `tidemill cat` prints them.
    #[track_caller]
    pub(crate) fn published(&self, prefix: &str) -> Vec<Value> {
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

    /// What the manifests of all sealed hours say that does not depend on the run, by path.
    pub(crate) fn manifests(&self) -> BTreeMap<String, Value> {
        let mut files = Vec::new();
        files_in(&self.out(), &mut files, &|path| path.ends_with("_manifest.json"));
        let said = |file: String| {
            let manifest: Value = serde_json::from_slice(&std::fs::read(file).expect("a manifest")).expect("JSON");
            let same = ["count", "ids", "event_time", "duplicates_dropped", "late_within_allowed", "reason"];
            let path = manifest["path"].as_str().expect("a path").to_owned();
            let sources: Vec<&String> = manifest["positions"].as_object().expect("positions").keys().collect();
            let same = same.map(|key| (key, manifest[key].clone())).into_iter();
            (path, same.chain([("sources", serde_json::json!(sources))]).collect())
        };
        files.into_iter().map(said).collect()
    }

    /// Verifies the output root; returns how many rows its sealed hours have.
    #[track_caller]
    pub(crate) fn verified_rows(&self) -> u64 {
        let verify = finish(&mut self.command(&["verify", "out", "--json"]));
        assert_exit(&verify, 0);
        let report: Value = serde_json::from_slice(&verify.stdout).expect("a report");
        report["rows"].as_u64().expect("a number of rows")
    }
}

pub(crate) fn json_lines(bytes: &[u8]) -> Vec<Value> {
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
