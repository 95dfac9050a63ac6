//! `kill -9` at seeded moments, and between every two steps of a commit: what comes out is what the generator says it
//! made.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use tidemill_harness::admin::{address, page};
use tidemill_harness::generated::{Crashing, args, finish_and_audit, generated, many_cuts};
use tidemill_harness::{KILLED, Place, Process, finish, printed, seeded, side_by_side, wait_for};

/// Steps of a commit, in order, with a number that is reached in the middle of a run; see `committer.rs` and
/// `ledger.rs` of the runtime.
const STEPS: [(&str, &str); 8] = [
    ("cut-begins", "20"),
    ("logs-synced", "20"),
    ("pieces-synced", "20"),
    ("ledger-written", "20"),
    ("ledger-synced", "20"),
    ("logs-removed", "3"),
    ("effects-done", "20"),
    ("pieces-removed", "20"),
];

/// Steps of the publisher behind it; see `publisher.rs` and `publish.rs`.
const PUBLISHER_STEPS: [(&str, &str); 6] = [
    ("publication-begins", "5"),
    ("index-synced", "5"),
    ("file-published", "100"),
    ("directories-synced", "5"),
    ("publication-marked", "2"),
    ("published", "2"),
];

/// Steps of the change to a new ledger file.
const LEDGER_STEPS: [&str; 4] = ["ledger-created", "base-written", "ledger-begun", "ledger-removed"];

/// Points of a start that finds a record whose effects are not done, in order; see `committer.rs` and `run.rs`.
const RECOVERY: [&str; 13] = [
    "index-synced:1",
    "file-published:1",
    "file-published:40",
    "directories-synced:1",
    "publication-marked:1",
    "logs-removed:1",
    "effects-redone:1",
    "pieces-found:1",
    "logs-restored:1",
    "ledger-created:1",
    "base-written:1",
    "ledger-begun:1",
    "ledger-removed:1",
];

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
        assert_eq!(run.status.signal(), Some(KILLED), "{}", printed(&run));
    }
    finish_and_audit(&place, &topology);
    assert!(!place.out().join("_dead_letters").exists(), "there are dead letters");
}

/// Runs until the source has handed on `point` bytes in all runs together, then kills.
fn kill_when_read(place: &Place, topology: &Path, point: u64) {
    let mut command = place.command(&["run", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
    command.args(args(topology)).args(["--set", "log.level=warn", "--set", "runtime.replay=16MiB"]);
    let mut child = Process::start(command.stderr(Stdio::null()));
    let admin = address(place, "crash", &child);
    wait_for("the position", || {
        assert_eq!(child.status(), None, "it ended before {point} bytes");
        (position(&admin)? >= point).then_some(())
    });
    assert_eq!(child.kill().status.signal(), Some(KILLED), "it ended at {point} bytes");
}

/// Sum of the positions that the running process shows.
fn position(admin: &str) -> Option<u64> {
    let status: serde_json::Value = serde_json::from_str(&page(admin, "/status")?.1).ok()?;
    let partitions = status["sources"][0]["partitions"].as_array()?;
    Some(partitions.iter().filter_map(|partition| partition["position"].as_u64()).sum())
}

/// Five kills each: early, in the middle, at a cut that seals hours, and at the last one. What a start does again
/// counts too.
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

/// Cuts go on meanwhile, so the last one may be committed before that: then the run is not killed a fifth time.
#[test]
fn a_kill_between_any_two_steps_of_a_publication_changes_nothing() {
    side_by_side(&PUBLISHER_STEPS, |(step, middle)| {
        let place = Place::new();
        let crashing = many_cuts(&place, 8);
        for point in ["1", "2", middle, "1:sealing"] {
            crashing.kill_at(&format!("{step}:{point}"));
        }
        crashing.run_to(&format!("{step}:1:last"));
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
