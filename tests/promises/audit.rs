//! The audit: what every stage counts agrees, stands in manifests, and a fault that loses or repeats an event is named.

use std::sync::Arc;

use serde_json::Value;
use tidemill_runtime::{Registry, RunConfig, RunError};
use tidemill_testkit::{Fault, Faulty, Trigger};

use tidemill_harness::inside::until;
use tidemill_harness::{HOUR, Place, assert_each_once, assert_exit, finish, lines, manifests, python, wait_for};

/// All kinds, one of them with a fault.
fn with_fault(name: &str, fault: Fault, trigger: Trigger) -> Registry {
    let mut registry: Registry = tidemill::registry();
    let kind = tidemill_actors::stage_kinds().into_iter().find(|kind| kind.spec().name == name).expect("a kind");
    registry.add_stage(Arc::new(Faulty::new(kind, fault, trigger)));
    registry
}

#[test]
fn what_each_stage_counted_stands_in_the_manifest_and_is_what_the_files_hold() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let more = "\n[sinks.again]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\npond = {}\npath = \"again/who={who}/{year}-{month}-{day}T{hour}\"\n";
    place.write("plays.toml", text + more);
    // Two hours; every fifth line of the first ones twice, and one that can't be parsed.
    let line = |number: i64| format!("id{number:06}\t{}\tw{}\n", HOUR + number * 100, number % 7);
    let input: String = (0..40_000).chain((0..2_000).step_by(5)).map(line).collect();
    place.write("data/first", format!("{input}broken\tno time\t\n"));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let all = manifests(&place.out(), "play");
    assert_eq!(all.len(), 2, "two hours");
    let first =
        all.iter().find(|manifest| manifest["hour"]["start"] == tidemill_core::format_time_ms(HOUR)).expect("it");
    let counted = |stage: &str| (first["counted"][stage]["events"].as_u64(), first["counted"][stage]["ids"].clone());
    let rows = first["count"].as_u64().expect("a count");
    assert_eq!(counted("parse").0, Some(rows + 400), "{first:#}");
    assert_eq!(counted("dedup"), (Some(rows), first["ids"]["sum"].clone()));
    assert_eq!(counted("files"), (Some(rows), first["ids"]["sum"].clone()));
    let again = manifests(&place.out(), "again");
    assert_eq!(again.len(), 14, "a directory for each value and hour");
    for manifest in &again {
        assert_eq!(manifest["counted"]["again"], manifest["counted"]["dedup"], "{manifest:#}");
        let of_hour = again.iter().filter(|other| other["hour"] == manifest["hour"]);
        let rows: u64 = of_hour.map(|other| other["count"].as_u64().expect("a count")).sum();
        assert_eq!(manifest["counted"]["again"]["events"], rows);
    }
    // The ids that they are compared with are those of the rows, as somebody else reads them.
    assert_exit(&python("audit_files.py", &[place.out().to_str().expect("UTF-8")]), 0);
    let audit = place.tidemill(&["audit", "--type", "play", "--since", "2023-11-14T00:00:00Z"]);
    assert_exit(&audit, 0);
    let said = String::from_utf8(audit.stdout).expect("UTF-8");
    assert!(said.contains("4 revisions of hours, 4 of them hold exactly what came to their sink"), "{said}");
    assert!(said.contains(&format!("parse {} > dedup {}", thousands(rows + 400), thousands(rows))), "{said}");
}

#[test]
fn what_stages_counted_can_be_had_as_events_like_any_other() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let limits = "allowed_lateness = \"0ms\"\nlate = \"revise\"\nlate_delay = \"100ms\"\nlate_within = \"2d\"";
    let more = "\n[stages.counted]\nkind = \"audit\"\nfrom = [\"dedup\"]\n[sinks.counted_files]\nkind = \"avro_files\"\nfrom = [\"counted\"]\n";
    place.write("plays.toml", text.replace("allowed_lateness = \"30d\"", limits) + more);
    place.write("data/first", lines(0..40_000) + &lines(0..100));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    wait_for("the hour", || (manifests(&place.out(), "play").len() == 1).then_some(()));
    place.append("data/first", &format!("late\t{HOUR}\t\n"));
    wait_for("the revision", || (manifests(&place.out(), "play").len() == 2).then_some(()));
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    let manifests = manifests(&place.out(), "play");
    let rows = place.published("counted");
    let start = tidemill_core::format_time_ms(HOUR);
    for stage in ["parse", "dedup"] {
        for (revision, is_late) in [(0, false), (1, true)] {
            let manifest =
                manifests.iter().find(|said| said["revision"] == revision && said["hour"]["start"] == *start);
            let said = &manifest.expect("the revision")["counted"][stage];
            let is_it = |row: &&Value| row["hour"] == *start && row["stage"] == stage && row["is_late"] == is_late;
            let row = rows.iter().find(is_it).unwrap_or_else(|| panic!("{stage} {is_late}: {rows:#?}"));
            assert_eq!((&row["events"], &row["ids"]), (&said["events"], &said["ids"]), "{row}");
        }
    }
    // They are no events that could be made once more.
    let told = place.tidemill(&["reprocess", "plays.toml", "--hour", &start]);
    assert_exit(&told, 0);
    assert!(tidemill_harness::printed(&told).contains("type `counted` tells what was counted then"));
    // The second hour, too, and nothing else.
    assert_eq!(rows.len(), 6, "{rows:#?}");
}

fn thousands(number: u64) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

#[test]
fn one_event_in_a_million_lost_repeated_or_exchanged_in_a_sink_is_named_by_type_and_hour_and_not_published() {
    for (fault, said) in
        [(Fault::Lose, "(1 lost)"), (Fault::Repeat, "(1 too many)"), (Fault::Exchange, "but not the same ones")]
    {
        let place = Place::new();
        place.plays("");
        // Some minutes a batch, so that all of one lies in an hour.
        let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
        place.write("plays.toml", text.replace("rescan = \"50ms\"", "rescan = \"50ms\"\nread_size = \"64KiB\""));
        place.write("data/first", lines(0..1_000_000));
        let registry = with_fault("avro_files", fault, Trigger::Bytes(b"id543210".to_vec()));
        let ended = place.run_inside(
            "plays.toml",
            &registry,
            RunConfig { lane_bytes: 1 << 20, replay_bytes: 8 << 20, ..place.config(true) },
            async |_| {},
        );
        let error = ended.expect_err("it does not end well");
        assert!(matches!(error, RunError::Audit { .. }), "{error}");
        let hour = tidemill_core::format_time_ms(HOUR + 54_321_000);
        let text = error.to_string();
        assert!(text.contains("written by `files`, type `play`, hour ") && text.contains(said), "{text}");
        assert!(text.contains(&hour[..13]), "{text}");
        assert_eq!(manifests(&place.out(), "play"), Vec::<Value>::new(), "{fault:?}");
    }
}

#[test]
fn events_that_a_stage_exchanges_repeats_or_ignores_on_their_way_are_named() {
    for (fault, said) in [
        (Fault::Repeat, "does not account for its records"),
        (Fault::Exchange, "1 expected, 2 found (1 too many)"),
        (Fault::Ignore, "records, and accounts for Tally { received: 0"),
    ] {
        let place = Place::new();
        place.plays("");
        place.write("data/first", lines(0..5_000));
        let registry = with_fault("dedup", fault, Trigger::Bytes(b"id002222".to_vec()));
        let error = place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect_err("a fault");
        assert!(error.to_string().contains(said), "{fault:?}: {error}");
    }
}

#[test]
fn a_fault_that_does_not_come_again_is_mended_by_going_back_and_the_operator_is_told() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..20_000));
    let registry = with_fault("avro_files", Fault::Exchange, Trigger::Once(b"id012345".to_vec()));
    let config = RunConfig { until_end: false, ..place.config(true) };
    let (_, status) = place
        .run_inside("plays.toml", &registry, config, async |handle| {
            let written = |status: &tidemill_runtime::Status| {
                status.stages.iter().any(|stage| stage.name == "files" && stage.tally.sent == 20_000)
            };
            until(handle, |status| {
                status.regions[0].restarts == 1 && status.regions[0].fault.is_none() && written(status)
            })
            .await;
            handle.stop();
        })
        .expect("it goes on");
    let [found] = &status.mismatches[..] else { panic!("{:?}", status.mismatches) };
    assert_eq!((found.event_type.as_str(), found.count), ("play", 1), "{found:?}");
    assert!(found.last.contains("written by `files`, type `play`, hour 20"), "{found:?}");
    let ended = place.run_inside("plays.toml", &tidemill::registry(), place.config(true), async |_| {});
    ended.expect("it ends well");
    assert_each_once(&place.published("play"), 0..20_000);
}
