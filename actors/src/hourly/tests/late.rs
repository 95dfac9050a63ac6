//! Rows of late events, and of types whose hours are sealed later than those of the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use serde_json::json;
use tidemill_core::{
    Batch, Effects, EventType, Horizon, Late, LatePolicy, SealReason, Seals, Stage, StageInput, StageKind,
};

use super::{Row, events, kind, of};
use crate::dedup::support::{HOUR, Logs, build_within, input, limits, process, revised};

/// With nothing in memory from cut to cut.
fn build(
    kind: &dyn StageKind,
    input: &StageInput,
    snapshot: Option<&[u8]>,
    logs: &Logs,
) -> Result<Box<dyn Stage>, String> {
    build_within(kind, input, snapshot, logs, 0)
}

/// A stage that counts events of two types, the first of which takes late events, and sums.
fn revising(rows: &str) -> (StageInput, Arc<EventType>, Arc<EventType>) {
    let (a, b) = (revised(&of("a"), 4 * HOUR), of("b"));
    let options = json!({ "measures": { "events": "count()", "total": "sum(n)" }, "late_rows": rows });
    (input("counts", options, &[a.clone(), b.clone()], limits()), a, b)
}

/// Hour, type, count and sum of each row.
fn totals(effects: &Effects) -> Vec<(i64, String, i64, i64)> {
    let rows = |batch: &Batch| {
        let records = batch.records.clone();
        let long = move |column: usize, row: usize| records.column(column).as_primitive::<Int64Type>().value(row);
        let hours = batch.records.column(0).as_primitive::<TimestampMillisecondType>().clone();
        let types = batch.records.column(1).as_string_view().clone();
        let row = move |row| (hours.value(row) / HOUR, types.value(row).to_owned(), long(2, row), long(3, row));
        (0..batch.records.num_rows()).map(row).collect::<Vec<_>>()
    };
    effects.batches.iter().flat_map(rows).collect()
}

/// A barrier at which the rows' hours, and those of both types, that end at or before this are sealed; and revisions
/// end, if asked for.
fn barrier(stage: &mut dyn Stage, before_ms: i64, revises: bool) -> (Effects, Vec<u8>) {
    barrier_of(stage, &["a", "b", "counts"].map(|name| (name, before_ms)), None, revises)
}

/// The same with horizons by type; the rows are given up before `given_up_ms` where it is said.
fn barrier_of(
    stage: &mut dyn Stage,
    of: &[(&str, i64)],
    given_up_ms: Option<i64>,
    revises: bool,
) -> (Effects, Vec<u8>) {
    let horizon = |(name, before_ms): &(&str, i64)| {
        let given_up_ms = given_up_ms.filter(|_| *name == "counts");
        Horizon { given_up_ms, ..Horizon::new((*name).into(), *before_ms, SealReason::Watermark) }
    };
    let revised = if revises { vec!["a".into(), "counts".into()] } else { Vec::new() };
    let mut effects = Effects::default();
    let seals = Seals { horizons: of.iter().map(horizon).collect(), revised, ..tidemill_testkit::seals() };
    stage.seal(&seals, &mut effects).unwrap();
    let snapshot = stage.snapshot(&mut effects).unwrap();
    (effects, snapshot)
}

fn n(at_ms: i64, n: i32) -> Row {
    (at_ms, None, n, None, None)
}

#[test]
fn late_events_restate_the_rows_of_all_types_of_their_hour_or_add_to_them() {
    for (rows, wanted) in [
        ("restated", vec![(0, "a".to_owned(), 3, 7), (0, "b".to_owned(), 1, 10)]),
        ("delta", vec![(0, "a".to_owned(), 1, 4)]),
    ] {
        let (input, a, b) = revising(rows);
        let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
        process(&mut *stage, events(&a, &[n(0, 1), n(1, 2)]));
        process(&mut *stage, events(&b, &[n(2, 10)]));
        let (effects, snapshot) = barrier(&mut *stage, HOUR, false);
        assert_eq!(totals(&effects), [(0, "a".to_owned(), 2, 3), (0, "b".to_owned(), 1, 10)]);
        let mut stage = build(&*kind(), &input, Some(&snapshot), &Logs::default()).unwrap();
        let late = process(&mut *stage, events(&a, &[n(3, 4)]));
        assert_eq!((late.tally.absorbed, late.tally.taken_late), (1, 1));
        // What type b says of its own late events holds.
        assert_eq!(process(&mut *stage, events(&b, &[n(3, 4)])).tally.late, 1);
        let (effects, _) = barrier(&mut *stage, 2 * HOUR, false);
        assert_eq!(totals(&effects), [], "revisions wait for their end");
        let (effects, _) = barrier(&mut *stage, 2 * HOUR, true);
        assert_eq!(totals(&effects), wanted, "{rows}");
        let (effects, _) = barrier(&mut *stage, 2 * HOUR, true);
        assert_eq!(totals(&effects), [], "once");
    }
}

#[test]
fn rows_of_late_events_leave_before_their_hour_is_given_up_and_then_no_more_are_taken() {
    let (input, a, _) = revising("restated");
    let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    barrier(&mut *stage, HOUR, false);
    process(&mut *stage, events(&a, &[n(1, 1)]));
    let (effects, _) = barrier(&mut *stage, 5 * HOUR, false);
    assert_eq!(totals(&effects), [(0, "a".to_owned(), 2, 2)]);
    assert_eq!(process(&mut *stage, events(&a, &[n(2, 1)])).tally.late, 1);
    assert_eq!(stage.open_hours(), BTreeMap::new());
}

#[test]
fn a_change_of_what_late_events_do_holds_for_hours_sealed_later_and_not_while_some_wait() {
    let (restated, a, _) = revising("restated");
    let (delta, ..) = revising("delta");
    let mut stage = build(&*kind(), &restated, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    let (_, sealed) = barrier(&mut *stage, HOUR, false);
    process(&mut *stage, events(&a, &[n(1, 1)]));
    let (_, waiting) = barrier(&mut *stage, HOUR, false);
    let refused = build(&*kind(), &delta, Some(&waiting), &Logs::default()).err().unwrap();
    assert!(refused.contains("late_delay"), "{refused}");
    let mut stage = build(&*kind(), &delta, Some(&sealed), &Logs::default()).unwrap();
    assert_eq!(process(&mut *stage, events(&a, &[n(1, 1)])).tally.late, 1);
    process(&mut *stage, events(&a, &[n(HOUR, 1)]));
    barrier(&mut *stage, 2 * HOUR, false);
    assert_eq!(process(&mut *stage, events(&a, &[n(HOUR, 1)])).tally.taken_late, 1);
}

#[test]
fn what_cannot_be_added_is_refused_for_rows_that_are() {
    let options =
        json!({ "measures": { "users": "approx_distinct(ms)", "m": "mean(n)", "e": "count()" }, "late_rows": "delta" });
    let findings = kind().plan(&input("counts", options.clone(), &[revised(&of("a"), 1)], limits())).unwrap_err();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(kind().plan(&input("counts", options, &[of("a")], limits())).is_ok());
}

#[test]
fn a_stage_says_that_late_rows_wait_and_rows_that_waited_for_others_leave_when_revisions_are_taken_away() {
    let (input, a, _) = revising("restated");
    let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    assert_eq!(barrier(&mut *stage, HOUR, false).0.revising, Vec::<Arc<str>>::new());
    process(&mut *stage, events(&a, &[n(1, 1)]));
    assert_eq!(barrier(&mut *stage, HOUR, false).0.revising, [Arc::from("counts")]);
    assert_eq!(barrier(&mut *stage, HOUR, true).0.revising, Vec::<Arc<str>>::new());
}

/// Two types with strict hours, and the stage that counts both.
fn strict() -> (StageInput, Arc<EventType>, Arc<EventType>) {
    let types = [of("a"), of("b")];
    let options = json!({ "measures": { "events": "count()", "total": "sum(n)" } });
    let input = input("counts", options, &types, limits());
    let [a, b] = types;
    (input, a, b)
}

/// A barrier of strict types, and a restart behind it.
fn horizons(stage: &mut Box<dyn Stage>, input: &StageInput, of: &[(&str, i64)], given_up_ms: i64) -> Effects {
    let (effects, snapshot) = barrier_of(&mut **stage, of, Some(given_up_ms), false);
    *stage = build(&*kind(), input, Some(&snapshot), &Logs::default()).unwrap();
    effects
}

#[test]
fn a_type_that_is_quiet_holds_no_rows_of_others_and_its_own_come_later_as_a_revision_of_all_of_them() {
    let (input, a, b) = strict();
    let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1), n(HOUR, 1)]));
    let rows = horizons(&mut stage, &input, &[("a", 2 * HOUR), ("counts", 2 * HOUR)], i64::MIN);
    assert_eq!(totals(&rows), [(0, "a".to_owned(), 1, 1), (1, "a".to_owned(), 1, 1)]);
    assert_eq!(rows.revising, Vec::<Arc<str>>::new());
    // Its hours are not sealed: it is not late.
    let taken = process(&mut *stage, events(&b, &[n(5, 1), n(6, 1), n(HOUR, 1)])).tally;
    assert_eq!((taken.absorbed, taken.late), (3, 0));
    let rows = horizons(&mut stage, &input, &[("counts", 3 * HOUR)], i64::MIN);
    assert_eq!((totals(&rows), rows.revising), (vec![], vec![]), "they wait for the others of their hour");
    process(&mut *stage, events(&b, &[n(7, 1)]));
    let rows = horizons(&mut stage, &input, &[("b", HOUR)], i64::MIN);
    assert_eq!((totals(&rows), rows.revising), (vec![], vec!["counts".into()]), "the revision may have more hours yet");
    let (rows, _) = barrier_of(&mut *stage, &[], None, true);
    assert_eq!(totals(&rows), [(0, "b".to_owned(), 3, 3)]);
    // What is given up at the barrier leaves in front of it.
    let rows = horizons(&mut stage, &input, &[("b", 2 * HOUR), ("counts", 4 * HOUR)], 2 * HOUR);
    assert_eq!((totals(&rows), rows.revising), (vec![(1, "b".to_owned(), 1, 1)], vec!["counts".into()]));
    let late = process(&mut *stage, events(&b, &[n(HOUR, 1)])).tally;
    assert_eq!((late.absorbed, late.late), (0, 1), "and then it is late by its own horizon");
}

#[test]
fn rows_restated_have_nothing_of_a_type_whose_hour_is_not_sealed() {
    let (input, a, _) = revising("restated");
    let b = of("b");
    let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    horizons(&mut stage, &input, &[("a", HOUR), ("counts", HOUR)], i64::MIN);
    process(&mut *stage, events(&b, &[n(0, 1)]));
    process(&mut *stage, events(&a, &[n(0, 1)]));
    let (rows, _) = barrier_of(&mut *stage, &[], None, true);
    assert_eq!(totals(&rows), [(0, "a".to_owned(), 2, 2)]);
    let (rows, _) = barrier_of(&mut *stage, &[("b", HOUR)], None, true);
    assert_eq!(totals(&rows), [(0, "a".to_owned(), 2, 2), (0, "b".to_owned(), 1, 1)], "restated once more, with it");
}

#[test]
fn late_events_of_one_type_may_be_revisions_and_of_another_count_in_its_next_hour() {
    let next = Late { policy: LatePolicy::NextHour, ..revised(&of("b"), 1).late };
    let schema = of("b").schema_json.clone();
    let next = Arc::new(EventType::new("b", &schema, "at", &[], None).unwrap().with_late(next));
    let next = Arc::new(EventType { arrow: of("b").arrow.clone(), ..Arc::into_inner(next).unwrap() });
    let options = json!({ "measures": { "events": "count()", "total": "sum(n)" } });
    let a = revised(&of("a"), 9 * HOUR);
    let input = input("counts", options, &[a.clone(), next.clone()], limits());
    let mut stage = build(&*kind(), &input, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    barrier_of(&mut *stage, &[("a", HOUR), ("b", HOUR), ("counts", HOUR)], None, false);
    process(&mut *stage, events(&a, &[n(0, 1)]));
    process(&mut *stage, events(&next, &[n(0, 1)]));
    let (rows, _) = barrier_of(&mut *stage, &[], None, true);
    assert_eq!(totals(&rows), [(0, "a".to_owned(), 2, 2)]);
    let (rows, _) = barrier_of(&mut *stage, &[("b", 2 * HOUR), ("counts", 2 * HOUR)], None, false);
    assert_eq!(totals(&rows), [(1, "b".to_owned(), 1, 1)]);
}

#[test]
fn how_late_rows_are_published_is_not_changed_while_some_wait_for_the_hour_of_their_type() {
    let (strict, a, b) = strict();
    let (restated, ..) = revising("restated");
    let mut stage = build(&*kind(), &strict, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&a, &[n(0, 1)]));
    let (_, sealed) = barrier_of(&mut *stage, &[("a", HOUR), ("counts", HOUR)], Some(i64::MIN), false);
    process(&mut *stage, events(&b, &[n(0, 1)]));
    let (_, waiting) = barrier_of(&mut *stage, &[], None, false);
    let refused = build(&*kind(), &restated, Some(&waiting), &Logs::default()).err().unwrap();
    assert!(refused.contains("late_delay"), "{refused}");
    assert!(build(&*kind(), &restated, Some(&sealed), &Logs::default()).is_ok());
}
