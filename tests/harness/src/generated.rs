//! A topology over generated files, whose truth is known, and runs of it that are killed.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{KILLED, Place, assert_exit, finish, printed, python};

/// A topology like the benchmark's over generated files.
pub fn generated(place: &Place, events: u64, seed: u64, more: &[&str]) -> PathBuf {
    let (events, seed) = (events.to_string(), seed.to_string());
    let args = ["generate", "--events", &events, "--seed", &seed, "--out", "data"];
    assert_exit(&place.tidemill(&[&args, more].concat()), 0);
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.path("data/truth.json")).expect("the truth")).expect("JSON");
    let mut text = String::from(
        r#"
        [topology]
        name = "crash"
        [sources.events]
        kind = "file"
        paths = ["data/events-*.tsv"]
        [stages.parse]
        kind = "tsv"
        from = ["events"]
        workers = 2
        type_from = { column = 0 }
        time = "epoch_ms"
        [stages.dedup]
        kind = "dedup"
        from = ["parse"]
        [stages.counts]
        kind = "hourly"
        from = ["dedup"]
        group_by = ["country"]
        measures = { events = "count()" }
        [sinks.warehouse]
        kind = "avro_files"
        from = ["dedup"]
        [sinks.counts_files]
        kind = "avro_files"
        from = ["counts"]
        "#,
    );
    for name in truth["types"].as_object().expect("types").keys() {
        text.push_str(&format!(
            "[types.{name}]\nschema = \"data/listening.avsc\"\ntime = \"event_time\"\nid = [\"event_id\"]\n"
        ));
    }
    place.write("crash.toml", text)
}

/// Arguments of a run to its end.
#[must_use]
pub fn args(topology: &Path) -> [&str; 4] {
    [topology.to_str().unwrap(), "--until-end", "--set", "cut.interval=100ms"]
}

/// Runs to the end, and asserts that readers which share no code find what the generator made.
///
/// # Panics
/// When they do not.
pub fn finish_and_audit(place: &Place, topology: &Path) {
    let run = place.run(&args(topology));
    assert_exit(&run, 0);
    let (out, truth) = (place.out(), place.path("data/truth.json"));
    let files = [out.to_str().unwrap(), "--truth", truth.to_str().unwrap(), "--expect-unique-field", "event_id"];
    let audit = python("audit_files.py", &[&files[..], &["--hourly-counts", "counts.events"]].concat());
    assert_exit(&audit, 0);
    println!("{}", printed(&audit));
    assert_exit(&place.tidemill(&["verify", out.to_str().unwrap()]), 0);
}

/// 47 cuts or so, because received bytes are bounded, of which eight seal an hour of all types each; from the third
/// on they also
/// retire Logs of `dedup`. The events go to their files through a pond, so that two regions cut, publish and recover.
pub fn many_cuts(place: &Place, hours: u32) -> Crashing<'_> {
    let topology = generated(place, 60_000, 5, &["--files", "2", "--hours", &hours.to_string()]);
    let text = std::fs::read_to_string(&topology).expect("the topology");
    let text = text
        .replace("name = \"crash\"", "name = \"crash\"\nallowed_lateness = \"2m\"")
        .replace("kind = \"file\"", "kind = \"file\"\nread_size = \"32KiB\"")
        .replace("kind = \"dedup\"", "kind = \"dedup\"\nwindow = \"1h\"")
        .replace("[sinks.warehouse]", "[sinks.warehouse]\npond = { max_bytes = \"8MiB\" }");
    std::fs::write(&topology, text).expect("written");
    Crashing { place, topology, ledger_bytes: None }
}

/// Runs that are to be killed, one after the other, over the same state.
pub struct Crashing<'a> {
    /// Where they run.
    pub place: &'a Place,
    /// The topology's file.
    pub topology: PathBuf,
    /// From which size on a ledger file is followed by another.
    pub ledger_bytes: Option<&'static str>,
}

impl Crashing<'_> {
    /// A run with these many cuts.
    pub fn command(&self) -> Command {
        let mut command = self.place.run_command(&args(&self.topology));
        command.args(["--seal", "watermark", "--set", "cut.interval=20ms", "--set", "runtime.replay=128KiB"]);
        command.envs(self.ledger_bytes.map(|bytes| ("TIDEMILL_LEDGER_BYTES", bytes)));
        command
    }

    /// Runs to the point, and asserts that it was reached.
    #[track_caller]
    pub fn kill_at(&self, point: &str) {
        let run = self.run_to(point);
        assert_eq!(run.status.signal(), Some(KILLED), "{point} was not reached: {}", printed(&run));
        println!("killed at {point}");
    }

    /// Runs to the point, or to the end of the input when it is not reached.
    pub fn run_to(&self, point: &str) -> Output {
        finish(self.command().env("TIDEMILL_FAILPOINT", point))
    }

    /// Runs to the end, and looks at what came out.
    pub fn finish_and_audit(&self) {
        finish_and_audit(self.place, &self.topology);
    }
}
