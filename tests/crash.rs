//! `kill -9` at seeded moments, and between every two steps of a commit: what comes out is what the generator says it made.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Place, assert_exit, python, said};

/// Steps of a commit, in order; see `committer.rs`, `ledger.rs` and `publish.rs` of the runtime.
const STEPS: [&str; 8] = [
    "cut-begins",
    "logs-synced",
    "snapshot-synced",
    "ledger-written",
    "ledger-synced",
    "index-synced",
    "file-published",
    "effects-done",
];

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
    let audit = python(
        "audit_files.py",
        &[out.to_str().unwrap(), "--truth", truth.to_str().unwrap(), "--expect-unique-field", "event_id"],
    );
    assert_exit(&audit, 0);
    println!("{}", said(&audit));
    assert_exit(&place.tidemill(&["verify", out.to_str().unwrap()]), 0);
}

/// Numbers from a seed (SplitMix64), so that a failing seed can be run again.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn five_million_events_survive_twenty_kills_at_seeded_points_of_progress() {
    const EVENTS: u64 = 5_000_000;
    let place = Place::new();
    let topology = generated(&place, EVENTS, 7, &["--files", "2"]);
    let mut seed = 20_260_101;
    println!("seed {seed}");
    let bytes: u64 =
        (0..2).map(|file| std::fs::metadata(place.path(&format!("data/events-0000{file}.tsv"))).unwrap().len()).sum();
    let mut points: Vec<u64> = (0..20).map(|_| random(&mut seed) % bytes).collect();
    points.sort_unstable();
    let mut kills = 0;
    for point in points {
        kills += usize::from(kill_when_read(&place, &topology, point));
    }
    println!("{kills} of 20 kills hit a running process");
    assert!(kills >= 15, "too few kills came in time: {kills}");
    finish_and_audit(&place, &topology);
}

/// Event time runs on while a barrier is on its way: what a cut knows of it must not be ahead of the cut's positions, or the
/// events that are read again after a crash find their hours sealed.
#[test]
fn a_crash_makes_no_event_late_although_none_may_be() {
    let place = Place::new();
    let more = ["--hours", "200", "--disorder", "0s", "--duplicates", "0"];
    let topology = generated(&place, 1_000_000, 11, &more);
    let text = std::fs::read_to_string(&topology).expect("the topology");
    let strict = text.replace("name = \"crash\"", "name = \"crash\"\nallowed_lateness = \"0s\"");
    std::fs::write(&topology, strict).expect("written");
    let mut kills = 0;
    for _ in 0..6 {
        let mut command = place.run_command(&args(&topology));
        command.args(["--set", "runtime.replay=8MiB"]);
        let run = command.env("TIDEMILL_FAILPOINT", "effects-done:3").output().expect("the binary runs");
        kills += usize::from(run.status.code().is_none());
    }
    assert!(kills >= 4, "{kills} kills");
    finish_and_audit(&place, &topology);
    assert!(!place.out().join("_dead_letters").exists(), "there are dead letters");
}

/// Runs until the sources have committed `point` bytes in all runs together, then kills; `false` if the run ended before.
fn kill_when_read(place: &Place, topology: &Path, point: u64) -> bool {
    let mut command = place.command(&["run", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
    command.args(args(topology)).args(["--set", "log.level=warn"]);
    let mut child = command.stderr(Stdio::null()).spawn().expect("the binary runs");
    let killed = loop {
        if child.try_wait().expect("the process can be asked").is_some() {
            break false;
        }
        if position(place).is_some_and(|position| position >= point) {
            child.kill().expect("it can be killed");
            break true;
        }
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    };
    child.wait().expect("it ends");
    killed
}

/// Sum of the positions that the running process shows.
fn position(place: &Place) -> Option<u64> {
    let status = place.tidemill(&["status", "crash", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
    let partitions = status["sources"][0]["partitions"].as_array()?;
    Some(partitions.iter().filter_map(|partition| partition["position"].as_u64()).sum())
}

#[test]
fn a_kill_between_any_two_steps_of_a_commit_changes_nothing() {
    for step in STEPS {
        for nth in [1, 3, 40] {
            let place = Place::new();
            let topology = generated(&place, 100_000, nth, &["--files", "2"]);
            // A few cuts before the end, so that early and late ones are hit: with and without seals, with and without files.
            let mut command = place.run_command(&args(&topology));
            let killed = command.env("TIDEMILL_FAILPOINT", format!("{step}:{nth}")).output().expect("the binary runs");
            let was_killed = killed.status.code().is_none();
            assert!(was_killed || nth > 1, "{step} was never reached: {}", said(&killed));
            println!("{step}:{nth} {}", if was_killed { "killed" } else { "not reached" });
            finish_and_audit(&place, &topology);
        }
    }
}
