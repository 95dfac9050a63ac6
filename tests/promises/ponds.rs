//! A sink that is down fills its pond, and only that.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tidemill_runtime::{Ended, Registry, RunError, Status};
use tidemill_testkit::{Fault, Faulty, Trigger, Valve};

use tidemill_harness::inside::until;
use tidemill_harness::{HOUR, Place, assert_each_once, lines};

const HOUR_LINES: u32 = 36_000;

/// The plays to files, and to a valve with these options.
fn with_valve(place: &Place, options: &str) -> (Valve, Registry) {
    let text = std::fs::read_to_string(place.plays("")).expect("the topology");
    let text = text.replace("allowed_lateness = \"30d\"", "allowed_lateness = \"1m\"");
    let text = text.replace("rescan =", "read_size = \"16KiB\"\nrescan =");
    place.write("plays.toml", format!("{text}\n[sinks.out]\nkind = \"valve\"\nfrom = [\"dedup\"]\n{options}\n"));
    let mut registry = tidemill::registry();
    let valve = Valve::default();
    registry.add_sink(valve.clone());
    (valve, registry)
}

/// Lines that a valve has taken, in the order of their first delivery; a repeat must be the same as the first.
fn taken(valve: &Valve) -> Vec<String> {
    let kept = valve.kept();
    let mut first: BTreeMap<u64, &Vec<Vec<u8>>> = BTreeMap::new();
    let mut rows = Vec::new();
    for (id, delivered) in &kept.deliveries {
        match first.get(&id.offset) {
            Some(known) => assert_eq!(*known, delivered, "another delivery under the name {id}"),
            None => {
                first.insert(id.offset, delivered);
                rows.extend(delivered.iter().map(|row| String::from_utf8(row.clone()).expect("UTF-8")));
            }
        }
    }
    rows
}

/// That these are the lines of the test's input with these numbers, in order.
#[track_caller]
fn assert_lines(rows: &[String], numbers: std::ops::Range<u32>) {
    assert_eq!(rows.len(), numbers.len());
    let wanted = lines(numbers);
    if let Some(at) = rows.iter().zip(wanted.lines()).position(|(row, wanted)| row != wanted) {
        panic!("row {at} is {:?}, not {:?}", rows[at], wanted.lines().nth(at));
    }
}

fn sink<'a>(status: &'a Status, name: &str) -> &'a tidemill_runtime::StageStatus {
    status.stages.iter().find(|stage| stage.name == name).expect("the sink")
}

fn segments(place: &Place) -> Vec<PathBuf> {
    let dir = place.path("state/logs/out.main");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir).expect("the pond").map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

fn pond_bytes(place: &Place) -> u64 {
    segments(place).iter().map(|path| path.metadata().expect("a segment").len()).sum()
}

#[test]
fn a_sink_that_is_down_holds_back_no_hour_of_the_others_and_gets_everything_once_when_it_is_back() {
    let place = Place::new();
    let (valve, registry) = with_valve(&place, "");
    valve.kept().is_closed = true;
    place.write("data/first", lines(0..5 * HOUR_LINES));
    let (ended, status) = place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            // The fifth hour is open: nothing says that it is over.
            let all = |status: &Status| sink(status, "files").tally.received == u64::from(5 * HOUR_LINES);
            until(handle, |status| all(status) && status.types[0].sealed_hours == 4).await;
            let status = handle.status();
            assert!(sink(&status, "out").waits_for.is_some(), "{status:#?}");
            assert_eq!(sink(&status, "out").tally.sent, 0);
            let cut = status.cut;
            place.write("data/second", lines(5 * HOUR_LINES..5 * HOUR_LINES + 10));
            until(handle, |status| status.cut > cut && status.types[0].sealed_hours == 4).await;
            valve.kept().is_closed = false;
            until(handle, |status| sink(status, "out").tally.sent == u64::from(5 * HOUR_LINES + 10)).await;
            handle.stop();
        })
        .expect("it runs");
    assert_eq!(ended, Ended::Stopped);
    assert_lines(&taken(&valve), 0..5 * HOUR_LINES + 10);
    let kept = valve.kept();
    let ids: BTreeSet<_> = kept.deliveries.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids.len(), kept.deliveries.len(), "nothing came twice");
    let sealed: Vec<i64> = kept.sealed.iter().map(|(_, start_ms, _)| (start_ms - HOUR) / 3_600_000).collect();
    assert_eq!(sealed, [0, 1, 2, 3], "it was told of the same hours as the files");
    for (hour, (_, _, before)) in (1u32..).zip(&kept.sealed) {
        let rows: usize = kept.deliveries[..*before].iter().map(|(_, rows)| rows.len()).sum();
        assert!(rows >= (hour * HOUR_LINES) as usize, "an hour was sealed before all of it came");
    }
    assert_eq!(status.ponds.iter().find(|pond| pond.node == "out").expect("the pond").unread_bytes, 0);
    assert_eq!(place.verified_rows(), u64::from(4 * HOUR_LINES));
}

#[test]
fn what_is_delivered_again_by_another_process_has_the_same_name_and_rows() {
    let place = Place::new();
    let (valve, registry) = with_valve(&place, "");
    place.write("data/first", lines(0..20_000));
    // It takes some, then is down: the stop finds it so, and there is no last cut of its region.
    valve.kept().closes_after = Some(7);
    let mut config = place.config(false);
    config.drain_ms = 50;
    let (ended, status) = place
        .run_inside("plays.toml", &registry, config, async |handle| {
            until(handle, |status| sink(status, "out").waits_for.is_some()).await;
            until(handle, |status| sink(status, "files").tally.received == 20_000).await;
            handle.stop();
        })
        .expect("a stop needs no sink that is down");
    assert_eq!(ended, Ended::Stopped);
    assert!(sink(&status, "out").tally.sent < 20_000);
    valve.kept().is_closed = false;
    let before = valve.kept().deliveries.len();
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    assert_lines(&taken(&valve), 0..20_000);
    let kept = valve.kept();
    let again = kept.deliveries[before..].iter().filter(|late| kept.deliveries[..before].contains(late)).count();
    println!("{before} deliveries before, {again} of them came again");
    assert!(again > 0, "nothing came again, so nothing was shown");
    assert_eq!(place.verified_rows(), 20_000);
}

#[test]
fn a_full_pond_makes_sources_wait_and_stays_within_its_bytes() {
    let place = Place::new();
    let (valve, registry) = with_valve(&place, "pond = { max_bytes = \"8MiB\" }");
    valve.kept().is_closed = true;
    place.write("data/first", lines(0..200_000));
    let (_, status) = place
        .run_inside("plays.toml", &registry, place.config(true), async |handle| {
            let full = |status: &Status| status.ponds.iter().any(|pond| pond.node == "out" && pond.is_full);
            until(handle, full).await;
            // Whatever is on its way comes to rest; the source goes no further.
            let position = |status: &Status| status.sources[0].partitions[0].position;
            let mut last = (position(&handle.status()), std::time::Instant::now());
            until(handle, |status| {
                if position(status) != last.0 {
                    last = (position(status), std::time::Instant::now());
                }
                last.1.elapsed() > std::time::Duration::from_millis(300)
            })
            .await;
            let bytes = pond_bytes(&place);
            assert!((4 << 20..8 << 20).contains(&bytes), "{bytes} bytes in the pond");
            assert!(sink(&handle.status(), "files").tally.received < 200_000, "the source has gone on");
            valve.kept().is_closed = false;
        })
        .expect("it ends");
    assert_lines(&taken(&valve), 0..200_000);
    assert_eq!(status.dead_letters.len(), 0, "{:?}", status.dead_letters);
    assert_eq!(place.verified_rows(), 200_000);
    // The last of it was delivered when the region before had made its last cut: the next one frees it.
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    let bytes = pond_bytes(&place);
    assert!(bytes <= 600_000, "{bytes} bytes were not removed although all was delivered");
}

#[test]
fn a_full_pond_that_is_to_makes_dead_letters_and_holds_back_nothing() {
    let place = Place::new();
    let (valve, registry) = with_valve(&place, "pond = { max_bytes = \"8MiB\", when_full = \"dead_letter\" }");
    valve.kept().is_closed = true;
    place.write("data/first", lines(0..200_000));
    let (_, status) = place
        .run_inside("plays.toml", &registry, place.config(true), async |handle| {
            until(handle, |status| sink(status, "files").tally.received == 200_000).await;
            let bytes = pond_bytes(&place);
            assert!(bytes <= 8 << 20, "{bytes} bytes in the pond");
            valve.kept().is_closed = false;
        })
        .expect("it ends");
    let delivered = taken(&valve);
    let letters = place.published("_dead_letters");
    assert!(letters.iter().all(|letter| letter["reason"] == "pond_full" && letter["stage"] == "out.main"));
    let payload = |letter: &serde_json::Value| letter["payload"].as_str().expect("hex").to_owned();
    let hex = |row: &String| row.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let all: BTreeSet<String> = delivered.iter().map(hex).chain(letters.iter().map(payload)).collect();
    assert_eq!((delivered.len() + letters.len(), all.len()), (200_000, 200_000), "each is at one of the two places");
    assert!(delivered.len() > 1_000 && letters.len() > 1_000, "{} delivered", delivered.len());
    assert_eq!(status.dead_letters[0].reason, "pond_full");
    assert_eq!(status.dead_letters[0].source, "lines");
}

#[test]
fn rows_that_a_sink_refuses_become_dead_letters_of_the_region_behind_the_pond() {
    let place = Place::new();
    let (valve, registry) = with_valve(&place, "");
    valve.kept().refuses = Some(b"id000123".to_vec());
    place.write("data/first", lines(0..1_000));
    place.write("data/second", "no play\n");
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    assert_eq!(taken(&valve).len(), 999);
    let mut letters = place.published("_dead_letters");
    letters.sort_by_key(|letter| letter["stage"].to_string());
    assert_eq!(letters.len(), 2);
    let [refused, malformed] = &letters[..] else { panic!("two letters") };
    assert_eq!((&refused["stage"], &refused["reason"]), (&"out".into(), &"refused".into()));
    assert_eq!(refused["source"], "lines", "it is told where the event came from, not the pond");
    let position = lines(0..123).len();
    assert_eq!(refused["position"], position);
    assert_eq!((&malformed["stage"], &malformed["source"]), (&"parse".into(), &"lines".into()));
    place.verified_rows();
}

/// The same files with a pond in front of them, in front of the stage before, and without any.
#[test]
fn hours_behind_a_pond_are_what_they_are_without_one() {
    let published = |pond_of: &str| {
        let place = Place::new();
        let text = std::fs::read_to_string(place.plays("")).expect("the topology");
        let text = text.replace("allowed_lateness = \"30d\"", "allowed_lateness = \"1m\"");
        let counts = "[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\nmeasures = { plays = \"count()\" }\n[sinks.counts_files]\nkind = \"avro_files\"\nfrom = [\"counts\"]\n";
        let text = format!("{text}\n{counts}");
        let header = format!("{pond_of}]\n");
        let text = text.replace(&header, &format!("{header}pond = {{ max_bytes = \"8MiB\" }}\n"));
        place.write("plays.toml", text);
        place.write("data/first", lines(0..3 * HOUR_LINES) + &lines(0..100));
        let config = place.config(true);
        let (_, status) = place.run_inside("plays.toml", &tidemill::registry(), config, async |_| {}).expect("it ends");
        assert_each_once(&place.published("play"), 0..3 * HOUR_LINES);
        let counts: Vec<u64> =
            place.published("counts").iter().map(|row| row["plays"].as_u64().expect("a count")).collect();
        assert_eq!(counts.iter().sum::<u64>(), u64::from(3 * HOUR_LINES));
        place.verified_rows();
        let ponds: Vec<String> = status.ponds.into_iter().map(|pond| pond.name).collect();
        (place.manifests(), ponds)
    };
    let (plain, ponds) = published("[nothing");
    assert_eq!(ponds, ["dead_letters.main"]);
    let (before_files, ponds) = published("[sinks.files");
    assert_eq!(ponds, ["files.main", "dead_letters.main", "dead_letters.files"]);
    let (before_dedup, ponds) = published("[stages.dedup");
    assert_eq!(ponds, ["dedup.main", "dead_letters.main", "dead_letters.dedup"]);
    assert_eq!(plain.len(), 6, "{plain:#?}");
    assert_eq!(before_files, plain);
    assert_eq!(before_dedup, plain);
}

#[test]
fn a_sink_that_is_added_later_gets_what_comes_from_then_on_and_no_hour_that_was_sealed_before() {
    let place = Place::new();
    let (_, registry) = with_valve(&place, "");
    let both = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    // Behind `dedup`, no late event would come to the sinks.
    let files = both.split("[sinks.out]").next().expect("the first part").replace("[\"dedup\"]", "[\"parse\"]");
    place.write("plays.toml", &files);
    place.write("data/1", lines(0..2 * HOUR_LINES));
    let stops = async |handle: &tidemill_runtime::Handle| {
        let all = |status: &Status| sink(status, "files").tally.received == u64::from(2 * HOUR_LINES);
        until(handle, |status| all(status) && status.types[0].sealed_hours == 1).await;
        handle.stop();
    };
    place.run_inside("plays.toml", &registry, place.config(false), stops).expect("it runs");
    // Now with files behind a pond, too: what comes for the first hour is late there as it is everywhere.
    let more = "[sinks.more]\nkind = \"avro_files\"\nfrom = [\"parse\"]\npond = {}\npath = \"more/{year}-{month}-{day}-{hour}\"\n";
    place.write("plays.toml", format!("{files}\n{more}"));
    place.write("data/2", format!("{}late0001\t{HOUR}\tw\n", lines(2 * HOUR_LINES..2 * HOUR_LINES + 50)));
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    let more = place.published("more");
    assert_each_once(&more, 2 * HOUR_LINES..2 * HOUR_LINES + 50);
    let letters = place.published("_dead_letters");
    let late: BTreeSet<_> = letters.iter().map(|letter| letter["stage"].as_str().expect("a stage")).collect();
    assert_eq!((letters.len(), late), (3, BTreeSet::from(["dedup", "files", "more"])));
    place.verified_rows();
}

/// Runs until the pond holds something that was not delivered, and stops.
fn with_undelivered(place: &Place) -> (Valve, Registry) {
    let (valve, registry) = with_valve(place, "pond = { max_bytes = \"8MiB\" }");
    valve.kept().closes_after = Some(3);
    place.write("data/first", lines(0..10_000));
    let mut config = place.config(false);
    config.drain_ms = 500;
    let stops = async |handle: &tidemill_runtime::Handle| {
        until(handle, |status| sink(status, "files").tally.received == 10_000).await;
        until(handle, |status| sink(status, "out").waits_for.is_some()).await;
        handle.stop();
    };
    place.run_inside("plays.toml", &registry, config, stops).expect("it stops");
    valve.kept().is_closed = false;
    (valve, registry)
}

#[test]
fn bytes_behind_the_cut_go_and_damage_before_it_is_told_with_file_and_byte() {
    let place = Place::new();
    let (valve, registry) = with_undelivered(&place);
    let last = segments(&place).pop().expect("a segment");
    let whole = std::fs::read(&last).expect("the segment");
    std::fs::write(&last, [&whole[..], b"a record that was begun"].concat()).expect("written");
    let middle = whole.len() as u64 - 10;
    let file = std::fs::OpenOptions::new().write(true).open(&last).expect("the segment");
    file.write_all_at(&[whole[middle as usize] ^ 1], middle).expect("written");
    let error = place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect_err("it is damaged");
    let text = error.to_string();
    assert!(text.contains("pond `out.main`") && text.contains("segment-"), "{text}");
    // With the byte as it was, everything is there.
    file.write_all_at(&[whole[middle as usize]], middle).expect("written");
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    assert_lines(&taken(&valve), 0..10_000);
}

#[test]
fn a_segment_that_is_shorter_than_its_cut_is_refused_before_anything_is_changed() {
    let place = Place::new();
    let (_, registry) = with_undelivered(&place);
    let last = segments(&place).pop().expect("a segment");
    let whole = std::fs::read(&last).expect("the segment");
    std::fs::write(&last, &whole[..whole.len() - 1]).expect("written");
    let refused = place.run_inside("plays.toml", &registry, place.config(true), async |_| {});
    assert!(matches!(refused, Err(RunError::Corrupt { .. })));
}

#[test]
fn a_region_that_has_lost_its_ledger_is_refused_instead_of_delivering_again() {
    let place = Place::new();
    let (valve, registry) = with_undelivered(&place);
    let before = valve.kept().deliveries.len();
    std::fs::remove_dir_all(place.path("state/regions/out")).expect("removed");
    let error = place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect_err("it is refused");
    assert!(error.to_string().contains("the ledger of region `out` is gone"), "{error}");
    assert_eq!(valve.kept().deliveries.len(), before);
}

#[test]
fn a_region_that_can_not_go_on_is_opened_again_and_the_others_notice_nothing() {
    let place = Place::new();
    let (valve, mut registry) = with_valve(&place, "");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("[sinks.files]\n", "[sinks.files]\npond = { max_bytes = \"64MiB\" }\n"));
    let files = tidemill_actors::stage_kinds().into_iter().find(|kind| kind.spec().name == "avro_files");
    // What a stage says of its records is wrong: nothing that its region has since the last cut can be trusted.
    let liar = Faulty::new(files.expect("the kind"), Fault::Miscount, Trigger::Call(9));
    registry.add_stage(std::sync::Arc::new(liar));
    place.write("data/first", lines(0..HOUR_LINES));
    let (_, status) = place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            let all = u64::from(HOUR_LINES);
            until(handle, |status| {
                ["files", "out"].iter().all(|name| sink(status, name).tally.sent == all)
                    && status.ponds.iter().all(|pond| pond.unread_bytes == 0)
            })
            .await;
            place.write("data/second", lines(HOUR_LINES..2 * HOUR_LINES));
            until(handle, |status| ["files", "out"].iter().all(|name| sink(status, name).tally.sent == 2 * all)).await;
            handle.stop();
        })
        .expect("the run goes on");
    assert_lines(&taken(&valve), 0..2 * HOUR_LINES);
    assert!(status.regions.iter().all(|region| region.fault.is_none()), "{:?}", status.regions);
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
    assert_each_once(&place.published("play"), 0..2 * HOUR_LINES);
    place.verified_rows();
}

#[test]
fn a_damaged_pond_parks_its_region_until_the_file_is_back() {
    let place = Place::new();
    let (valve, registry) = with_undelivered(&place);
    let last = segments(&place).pop().expect("a segment");
    let whole = std::fs::read(&last).expect("the segment");
    let middle = whole.len() - 10;
    let mut damaged = whole.clone();
    damaged[middle] ^= 1;
    std::fs::write(&last, damaged).expect("written");
    place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            let out = |status: &Status| status.regions.iter().find(|region| region.name == "out").cloned();
            until(handle, |status| out(status).is_some_and(|out| out.fault.is_some())).await;
            let fault = out(&handle.status()).and_then(|out| out.fault).expect("it is parked");
            assert!(fault.contains("segment-") && fault.contains("checksum"), "{fault}");
            // The others go on.
            place.write("data/second", lines(10_000..11_000));
            until(handle, |status| sink(status, "files").tally.received == 11_000).await;
            let file = std::fs::OpenOptions::new().write(true).open(&last).expect("the segment");
            file.write_all_at(&[whole[middle]], middle as u64).expect("written");
            until(handle, |status| taken(&valve).len() == 11_000 && out(status).is_some_and(|out| out.fault.is_none()))
                .await;
            handle.stop();
        })
        .expect("it runs");
    assert_lines(&taken(&valve), 0..11_000);
}
