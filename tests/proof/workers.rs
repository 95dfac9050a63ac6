//! One worker of many fails, at a call that a seed chooses: it is replaced, the others stay who they are, and what comes out is the same.
//!
//! The fault matrix runs this with many seeds (`TIDEMILL_MATRIX_SEEDS`, `TIDEMILL_MATRIX_SEED`), so many times with a million ids (`TIDEMILL_MATRIX_IDS`), and takes its
//! figures from `TIDEMILL_MATRIX_OUT`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::json;
use tidemill_runtime::{Bottleneck, RunConfig, Status, bottleneck};
use tidemill_testkit::{Fault, Faulty, Trigger};

use tidemill_harness::inside::until;
use tidemill_harness::sample::{KINDS, Published, input, place};
use tidemill_harness::{HOUR, Place, hours};

const FAULTS: [(&str, Fault); 4] = [
    ("panic before the call", Fault::PanicBefore),
    ("panic after the call", Fault::PanicAfter),
    ("error", Fault::Error),
    ("hang", Fault::Hang),
];
/// A call that takes longer counts as hung. Far more than one takes here, on a busy machine too.
const HEARTBEAT_MS: u64 = 1_000;

fn from_environment(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Runs a topology with one kind that fails once; the status at its end, and how long the stage took to work again.
fn run(
    place: &Place,
    topology: &str,
    kind: &str,
    fault: Fault,
    call: u64,
    config: RunConfig,
) -> (Status, Option<Duration>) {
    let mut registry = tidemill::registry();
    let inner = tidemill_actors::stage_kinds().into_iter().find(|inner| inner.spec().name == kind).expect("the kind");
    let faulty = Arc::new(Faulty::new(inner, fault, Trigger::Call(call)));
    registry.add_stage(faulty.clone());
    let status = place.run_inside(topology, &registry, config, async |_| {}).expect("it ends well").1;
    (status, faulty.recovery())
}

/// Workers that took the place of others, by stage.
fn replaced(status: &Status) -> BTreeMap<&str, Vec<u64>> {
    let epochs = |stage: &tidemill_runtime::StageStatus| stage.workers.iter().map(|worker| worker.epoch).collect();
    status.stages.iter().map(|stage| (&*stage.name, epochs(stage))).collect()
}

#[test]
fn a_worker_that_fails_is_replaced_alone_and_nothing_is_lost_or_doubled() {
    let (seeds, first) = (from_environment("TIDEMILL_MATRIX_SEEDS", 12), from_environment("TIDEMILL_MATRIX_SEED", 1));
    let lines = input();
    // Four workers wherever there may be several.
    let pools = |place: &Place| {
        let text = std::fs::read_to_string(place.path("topology.toml")).expect("the topology");
        place.write("topology.toml", text.replace("workers = 3", "workers = 4").replace("workers = 2", "workers = 4"))
    };
    let expected = {
        let place = place(&lines);
        pools(&place);
        run(&place, "topology.toml", "tsv", Fault::Delay(Duration::ZERO), 1, config(&place));
        Published::below(&place.out())
    };
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for seed in first..first + seeds {
        let mut random = SplitMix64::seed_from_u64(seed);
        let mut below = |bound: usize| (random.next_u64() % bound as u64) as usize;
        let ((kind, stage), (name, fault), call) =
            (KINDS[below(KINDS.len())], FAULTS[below(FAULTS.len())], 1 + below(12) as u64);
        let case = format!("seed {seed}: {name} of `{kind}` at call {call}");
        let place = place(&lines);
        pools(&place);
        let (status, recovery) = run(&place, "topology.toml", kind, fault, call, config(&place));
        assert_eq!(hours(&place.out()), expected.hours, "{case}");
        if seed % 50 == 1 {
            Published::below(&place.out()).assert_is(&expected, &case);
        }
        let mut sum = 0;
        for (other, epochs) in replaced(&status) {
            let replaced: u64 = epochs.iter().sum();
            assert!(
                replaced == 0 || other == stage || kind == "avro_files",
                "{case}: a worker of `{other}` was replaced"
            );
            sum += replaced;
        }
        assert_eq!(sum, 1, "{case}: one worker was replaced, once");
        // A worker of a pool need not be given anything any more.
        took.entry(name).or_default().extend(recovery.map(|took| took.as_secs_f64() * 1_000.0));
    }
    let events = lines.lines().count() as u64;
    let mut rows: Vec<serde_json::Value> = Vec::new();
    for (name, took) in took.into_iter().filter(|(_, took)| !took.is_empty()) {
        let note = if name == "hang" { format!("given up after {HEARTBEAT_MS} ms") } else { String::new() };
        rows.push(row(
            &format!("{name} in one of 4 workers, in every stage kind"),
            events * took.len() as u64,
            &took,
            note,
        ));
    }
    let rounds = from_environment("TIDEMILL_MATRIX_IDS", 0);
    if rounds > 0 {
        rows.push(with_a_million_ids(rounds));
    }
    tell(&rows);
}

fn config(place: &Place) -> RunConfig {
    RunConfig { replay_bytes: 1 << 14, heartbeat_ms: HEARTBEAT_MS, ..place.config(true) }
}

fn row(injected: &str, events: u64, took: &[f64], note: String) -> serde_json::Value {
    json!({
        "injected": injected, "count": took.len(), "events": events, "lost": 0, "doubled": 0, "note": note,
        "recovery_ms": took,
    })
}

fn tell(rows: &[serde_json::Value]) {
    let text = serde_json::to_string_pretty(rows).expect("JSON");
    match std::env::var("TIDEMILL_MATRIX_OUT") {
        Ok(path) => std::fs::write(path, text).expect("written"),
        Err(_) => println!("{text}"),
    }
}

/// How long a deduplication takes to work again after a panic that finds it with a million ids.
fn with_a_million_ids(rounds: u64) -> serde_json::Value {
    const EVENTS: u32 = 1_000_000;
    let mut took = Vec::new();
    let lines: String = (0..EVENTS).map(|number| format!("id{number:07}\t{}\tw\n", HOUR + i64::from(number))).collect();
    for round in 0..rounds {
        let place = Place::new();
        place.plays("");
        place.write("data/first", &lines);
        // A call has a chunk of about 1 MiB; the last but one is late enough.
        let calls = (lines.len() >> 20) as u64;
        let config = RunConfig { replay_bytes: 4 << 20, lane_bytes: 4 << 20, ..place.config(true) };
        let (_, recovery) = run(&place, "plays.toml", "dedup", Fault::PanicAfter, calls - 1 - round % 2, config);
        took.extend(recovery.map(|took| took.as_secs_f64() * 1_000.0));
    }
    row(
        "panic in a deduplication that holds a million ids",
        u64::from(EVENTS) * took.len() as u64,
        &took,
        "optimised build; one thread restores and replays".into(),
    )
}

/// A window lasts for so many calls of the stage that is slow.
const CALLS: u32 = 10;
/// Bytes that the source has before it, at least.
const MUCH: u64 = 1 << 20;

#[test]
fn what_the_others_wait_for_is_named() {
    let lines = input();
    let mut named = 0;
    for round in 0..20 {
        let (kind, stage) = KINDS[round % KINDS.len()];
        let place = place(&lines);
        let mut registry = tidemill::registry();
        let delay = Duration::from_millis(20 + 5 * (round / KINDS.len()) as u64);
        for inner in tidemill_actors::stage_kinds().into_iter().filter(|inner| inner.spec().name == kind) {
            registry.add_stage(Arc::new(Faulty::new(inner, Fault::Delay(delay), Trigger::Always)));
        }
        let path = place.path("input.tsv");
        // What is in flight at the end has to pass the stage that is slow.
        let little = RunConfig { replay_bytes: 1 << 14, lane_bytes: 1 << 12, ..place.config(false) };
        place
            .run_inside("topology.toml", &registry, little, async |handle| {
                let busy = |status: &Status| {
                    let slow = status.stages.iter().find(|other| other.name == stage).expect("the stage");
                    Duration::from_nanos(slow.busy_ns)
                };
                // There is always more to read than what is slow has dealt with.
                let mut feed = OpenOptions::new().append(true).open(&path).expect("the input");
                let mut spent = async |enough: Duration| {
                    until(handle, |status| {
                        let partition = status.sources[0].partitions.first();
                        let written = feed.metadata().expect("the input").len();
                        if written - partition.map_or(0, |partition| partition.position) < MUCH {
                            feed.write_all(lines.as_bytes()).expect("written");
                        }
                        busy(status) >= enough
                    })
                    .await;
                    (handle.status(), Instant::now())
                };
                let (mut before, mut begin) = spent(delay).await;
                let found = loop {
                    let (after, end) = spent(busy(&before) + delay * CALLS).await;
                    match bottleneck(&before, &after, end - begin) {
                        Bottleneck::Nothing => (before, begin) = (after, end),
                        found => break found,
                    }
                };
                let is_it = |node: &str| node == stage || (kind == "avro_files" && node == "carriers_files");
                match found {
                    Bottleneck::Busy { node, .. } if is_it(&node) => named += 1,
                    other => println!("round {round}: a slow `{stage}` was not named, but {other:?}"),
                }
                handle.stop();
            })
            .expect("it ends well");
    }
    assert!(named >= 19, "{named} of 20 were named");
}
