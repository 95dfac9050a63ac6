//! `kill -9` at seeded moments, and between every two steps of a commit: what comes out is what the generator says it made.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::support::admin::{address, page};
use crate::support::{Place, assert_exit, finish, python, said, wait_for};

/// Steps of a commit, in order, with a number that is reached in the middle of a run; see `committer.rs`, `ledger.rs` and
/// `publish.rs` of the runtime.
const STEPS: [(&str, &str); 11] = [
    ("cut-begins", "20"),
    ("logs-synced", "20"),
    ("snapshot-synced", "20"),
    ("ledger-written", "20"),
    ("ledger-synced", "20"),
    ("index-synced", "5"),
    ("file-published", "100"),
    ("directories-synced", "5"),
    ("logs-removed", "3"),
    ("effects-done", "20"),
    ("snapshot-removed", "20"),
];

/// Steps of the change to a new ledger file.
const LEDGER_STEPS: [&str; 4] = ["ledger-created", "base-written", "ledger-begun", "ledger-removed"];

/// Points of a start that finds a record whose effects are not done, in order; see `committer.rs` and `run.rs`.
const RECOVERY: [&str; 12] = [
    "index-synced:1",
    "file-published:1",
    "file-published:40",
    "directories-synced:1",
    "logs-removed:1",
    "effects-redone:1",
    "snapshots-cleared:1",
    "logs-restored:1",
    "ledger-created:1",
    "base-written:1",
    "ledger-begun:1",
    "ledger-removed:1",
];

/// SIGKILL.
pub(crate) const KILLED: i32 = 9;

/// A topology like the benchmark's over generated files.
fn generated(place: &Place, events: u64, seed: u64, more: &[&str]) -> PathBuf {
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

fn args(topology: &Path) -> [&str; 4] {
    [topology.to_str().unwrap(), "--until-end", "--set", "cut.interval=100ms"]
}

fn finish_and_audit(place: &Place, topology: &Path) {
    let run = place.run(&args(topology));
    assert_exit(&run, 0);
    let (out, truth) = (place.out(), place.path("data/truth.json"));
    let files = [out.to_str().unwrap(), "--truth", truth.to_str().unwrap(), "--expect-unique-field", "event_id"];
    let audit = python("audit_files.py", &[&files[..], &["--hourly-counts", "counts.events"]].concat());
    assert_exit(&audit, 0);
    println!("{}", said(&audit));
    assert_exit(&place.tidemill(&["verify", out.to_str().unwrap()]), 0);
}

/// So many numbers below a bound, ascending, from a seed that is printed, so that a failing one can be run again.
pub(crate) fn seeded(seed: u64, count: usize, bound: u64) -> Vec<u64> {
    println!("seed {seed}");
    let mut random = SplitMix64::seed_from_u64(seed);
    let mut numbers: Vec<u64> = (0..count).map(|_| random.next_u64() % bound).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn five_million_events_survive_twenty_kills_at_seeded_points_of_progress() {
    const EVENTS: u64 = 5_000_000;
    let place = Place::new();
    let topology = generated(&place, EVENTS, 7, &["--files", "2"]);
    let bytes: u64 =
        (0..2).map(|file| std::fs::metadata(place.path(&format!("data/events-0000{file}.tsv"))).unwrap().len()).sum();
    // Behind the last point is more than a run can read before it is seen to be there: what is not in a cut is bounded.
    seeded(20_260_101, 20, bytes / 100 * 85).into_iter().for_each(|point| kill_when_read(&place, &topology, point));
    finish_and_audit(&place, &topology);
}

/// Event time runs on while a barrier is on its way: what a cut knows of it must not be ahead of the cut's positions, or the
/// events that are read again after a crash find their hours sealed.
#[test]
fn a_crash_makes_no_event_late_although_none_may_be() {
    let place = Place::new();
    let more = ["--hours", "100", "--disorder", "0s", "--duplicates", "0"];
    let topology = generated(&place, 1_000_000, 11, &more);
    let text = std::fs::read_to_string(&topology).expect("the topology");
    let strict = text.replace("name = \"crash\"", "name = \"crash\"\nallowed_lateness = \"0s\"");
    std::fs::write(&topology, strict).expect("written");
    for _ in 0..6 {
        let mut command = place.run_command(&args(&topology));
        // 110 MB in runs of three cuts of at most so much and a chunk.
        command.args(["--set", "runtime.replay=4MiB"]);
        let run = finish(command.env("TIDEMILL_FAILPOINT", "effects-done:3"));
        assert_eq!(run.status.signal(), Some(KILLED), "{}", said(&run));
    }
    finish_and_audit(&place, &topology);
    assert!(!place.out().join("_dead_letters").exists(), "there are dead letters");
}

/// Runs until the source has handed on `point` bytes in all runs together, then kills.
fn kill_when_read(place: &Place, topology: &Path, point: u64) {
    let mut command = place.command(&["run", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
    command.args(args(topology)).args(["--set", "log.level=warn", "--set", "runtime.replay=16MiB"]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("the binary runs");
    let admin = address(place, "crash", &child);
    wait_for("the position", || {
        assert_eq!(child.try_wait().expect("the process can be asked"), None, "it ended before {point} bytes");
        (position(&admin)? >= point).then_some(())
    });
    child.kill().expect("it can be killed");
    assert_eq!(child.wait().expect("it ends").signal(), Some(KILLED), "it ended at {point} bytes");
}

/// Sum of the positions that the running process shows.
fn position(admin: &str) -> Option<u64> {
    let status: serde_json::Value = serde_json::from_str(&page(admin, "/status")?.1).ok()?;
    let partitions = status["sources"][0]["partitions"].as_array()?;
    Some(partitions.iter().filter_map(|partition| partition["position"].as_u64()).sum())
}

/// 47 cuts or so, because received bytes are bounded, of which eight seal an hour of all types each; from the third on they also
/// retire Logs of `dedup`. The events go to their files through a pond, so that two regions cut, publish and recover.
pub(crate) fn many_cuts(place: &Place, hours: u32) -> Crashing<'_> {
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
pub(crate) struct Crashing<'a> {
    place: &'a Place,
    topology: PathBuf,
    ledger_bytes: Option<&'static str>,
}

impl Crashing<'_> {
    /// A run with these many cuts.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.place.run_command(&args(&self.topology));
        command.args(["--set", "cut.interval=20ms", "--set", "runtime.replay=128KiB"]);
        command.envs(self.ledger_bytes.map(|bytes| ("TIDEMILL_LEDGER_BYTES", bytes)));
        command
    }

    /// Runs to the point, and asserts that it was reached.
    #[track_caller]
    fn kill_at(&self, point: &str) {
        let run = self.run_to(point);
        assert_eq!(run.status.signal(), Some(KILLED), "{point} was not reached: {}", said(&run));
        println!("killed at {point}");
    }

    /// Runs to the point, or to the end of the input when it is not reached.
    fn run_to(&self, point: &str) -> std::process::Output {
        finish(self.command().env("TIDEMILL_FAILPOINT", point))
    }

    pub(crate) fn finish_and_audit(&self) {
        finish_and_audit(self.place, &self.topology);
    }
}

/// Most of the time they wait for the disk.
pub(crate) fn side_by_side<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| run(case));
        }
    });
}

/// Five kills each: early, in the middle, at a cut that seals hours, and at the last one. What a start does again counts too: of
/// the steps that publish, some of the kills are in there.
#[test]
fn a_kill_between_any_two_steps_of_a_commit_changes_nothing() {
    side_by_side(&STEPS, |(step, middle)| {
        let place = Place::new();
        let crashing = many_cuts(&place, 8);
        for point in ["1", "2", middle, "1:sealing", "1:last"] {
            crashing.kill_at(&format!("{step}:{point}"));
        }
        crashing.finish_and_audit();
    });
}

#[test]
fn a_kill_while_a_ledger_file_is_begun_at_a_start_or_because_the_old_one_is_large_changes_nothing() {
    side_by_side(&LEDGER_STEPS, |step| {
        let place = Place::new();
        // With each cut it is large.
        let crashing = Crashing { ledger_bytes: Some("1"), ..many_cuts(&place, 8) };
        for point in ["1", "2", "1:sealing", "2:sealing", "12", "1:last"] {
            crashing.kill_at(&format!("{step}:{point}"));
        }
        crashing.finish_and_audit();
    });
}

/// The run before was killed when its record was durable and nothing of what it publishes and retires was done.
#[test]
fn a_kill_in_a_recovery_changes_nothing() {
    // A cut that was about to hold more of the Logs, so that they are truncated. One that only seals hours holds nothing more, and it depends on
    // the pace which cuts do: then it is another one's turn.
    let killed = (3..12).find_map(|cut| {
        let place = Place::new();
        let crashing = many_cuts(&place, 24);
        crashing.kill_at(&format!("cut-begins:{cut}"));
        let was_killed = crashing.run_to("log-truncated:1").status.signal() == Some(KILLED);
        let topology = crashing.topology;
        was_killed.then_some((place, topology))
    });
    let (place, topology) = killed.expect("one of nine cuts held more than the one before");
    let crashing = Crashing { place: &place, topology, ledger_bytes: None };
    // The first hours retire nothing.
    crashing.kill_at("ledger-synced:4:sealing");
    for point in RECOVERY {
        crashing.kill_at(point);
        // What that start had not done the next one does; then the next hour.
        crashing.kill_at("ledger-synced:1:sealing");
    }
    crashing.finish_and_audit();
}
