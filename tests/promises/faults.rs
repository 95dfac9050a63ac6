//! A stage that fails: that worker is replaced, the others go on, and what comes out is the same.

use tidemill_harness::inside::until;
use tidemill_harness::sample::{KINDS, place, run, with_poison};
use tidemill_harness::{Place, assert_exit, lines, python, root};
use tidemill_runtime::Status;
use tidemill_testkit::{Fault, Faulty, Trigger};

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
    let file = files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ledger-")))
        .max()
        .expect("a ledger");
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
        let Some(reached) = record["progress"]["departures"].get("input.tsv") else { continue };
        let newest = reached.get("beyond").unwrap_or(&reached["newest"]);
        let seen = newest["at_ms"].as_i64().expect("an event time");
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
