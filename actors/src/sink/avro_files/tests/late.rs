//! Late events: revisions of their hours, or part of the next.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::{EventType, Finding, Late, LatePolicy, Reason, RevisionMode, SealReason, StageKind};

use super::{HOUR, PLAY, Rig, batch_of, input, limits, typed};
use crate::sink::AvroFiles;

fn play(policy: LatePolicy, within_ms: i64) -> Arc<EventType> {
    let made = EventType::new("play", PLAY, "at", &["id".to_owned()], None).unwrap();
    Arc::new(made.with_late(Late { policy, within_ms, delay_ms: 0, mode: RevisionMode::Append }))
}

fn rig(policy: LatePolicy, within_ms: i64) -> Rig {
    Rig::of(input(json!({}), &[play(policy, within_ms)], limits(HOUR)))
}

/// Writes an event of the rig's type.
fn write(rig: &mut Rig, id: &str, at_ms: i64) {
    let of = rig.input.types[0].clone();
    rig.write(batch_of(&of, &[(id.to_owned(), at_ms, None)]));
}

fn revise(rig: &mut Rig, horizons: &[(&str, i64)]) -> super::Cut {
    rig.revised = vec!["play".into()];
    rig.barrier(horizons)
}

fn counts(rig: &Rig, hour: &str) -> Vec<(u64, String)> {
    let is_manifest = |path: &&String| path.contains(hour) && path.ends_with("_manifest.json");
    let manifests = rig.disk.published.iter().filter(|(path, _)| is_manifest(path));
    let said = manifests.map(|(_, text)| serde_json::from_slice::<Value>(text).unwrap());
    said.map(|said| (said["count"].as_u64().unwrap(), said["mode"].as_str().unwrap().to_owned())).collect()
}

#[test]
fn late_events_become_revisions_numbered_by_hour_and_what_was_published_stays() {
    let mut rig = rig(LatePolicy::Revise, 2 * HOUR);
    write(&mut rig, "a", HOUR);
    rig.note("play", HOUR, 1);
    rig.barrier(&[("play", 2 * HOUR)]);
    let before = rig.disk.published.clone();
    write(&mut rig, "b", HOUR + 1);
    rig.note("play", HOUR, 2);
    // Horizons that move don't end a revision, and a restart goes on with it.
    let snapshot = rig.barrier(&[("play", 3 * HOUR)]);
    rig.restart(&snapshot);
    assert_eq!(counts(&rig, "hour=01"), [(1, "complete".to_owned())]);
    write(&mut rig, "c", HOUR + 2);
    let snapshot = revise(&mut rig, &[]);
    let first = rig.disk.manifest("hour=01/rev=1");
    assert_eq!((&first["count"], &first["mode"], &first["reason"]), (&json!(2), &json!("append"), &json!("late")));
    assert_eq!((&first["duplicates_dropped"], &first["late_within_allowed"]), (&json!(2), &json!(0)));
    rig.restart(&snapshot);
    write(&mut rig, "d", HOUR + 3);
    // An hour that had no events before.
    write(&mut rig, "e", 2 * HOUR);
    revise(&mut rig, &[("play", 3 * HOUR)]);
    assert_eq!(rig.disk.manifest("hour=01/rev=2")["count"], 1);
    assert_eq!(rig.disk.manifest("hour=02/rev=1")["count"], 1);
    let mut files = before.iter().filter(|(path, _)| !path.ends_with("latest.json"));
    assert!(files.all(|(path, bytes)| rig.disk.published[path] == *bytes));
    assert_eq!((rig.tally.taken_late, rig.tally.late), (4, 0));
    rig.verified();
}

#[test]
fn what_is_later_than_the_bound_is_refused_also_when_the_bound_is_widened_afterwards() {
    let mut rig = rig(LatePolicy::Revise, HOUR);
    write(&mut rig, "a", 0);
    rig.barrier(&[("play", HOUR)]);
    write(&mut rig, "b", 1);
    let snapshot = revise(&mut rig, &[("play", 2 * HOUR)]);
    assert_eq!(rig.disk.manifest("hour=00/rev=1")["count"], 1);
    write(&mut rig, "c", 2);
    assert_eq!((rig.dead.len(), rig.dead[0].reason), (1, Reason::Late));
    // Nobody knows any more which revisions the hour has.
    rig.input = input(json!({}), &[play(LatePolicy::Revise, 9 * HOUR)], limits(HOUR));
    rig.restart(&snapshot);
    write(&mut rig, "d", 3);
    assert_eq!((rig.dead.len(), rig.tally.late), (2, 2));
    write(&mut rig, "e", HOUR);
    revise(&mut rig, &[]);
    assert_eq!(rig.disk.manifest("hour=01/rev=1")["count"], 1);
}

#[test]
fn a_revision_is_published_although_its_hour_is_given_up_meanwhile_or_the_policy_is_another() {
    let mut rig = rig(LatePolicy::Revise, HOUR);
    write(&mut rig, "a", 0);
    rig.barrier(&[("play", HOUR)]);
    write(&mut rig, "b", 1);
    let snapshot = rig.barrier(&[("play", 5 * HOUR)]);
    rig.input = input(json!({}), &[play(LatePolicy::DeadLetter, 0)], limits(HOUR));
    rig.restart(&snapshot);
    write(&mut rig, "c", 2);
    assert_eq!(rig.tally.late, 1);
    revise(&mut rig, &[]);
    assert_eq!(rig.disk.manifest("hour=00/rev=1")["count"], 1);
}

#[test]
fn an_hour_that_was_sealed_before_there_were_revisions_has_none() {
    let mut rig = rig(LatePolicy::DeadLetter, 0);
    write(&mut rig, "a", 0);
    let snapshot = rig.barrier(&[("play", HOUR)]);
    rig.input = input(json!({}), &[play(LatePolicy::Revise, 9 * HOUR)], limits(HOUR));
    rig.restart(&snapshot);
    write(&mut rig, "b", 1);
    assert_eq!((rig.tally.late, rig.tally.sent), (1, 1));
}

#[test]
fn late_events_in_the_next_hour_say_which_hour_is_their_own() {
    let mut rig = rig(LatePolicy::NextHour, 9 * HOUR);
    write(&mut rig, "a", HOUR);
    rig.barrier(&[("play", 2 * HOUR)]);
    write(&mut rig, "b", HOUR + 1);
    write(&mut rig, "c", 2 * HOUR);
    rig.barrier(&[("play", 3 * HOUR)]);
    let next = rig.disk.manifest("hour=02/rev=0");
    assert_eq!((&next["count"], &next["late_of_earlier_hours"]), (&json!(2), &json!(1)));
    assert_eq!((rig.tally.taken_late, rig.tally.late), (1, 0));
    let part = rig.disk.published.iter().find(|(path, _)| path.contains("hour=02/rev=0/part")).unwrap().1;
    let rows: Vec<Value> = apache_avro::Reader::new(&part[..])
        .unwrap()
        .map(|row| Value::try_from(row.unwrap()).unwrap())
        .map(|row: Value| json!([row["id"], row["true_hour"]]))
        .collect();
    assert_eq!(rows, [json!(["b", HOUR]), json!(["c", null])]);
    rig.verified();
}

#[test]
fn a_type_with_a_field_of_the_name_of_the_added_one_is_refused() {
    let schema = PLAY.replace("\"country\"", "\"true_hour\"");
    let made = EventType::new("play", &schema, "at", &[], None).unwrap().with_late(play(LatePolicy::NextHour, 0).late);
    let findings: Vec<Finding> = AvroFiles.plan(&input(json!({}), &[Arc::new(made)], limits(HOUR))).unwrap_err();
    assert!(findings[0].message.contains("`true_hour`"), "{findings:?}");
    assert_eq!(AvroFiles.plan(&input(json!({}), &[typed("play", &schema, &[])], limits(HOUR))).map(|_| ()), Ok(()));
}

#[test]
fn hours_that_were_sealed_before_the_pond_of_the_sink_was_there_have_no_revisions() {
    let mut rig = rig(LatePolicy::Revise, 9 * HOUR);
    rig.barrier_for(&[("play", 2 * HOUR)], SealReason::Before);
    write(&mut rig, "a", HOUR);
    assert_eq!((rig.tally.late, rig.tally.sent), (1, 0));
    write(&mut rig, "b", 2 * HOUR);
    rig.barrier(&[("play", 3 * HOUR)]);
    write(&mut rig, "c", 2 * HOUR);
    assert_eq!((rig.tally.late, rig.tally.taken_late), (1, 1));
}
