//! Every fault in every kind of stage: that worker is replaced, the others go on, and what comes out is the same.

use tidemill_harness::sample::{
    KINDS, Published, TOPOLOGY, input, place, run, run_watched, served_restarts, with_poison,
};
use tidemill_harness::{Place, root};
use tidemill_runtime::Status;
use tidemill_testkit::{Fault, Trigger};

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
