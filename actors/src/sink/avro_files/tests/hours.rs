//! Which directory events go into, and which are refused.

use std::sync::Arc;

use arrow_array::TimestampMillisecondArray;
use serde_json::json;
use tidemill_core::{GAP_HOURS_MAX, Limits, Reason, StageKind, dead_letter_batch, dead_letter_type};

use super::{HOUR, Rig, batch_of, input, limits, play, plays};
use crate::sink::AvroFiles;

fn at(id: &str, time: i64, country: Option<&'static str>) -> (String, i64, Option<&'static str>) {
    (id.to_owned(), time, country)
}

#[test]
fn hours_become_directories_of_their_own_with_what_is_known_of_them() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 10, -HOUR));
    rig.write(plays(10, 30, HOUR - 1_000));
    rig.note("play", 0, 3);
    rig.note("play", 0, 4);
    rig.note("play", 90 * HOUR, 1);
    rig.barrier(&[("play", 0)]);
    let early = rig.disk.manifest("year=1969/month=12/day=31/hour=23/rev=0");
    assert_eq!((&early["count"], &early["duplicates_dropped"]), (&json!(10), &json!(0)));
    assert_eq!(
        early["hour"],
        json!({"start": "1969-12-31T23:00:00Z", "end": "1970-01-01T00:00:00Z", "width_ms": HOUR})
    );
    assert_eq!(early["event_time"]["max"], "1969-12-31T23:00:00.9Z");
    assert_eq!(early["positions"], json!({"s": {"p": 77}}));
    assert_eq!(early["reason"], "watermark");
    assert_eq!(early["owner"], "team-a");
    assert_eq!(rig.stage.open_hours(), [(Arc::from("play"), 2)].into());
    assert_eq!(rig.verified().hours, 3);
    let first = rig.disk.manifest("day=01/hour=00");
    assert_eq!((&first["count"], &first["duplicates_dropped"]), (&json!(10), &json!(7)));
}

#[test]
fn an_hour_without_events_between_others_has_a_manifest_that_says_so() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 10, 0));
    rig.note("play", 2 * HOUR, 5);
    let snapshot = rig.barrier(&[("play", HOUR)]);
    rig.restart(&snapshot);
    rig.write(plays(10, 10, 4 * HOUR));
    rig.barrier(&[("play", 5 * HOUR)]);
    let empty = rig.disk.manifest("day=01/hour=02");
    assert_eq!((&empty["count"], &empty["files"], &empty["duplicates_dropped"]), (&json!(0), &json!([]), &json!(5)));
    assert_eq!((&empty["event_time"]["min"], &empty["ids"]["sum"]), (&json!(null), &json!("0".repeat(32))));
    assert_eq!((rig.verified().hours, rig.verified().rows), (5, 20));
}

#[test]
fn a_leap_over_very_many_hours_and_a_path_with_fields_have_no_empty_hours() {
    let leap = |config, hours: i64| {
        let mut rig = Rig::of(input(config, &[play()], limits(HOUR)));
        rig.write(plays(0, 1, 0));
        rig.barrier(&[("play", HOUR)]);
        rig.write(plays(1, 2, (hours + 1) * HOUR));
        // The next one is full again, and what lies between two that are is a gap of its own.
        rig.write(plays(3, 1, (hours + 3) * HOUR));
        rig.barrier(&[("play", (hours + 4) * HOUR)]);
        rig.verified().hours
    };
    assert_eq!(leap(json!({}), 11), 15);
    assert_eq!(leap(json!({}), GAP_HOURS_MAX + 1), 4);
    assert_eq!(leap(json!({"path": "{country}/{year}{month}{day}{hour}"}), 11), 3);
}

#[test]
fn an_event_for_a_sealed_hour_is_a_dead_letter() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 10, 0));
    let snapshot = rig.barrier(&[("play", HOUR)]);
    rig.restart(&snapshot);
    rig.write(batch_of(&play(), &[at("a", HOUR - 1, None), at("b", HOUR, None), at("c", -5, None)]));
    assert_eq!((rig.tally.sent, rig.tally.late, rig.tally.dead), (11, 2, 0));
    assert!(rig.dead.len() == 2 && rig.dead.iter().all(|letter| letter.reason == Reason::Late));
    assert_eq!(rig.verified().rows, 11);
}

#[test]
fn a_dead_letter_is_never_late() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 1, 0));
    rig.barrier(&[("play", HOUR)]);
    rig.write(plays(0, 1, 0));
    let letters = dead_letter_batch("out", &rig.dead, 100).unwrap();
    let mut dead = Rig::of(input(json!({}), &[dead_letter_type()], limits(HOUR)));
    dead.write(letters.clone());
    dead.barrier(&[("dead_letter", 5 * HOUR)]);
    dead.write(letters);
    assert_eq!((dead.tally.sent, dead.dead.len()), (2, 0));
    assert_eq!(dead.stage.open_hours(), [(Arc::from("dead_letter"), 1)].into());
    dead.barrier(&[("dead_letter", 6 * HOUR)]);
    assert_eq!(dead.disk.manifest("dead_letter/year=1970/month=01/day=01/hour=05")["count"], 1);
    assert_eq!(dead.verified().rows, 2);
}

#[test]
fn dead_letters_of_any_hour_are_taken() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 10, 0));
    rig.barrier(&[("play", HOUR)]);
    rig.write(plays(0, 3, 0));
    let mut both = Rig::of(input(json!({}), &[play(), dead_letter_type()], limits(HOUR)));
    for hour in 0..3 {
        for letter in &mut rig.dead {
            letter.arrived_at_ms = hour * HOUR;
        }
        both.write(dead_letter_batch("out", &rig.dead, 100).unwrap());
    }
    both.write(plays(0, 1, 0));
    both.write(plays(1, 1, HOUR));
    assert_eq!((both.tally.sent, both.tally.dead), (11, 0));
    assert_eq!(both.stage.open_hours(), [(Arc::from("dead_letter"), 3), (Arc::from("play"), 2)].into());
    both.verified();
}

#[test]
fn a_path_that_is_left_out_is_as_fine_as_the_bucket() {
    for (bucket, path) in [
        (60_000, "play/year=1970/month=01/day=01/hour=02/minute=01/rev=0"),
        (HOUR, "play/year=1970/month=01/day=01/hour=02/rev=0"),
        (24 * HOUR, "play/year=1970/month=01/day=01/rev=0"),
    ] {
        let mut rig = Rig::of(input(json!({}), &[play()], limits(bucket)));
        rig.write(plays(0, 10, 2 * HOUR + 60_000));
        assert_eq!(rig.verified().hours, 1);
        let manifest = format!("{path}/_manifest.json");
        assert!(rig.disk.published.contains_key(&manifest), "{:?}", rig.disk.published.keys());
    }
}

#[test]
fn late_within_the_allowed_time_is_told_by_partition() {
    let mut rig = Rig::new(json!({}));
    let mut other = batch_of(&play(), &[at("x", 9 * HOUR, None)]);
    other.origin = Arc::new(tidemill_core::Origin { partition: "q".into(), ..(*other.origin).clone() });
    rig.write(other);
    rig.write(batch_of(&play(), &[at("a", 0, None), at("b", HOUR + 1, None), at("c", HOUR - 1, None)]));
    rig.write(batch_of(&play(), &[at("d", 1, None), at("e", HOUR, None)]));
    rig.verified();
    assert_eq!(rig.disk.manifest("hour=00")["late_within_allowed"], 2);
    assert_eq!(rig.disk.manifest("hour=01")["late_within_allowed"], 0);
    assert_eq!(rig.disk.manifest("hour=09")["late_within_allowed"], 0);
}

#[test]
fn values_in_paths_stay_below_the_root_and_apart() {
    let path = "{event_type}/{year}{month}{day}{hour}/country={country}/{id}";
    let mut rig = Rig::new(json!({"path": path}));
    let long = "/".repeat(200);
    let longer = format!("{long}/");
    let ids =
        ["../x", "/etc/passwd", "", ".", "..", "a\0b", "rev=0", "__null__", "%2E%2E", &long, &longer, "..\\x", ".git"];
    let mut rows: Vec<_> = ids.iter().map(|id| at(id, 5, Some("../../.."))).collect();
    rows.extend(ids.iter().map(|id| at(id, 6, None)));
    rows.extend(ids.iter().map(|id| at(id, 7, Some("__null__"))));
    rig.write(batch_of(&play(), &rows));
    // Again, so that the short way to a directory is taken as well.
    rig.write(batch_of(&play(), &rows));
    let report = rig.verified();
    assert_eq!((report.hours, report.directories, report.rows), (1, 39, 78));
}

#[test]
fn a_limit_on_paths_makes_dead_letters_and_there_is_none_on_hours() {
    let options = json!({"path": "{year}/{month}/{day}/{hour}/{id}"});
    let few = Limits { max_path_values: 2, max_open_hours: 1, ..limits(HOUR) };
    let mut rig = Rig::of(input(options, &[play()], few));
    let rows = [
        at("a", 0, None),
        at("b", 1, None),
        at("c", 2, None),
        at("a", 3, None),
        at("a", HOUR, None),
        at("a", 2 * HOUR, None),
        at("b", 4, None),
    ];
    rig.write(batch_of(&play(), &rows));
    assert_eq!((rig.tally.sent, rig.tally.dead), (6, 1));
    let reasons: Vec<Reason> = rig.dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::TooManyPathValues]);
    rig.verified();
}

#[test]
fn a_time_that_no_path_can_show_is_a_dead_letter() {
    let mut rig = Rig::new(json!({}));
    let mut batch = plays(0, 2, 0);
    let times = TimestampMillisecondArray::from_iter_values([253_402_300_800_000 + 86_400_000, -99_999_999_999_999]);
    let columns = vec![
        batch.records.column(0).clone(),
        Arc::new(times.with_timezone("UTC")) as arrow_array::ArrayRef,
        batch.records.column(2).clone(),
    ];
    batch.records = arrow_array::RecordBatch::try_new(batch.event_type.arrow.clone(), columns).unwrap();
    rig.write(batch);
    assert_eq!((rig.tally.sent, rig.tally.dead), (0, 2));
    assert!(rig.dead.iter().all(|letter| letter.reason == Reason::TimeOutOfRange));
}

#[test]
fn a_part_that_has_reached_its_size_is_followed_by_the_next() {
    let mut rig = Rig::new(json!({"roll_size": 20_000, "block_size": 8_192, "codec": "snappy"}));
    for n in 0..20 {
        rig.write(plays(n * 500, 500, 0));
    }
    let report = rig.verified();
    assert!(report.files > 5, "{}", report.files);
    let manifest = rig.disk.manifest("hour=00");
    let files = manifest["files"].as_array().unwrap();
    let (last, full) = files.split_last().unwrap();
    assert!(full.iter().all(|file| file["bytes"].as_u64().unwrap() >= 20_000));
    assert!(last["name"].as_str().unwrap().starts_with(&format!("part-{:05}-", full.len())));
}

#[test]
fn options_that_would_mix_hours_are_found() {
    let codes = |changes, bucket_ms, types: &[_]| -> Vec<&'static str> {
        let findings = AvroFiles.plan(&input(changes, types, limits(bucket_ms))).unwrap_err();
        findings.iter().map(|finding| finding.code).collect()
    };
    let other = super::typed("other", super::PLAY, &[]);
    let hour = "{event_type}/year={year}/month={month}/day={day}/hour={hour}";
    assert_eq!(codes(json!({"path": hour}), 60_000, &[play()]), ["path-not-unique"]);
    assert_eq!(codes(json!({"path": "{year}{month}{day}"}), HOUR, &[play()]), ["path-not-unique"]);
    assert_eq!(codes(json!({"path": "{year}{month}{day}{hour}"}), HOUR, &[play(), other]), ["path-not-unique"]);
    assert_eq!(codes(json!({"path": "{month}/{day}/{hour}"}), HOUR, &[play()]), ["path-not-unique"]);
    assert_eq!(codes(json!({"path": "{year}/{month}/{day}/{hour}/{planet}"}), HOUR, &[play()]), ["unknown-field"]);
    assert_eq!(codes(json!({"codec": "snappy", "level": 1}), HOUR, &[play()]), ["bad-level"]);
    assert_eq!(codes(json!({"codec": "deflate", "level": 10}), HOUR, &[play()]), ["bad-level"]);
    let day = input(json!({"path": "{year}{month}{day}"}), &[play()], limits(24 * HOUR));
    assert!(AvroFiles.plan(&day).is_ok());
}
