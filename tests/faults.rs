//! A stage that panics or fails: that worker is replaced, the others go on, and what comes out is the same.

use std::collections::BTreeMap;
use std::path::Path;

use metrics_exporter_prometheus::PrometheusBuilder;
use tidemill_runtime::{Registry, RunConfig, Status};
use tidemill_testkit::{Fault, Faulty, Trigger};

use crate::support::inside::until;
use crate::support::{Place, assert_exit, lines, python, root};

/// Every kind of stage with a fault: sample flights through `tsv`, `filter`, `dedup`, `hourly` and `avro_files`.
const TOPOLOGY: &str = r#"
[topology]
name = "faults"
allowed_lateness = "1h"
[types.flight]
schema = "SCHEMA"
time = "scheduled_at"
id = ["flight_id"]
[sources.departures]
kind = "file"
paths = ["input.tsv"]
read_size = "4KiB"
[stages.parse]
kind = "tsv"
from = ["departures"]
workers = 3
type_from = { const = "flight" }
null = ["NA"]
[stages.flown]
kind = "filter"
from = ["parse"]
where = "distance > 0"
workers = 2
[stages.dedup]
kind = "dedup"
from = ["flown"]
[stages.carriers]
kind = "hourly"
from = ["dedup"]
group_by = ["carrier"]
measures = { flights = "count()", planes = "approx_distinct(tailnum)" }
[sinks.flights]
kind = "avro_files"
from = ["dedup"]
[sinks.carriers_files]
kind = "avro_files"
from = ["carriers"]
"#;

pub(crate) const KINDS: [(&str, &str); 5] =
    [("tsv", "parse"), ("filter", "flown"), ("dedup", "dedup"), ("hourly", "carriers"), ("avro_files", "flights")];

pub(crate) fn place(lines: &str) -> Place {
    let place = Place::new();
    let schema = root().join("topologies/schemas/flight.avsc");
    place.write("topology.toml", TOPOLOGY.replace("SCHEMA", &schema.display().to_string()));
    place.write("input.tsv", lines);
    place
}

/// The sample with every fifth line twice.
pub(crate) fn input() -> String {
    let sample = std::fs::read_to_string(root().join("topologies/flights/flights-sample.tsv")).expect("the sample");
    let mut text = String::new();
    for (at, line) in sample.lines().enumerate() {
        for _ in 0..=usize::from(at % 5 == 0) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Runs the topology in this process with one kind replaced, to its end.
fn run(place: &Place, faulty: Option<(&str, Fault, Trigger)>) -> Status {
    // So long that nothing counts as hung.
    run_watched(place, faulty, 600_000)
}

fn run_watched(place: &Place, faulty: Option<(&str, Fault, Trigger)>, heartbeat_ms: u64) -> Status {
    let mut registry: Registry = tidemill::registry();
    for kind in tidemill_actors::stage_kinds() {
        match &faulty {
            Some((name, fault, trigger)) if kind.spec().name == *name => {
                registry.add_stage(std::sync::Arc::new(Faulty::new(kind, *fault, trigger.clone())));
            }
            _ => {}
        }
    }
    let config = RunConfig {
        // So little that the source waits for cuts: a fault at a late call goes back to a snapshot, not to the beginning.
        replay_bytes: 1 << 14,
        heartbeat_ms,
        ..place.config(true)
    };
    place.run_inside("topology.toml", &registry, config, async |_| {}).expect("it ends well").1
}

/// What was published: count and id hash of every hour, from the manifests, and all rows, events and hourly ones, as somebody else
/// reads and audits them.
pub(crate) struct Published {
    pub(crate) hours: BTreeMap<String, (u64, String)>,
    rows: Vec<String>,
}

impl Published {
    pub(crate) fn below(out: &Path) -> Self {
        let audit = python("audit_files.py", &[out.to_str().unwrap(), "--rows", "--expect-unique-field", "flight_id"]);
        assert_exit(&audit, 0);
        let text = String::from_utf8(audit.stdout).expect("UTF-8");
        let rows = text.lines().filter_map(|line| line.strip_prefix("ROW ")).map(str::to_owned).collect();
        Self { hours: hours(out), rows }
    }

    #[track_caller]
    pub(crate) fn assert_is(&self, expected: &Self, case: &str) {
        assert_eq!(self.hours, expected.hours, "{case}");
        for (found, expected) in self.rows.iter().zip(&expected.rows) {
            assert_eq!(found, expected, "{case}");
        }
        assert_eq!(self.rows.len(), expected.rows.len(), "{case}");
    }

    /// How many rows a type has.
    fn rows_of(&self, event_type: &str) -> usize {
        self.rows.iter().filter(|row| row.split(' ').next() == Some(event_type)).count()
    }
}

pub(crate) fn hours(out: &Path) -> BTreeMap<String, (u64, String)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![out.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else if entry.ends_with("_manifest.json") {
                let text = std::fs::read(&entry).expect("a manifest");
                let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
                let key = format!("{} {}", manifest["event_type"], manifest["hour"]["start"]);
                found.insert(key, (manifest["count"].as_u64().expect("a count"), manifest["ids"].to_string()));
            }
        }
    }
    found
}

/// The restarts of each stage, as a page of metrics says them: what a run has counted, through the exporter of the admin server.
fn served_restarts(status: &Status) -> BTreeMap<String, u64> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || tidemill_runtime::export(status, &mut Vec::new()));
    let page = recorder.handle().render();
    let series = page.lines().filter_map(|line| line.strip_prefix("tidemill_stage_restarts_total{"));
    let restarts = series.map(|line| {
        let (labels, value) = line.split_once("} ").expect("labels, then a value");
        let stage = labels.split(',').find_map(|label| label.strip_prefix("stage=\"")?.strip_suffix('"'));
        (stage.expect("a stage").to_owned(), value.parse().expect("a number"))
    });
    restarts.collect()
}

#[test]
fn a_fault_in_any_kind_of_stage_changes_nothing_but_that_workers_epoch() {
    let calm = place(&input());
    run(&calm, None);
    let expected = Published::below(&calm.out());
    assert!(expected.hours.len() > 100);
    assert!(expected.rows_of("carriers") > 500);
    for (kind, stage) in KINDS {
        for fault in [Fault::PanicBefore, Fault::PanicAfter, Fault::Error] {
            for nth in [1, 7, 40] {
                let case = format!("{kind} {fault:?} at call {nth}");
                println!("{case}");
                let place = place(&input());
                let status = run(&place, Some((kind, fault, Trigger::Call(nth))));
                Published::below(&place.out()).assert_is(&expected, &case);
                let restarts = served_restarts(&status);
                assert_eq!(restarts.len(), status.stages.len(), "{case}: {restarts:?}");
                for found in &status.stages {
                    let epochs: u64 = found.workers.iter().map(|worker| worker.epoch).sum();
                    assert_eq!(epochs, restarts[&*found.name], "{case}: {}", found.name);
                }
                // Three sinks are of the kind `avro_files`; the fault strikes one of them.
                let of_kind = |found: &&tidemill_runtime::StageStatus| found.kind == kind;
                let struck: u64 = status.stages.iter().filter(of_kind).map(|found| restarts[&*found.name]).sum();
                assert_eq!(struck, 1, "{case}: {restarts:?}");
                assert_eq!(restarts.values().sum::<u64>(), 1, "{case}: {restarts:?}");
                assert!(restarts.contains_key(stage));
            }
        }
    }
}

/// So long that no call of a starved thread counts as hung.
const HEARTBEAT_MS: u64 = 2_000;

/// The rest of a planned hang's run goes on while its thread is stuck, or comes back when another has taken its place.
#[test]
fn a_call_that_hangs_is_given_up_and_if_it_comes_back_after_all_it_has_no_effect() {
    let calm = place(&input());
    run(&calm, None);
    let expected = Published::below(&calm.out());
    let late = Fault::Freeze(std::time::Duration::from_millis(2 * HEARTBEAT_MS));
    let case = |kind: &str, fault: Fault| {
        let case = format!("{kind} {fault:?}");
        let place = place(&input());
        let status = run_watched(&place, Some((kind, fault, Trigger::Call(7))), HEARTBEAT_MS);
        Published::below(&place.out()).assert_is(&expected, &case);
        let restarts = served_restarts(&status);
        assert_eq!(restarts.values().sum::<u64>(), 1, "{case}: {restarts:?}");
        let struck: u64 =
            status.stages.iter().filter(|found| found.kind == kind).map(|found| restarts[&*found.name]).sum();
        assert_eq!(struck, 1, "{case}: {restarts:?}");
        // The one never comes back, the other came while the run still went on.
        let stuck: usize = status.stages.iter().map(|found| found.stuck_threads).sum();
        assert_eq!(stuck, usize::from(fault == Fault::Hang), "{case}");
        println!("{case}");
    };
    std::thread::scope(|scope| {
        for (kind, _) in KINDS {
            for fault in [Fault::Hang, late] {
                let case = &case;
                scope.spawn(move || case(kind, fault));
            }
        }
    });
}

/// The input with one event that a stage of some kind can't deal with.
fn with_poison() -> String {
    let clean = input();
    let at = clean.lines().count() / 2;
    let mut lines: Vec<String> = clean.lines().map(str::to_owned).collect();
    let poison = lines[at].replace("\tUA\t", "\tZZ\t").replace("\tB6\t", "\tZZ\t");
    let mut fields: Vec<&str> = poison.split('\t').collect();
    fields[1] = "POISON-20130102";
    lines.insert(at, fields.join("\t"));
    lines.join("\n") + "\n"
}

#[test]
fn an_event_on_which_a_stage_hangs_is_found_and_dead_lettered_and_all_others_come_out() {
    let text = with_poison();
    let calm = place(&text);
    let whole = run(&calm, None);
    let received =
        |status: &Status, stage: &str| status.stages.iter().find(|found| found.name == stage).expect("the stage").tally;
    std::thread::scope(|scope| {
        for (kind, stage) in [("tsv", "parse"), ("dedup", "dedup")] {
            let (text, whole, received) = (&text, &whole, &received);
            scope.spawn(move || {
                let place = place(text);
                let status =
                    run_watched(&place, Some((kind, Fault::Hang, Trigger::Bytes(b"POISON".to_vec()))), HEARTBEAT_MS);
                let (tally, before) = (received(&status, stage), received(whole, stage));
                assert_eq!((tally.dead, tally.received), (before.dead + 1, before.received), "{kind}: {tally:?}");
                let letters = place.published("_dead_letters");
                let poison: Vec<_> = letters.iter().filter(|letter| letter["reason"] == "stage_failed").collect();
                assert_eq!(poison.len(), 1, "{kind}: {letters:?}");
                assert!(poison[0]["message"].as_str().expect("a text").contains("hangs"), "{kind}: {poison:?}");
                place.verified_rows();
            });
        }
    });
}

/// Stages that parse other forms than `tsv`: the same events as JSON lines, and as the Avro files that an earlier run made.
#[test]
fn a_fault_in_json_or_avro_changes_nothing_either() {
    let origin = place(&input());
    run(&origin, None);
    let expected = Published::below(&origin.out());
    let schema = root().join("topologies/schemas/flight.avsc");
    let mut json = String::new();
    for line in input().lines() {
        let values: Vec<&str> = line.split('\t').collect();
        let text = |at: usize| if values[at] == "NA" { "null".to_owned() } else { format!("\"{}\"", values[at]) };
        let number = |at: usize| if values[at] == "NA" { "null" } else { values[at] };
        json.push_str(&format!(
            "{{\"scheduled_at\":{},\"flight_id\":{},\"carrier\":{},\"flight\":{},\"tailnum\":{},\"origin\":{},\"dest\":{},\
             \"dep_delay\":{},\"arr_delay\":{},\"air_time\":{},\"distance\":{}}}\n",
            text(0), text(1), text(2), number(3), text(4), text(5), text(6), number(7), number(8), number(9), number(10)
        ));
    }
    let files = format!("{}/**/*.avro", origin.out().join("flight").display());
    for kind in ["json", "avro"] {
        let stage =
            format!("kind = \"{kind}\"\nfrom = [\"departures\"]\nworkers = 3\ntype_from = {{ const = \"flight\" }}\n");
        let tsv = "kind = \"tsv\"\nfrom = [\"departures\"]\nworkers = 3\ntype_from = { const = \"flight\" }\nnull = [\"NA\"]\n";
        let mut text = TOPOLOGY.replace(tsv, &stage).replace("SCHEMA", &schema.display().to_string());
        if kind == "avro" {
            // Its files are read in turns, not in order of time.
            let source = format!("paths = [\"{files}\"]\nframing = \"avro\"");
            text = text
                .replace("paths = [\"input.tsv\"]", &source)
                .replace("allowed_lateness = \"1h\"", "allowed_lateness = \"7d\"");
        }
        for fault in [Fault::PanicBefore, Fault::PanicAfter, Fault::Error] {
            for nth in [1, 7] {
                let place = Place::new();
                place.write("topology.toml", &text);
                place.write("input.tsv", &json);
                let status = run(&place, Some((kind, fault, Trigger::Call(nth))));
                let case = format!("{kind} {fault:?} at call {nth}");
                Published::below(&place.out()).assert_is(&expected, &case);
                let restarts = served_restarts(&status);
                assert_eq!(restarts["parse"], 1, "{case}: {restarts:?}");
                assert_eq!(restarts.values().sum::<u64>(), 1, "{case}: {restarts:?}");
            }
        }
    }
}

#[test]
fn an_event_that_a_stage_always_fails_on_is_found_and_dead_lettered_and_all_others_come_out() {
    let text = with_poison();
    for (kind, stage) in KINDS {
        for fault in [Fault::PanicAfter, Fault::Error] {
            let place = place(&text);
            // `hourly` and the sink behind `dedup` see the same events; only the kind in question fails.
            let status = run(&place, Some((kind, fault, Trigger::Bytes(b"POISON".to_vec()))));
            let found = status.stages.iter().find(|found| found.name == stage).expect("the stage");
            assert_eq!(found.tally.dead, 1, "{kind} {fault:?}: {:?}", found.tally);
            let letters = place.published("_dead_letters");
            let all: String = letters.iter().map(|letter| format!("{letter}\n")).collect();
            assert_eq!(all.matches("stage_failed").count(), 1, "{kind} {fault:?}: {all}");
            assert!(all.contains(&format!("\"{stage}\"")), "{kind} {fault:?}: {all}");
        }
    }
}

/// The records of the only ledger file: each a length, a checksum and JSON, behind eight bytes that name the format.
fn ledger(place: &Place) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(place.path("state")).expect("the state").map(|entry| entry.expect("an entry").path());
    let file = files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().expect("a ledger");
    let bytes = std::fs::read(file).expect("the ledger");
    let (mut rest, mut records) = (&bytes[8..], Vec::new());
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        records.push(serde_json::from_slice(&behind[..length]).expect("JSON"));
        rest = &behind[length..];
    }
    records
}

#[test]
fn no_cut_knows_an_event_time_beyond_its_positions_although_the_parser_runs_ahead() {
    let text = std::fs::read_to_string(root().join("topologies/flights/flights-sample.tsv")).expect("the sample");
    let place = place(&text);
    let slow = Fault::Delay(std::time::Duration::from_millis(5));
    run(&place, Some(("avro_files", slow, Trigger::Always)));
    let mut checked = 0;
    for record in ledger(&place) {
        let Some(next) = record["positions"]["departures"]["input.tsv"]["next"].as_u64().filter(|next| *next > 0)
        else {
            continue;
        };
        // The sample is in order of time.
        let last = text[..next as usize].lines().last().expect("a line").split('\t').next().expect("a time");
        let seen = record["progress"]["departures"]["input.tsv"]["at_ms"].as_i64().expect("an event time");
        assert_eq!(tidemill::core::format_time_ms(seen), last, "cut {}", record["cut"]);
        checked += 1;
    }
    assert!(checked >= 2, "{checked} cuts");
}

#[test]
fn what_no_worker_can_mend_takes_its_region_back_to_its_last_cut_and_the_process_stays() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("rescan =", "read_size = \"16KiB\"\nrescan ="));
    place.write("data/first", lines(0..20_000));
    let mut registry = tidemill::registry();
    let dedup = tidemill_actors::stage_kinds().into_iter().find(|kind| kind.spec().name == "dedup").expect("the kind");
    registry.add_stage(std::sync::Arc::new(Faulty::new(dedup, Fault::Miscount, Trigger::Call(20))));
    let main =
        |status: &Status| status.regions.iter().find(|region| region.name == "main").cloned().expect("it is there");
    let (_, status) = place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            until(handle, |status| main(status).restarts == 1 && main(status).fault.is_none()).await;
            place.write("data/second", lines(20_000..21_000));
            until(handle, |status| {
                status.stages.iter().any(|stage| stage.name == "files" && stage.tally.sent == 21_000)
            })
            .await;
            handle.stop();
        })
        .expect("it runs");
    assert_eq!(main(&status).restarts, 1);
    place.run_inside("plays.toml", &tidemill::registry(), place.config(true), async |_| {}).expect("it ends well");
    let files = python("audit_files.py", &[place.out().to_str().unwrap(), "--rows", "--expect-unique-field", "id"]);
    assert_exit(&files, 0);
    assert_eq!(
        String::from_utf8_lossy(&files.stdout).lines().filter(|line| line.starts_with("ROW play")).count(),
        21_000
    );
}
