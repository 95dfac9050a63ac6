//! `hourly` against a fold over rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, Float64Array, Int32Array, Int64Array, StringViewArray, TimestampMillisecondArray};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_core::{Batch, Effects, EventType, Horizon, Hour, Limits, SealReason, Seals, StageInput};

use super::kind;
use crate::dedup::support::{HOUR, Logs, batch, build, build_within, event_type, input, limits, process};

mod late;

const FIELDS: &str = r#"{"name":"country","type":["null","string"]},{"name":"n","type":"int"},
    {"name":"ms","type":["null","long"]},{"name":"score","type":["null","double"]}"#;

/// Time, country, n, ms, score.
type Row = (i64, Option<String>, i32, Option<i64>, Option<f64>);

fn of(name: &str) -> Arc<EventType> {
    event_type(name, FIELDS, &[])
}

fn events(of: &Arc<EventType>, rows: &[Row]) -> Batch {
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC");
    batch(
        of,
        vec![
            Arc::new(times),
            Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringViewArray>()),
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<Float64Array>()),
        ],
    )
}

fn planned(types: &[Arc<EventType>], limits: Limits) -> StageInput {
    let options = json!({
        "group_by": ["country", "n"],
        "measures": {
            "events": "count()", "total": "sum(ms)", "whole": "sum(n)", "score_sum": "sum(score)", "least": "min(ms)",
            "most": "max(score)", "last": "max(at)", "average": " mean( ms ) ", "different": "approx_distinct(ms)"
        }
    });
    input("by_country", options, types, limits)
}

/// A barrier that seals hours of several types.
fn sealed(types: &[&str], before_ms: i64) -> Seals {
    let horizon = |name: &&str| Horizon::new((*name).into(), before_ms, SealReason::Watermark);
    Seals { at_ms: 77, horizons: types.iter().map(horizon).collect(), ..tidemill_testkit::seals() }
}

/// What a row of the output says, the floats as they are shown.
fn shown(batch: &Batch) -> Vec<String> {
    let records = &batch.records;
    let long = |column: usize, row: usize| {
        let array = records.column(column).as_primitive::<Int64Type>();
        array.is_valid(row).then(|| array.value(row))
    };
    let double = |column: usize, row: usize| {
        let array = records.column(column).as_primitive::<Float64Type>();
        array.is_valid(row).then(|| array.value(row))
    };
    let country = records.column(2).as_string_view();
    (0..records.num_rows())
        .map(|row| {
            let line = (
                records.column(0).as_primitive::<TimestampMillisecondType>().value(row),
                records.column(1).as_string_view().value(row),
                country.is_valid(row).then(|| country.value(row)),
                records.column(3).as_primitive::<Int32Type>().value(row),
                (long(4, row), long(5, row), long(6, row), double(7, row), long(8, row), double(9, row)),
                records.column(10).as_primitive::<TimestampMillisecondType>().value(row),
                (double(11, row), long(12, row)),
            );
            format!("{line:?}")
        })
        .collect()
}

/// The rows of one hour by the definition, in the order of the groups.
fn folded(event_type: &str, start: i64, rows: &[Row]) -> Vec<String> {
    let mut groups: BTreeMap<(Option<&str>, i32), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        groups.entry((row.1.as_deref(), row.2)).or_default().push(row);
    }
    let line = |((country, n), rows): ((Option<&str>, i32), Vec<&Row>)| {
        let ms: Vec<i64> = rows.iter().filter_map(|row| row.3).collect();
        let scores: Vec<f64> = rows.iter().filter_map(|row| row.4).collect();
        let total: i128 = ms.iter().map(|ms| i128::from(*ms)).sum();
        let some = |value: i64| (!ms.is_empty()).then_some(value);
        let values = (
            Some(rows.len() as i64),
            some(total.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
            Some(i64::from(n) * rows.len() as i64),
            (!scores.is_empty()).then(|| scores.iter().fold(0.0, |sum, score| sum + score)),
            ms.iter().min().copied(),
            scores.iter().copied().max_by(f64::total_cmp),
        );
        let mean = (!ms.is_empty()).then(|| total as f64 / ms.len() as f64);
        // Few values are counted one by one.
        let different = Some(ms.iter().collect::<BTreeSet<_>>().len() as i64);
        let last = rows.iter().map(|row| row.0).max().unwrap();
        format!("{:?}", (start, event_type, country, n, values, last, (mean, different)))
    };
    groups.into_iter().map(line).collect()
}

#[test]
fn random_events_come_out_as_a_fold_says_across_restores() {
    for seed in 0..15 {
        // All in memory, nothing in memory, or the hours that took events last.
        let memory_bytes = [512 << 20, 0, 4_000][seed as usize % 3];
        let build = |snapshot: Option<&[u8]>, planned: &StageInput| {
            build_within(&*kind(), planned, snapshot, &Logs::default(), memory_bytes).unwrap()
        };
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut below = move |most: u64| (random.next_u64() % most) as i64;
        let types = [of("play"), of("skip")];
        let planned = planned(&types, limits());
        let mut stage = build(None, &planned);
        let mut open: BTreeMap<(usize, i64), Vec<Row>> = BTreeMap::new();
        let mut sealed_ms = i64::MIN;
        let (mut now, mut late, mut hours) = (-2 * HOUR, 0, 0);
        for _ in 0..120 {
            now += below(HOUR as u64 / 4);
            let at = below(2) as usize;
            let rows: Vec<Row> = (0..1 + below(60))
                .map(|_| {
                    let country = ["SE", "DE", "", "a long name of a country", "another long name", "twelve bytes"];
                    let country = country.get(below(7) as usize).map(|name| (*name).to_owned());
                    let ms = [Some(below(9)), None, Some(i64::MAX), Some(i64::MIN)];
                    let ms = ms[[0, 0, 0, 1, 2, 3][below(6) as usize]];
                    let score = [None, Some(0.5), Some(-3.25), Some(f64::INFINITY)][below(4) as usize];
                    (now - below(2 * HOUR as u64), country, below(3) as i32 - 1, ms, score)
                })
                .collect();
            let effects = process(&mut *stage, events(&types[at], &rows));
            let mut expected_late = 0;
            for row in rows {
                let hour = Hour::of(row.0, HOUR);
                if hour.end_ms() <= sealed_ms {
                    expected_late += 1;
                } else {
                    open.entry((at, hour.start_ms)).or_default().push(row);
                }
            }
            assert_eq!((effects.tally.late, effects.batches.len()), (expected_late, 0));
            late += expected_late;
            if below(3) == 0 {
                let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
                stage = build(Some(&snapshot), &planned);
                let mut effects = Effects::default();
                let again = stage.snapshot(&mut effects).unwrap();
                let is_moved = effects.pieces.iter().any(|(name, _)| name.starts_with("l/"));
                assert!(is_moved || again == snapshot, "a restore changes nothing");
            } else if below(3) == 0 {
                stage.snapshot(&mut Effects::default()).unwrap();
            }
            if below(3) == 0 {
                let before = now - below(3 * HOUR as u64);
                let mut effects = Effects::default();
                stage.seal(&sealed(&["play", "skip", &planned.name], before), &mut effects).unwrap();
                sealed_ms = sealed_ms.max(before);
                let closed = open.keys().filter(|(_, start)| start + HOUR <= sealed_ms);
                let mut closed: Vec<(usize, i64)> = closed.copied().collect();
                closed.sort_by_key(|(of, start)| (*start, *of));
                let rows = |key: (usize, i64)| folded(&types[key.0].name, key.1, &open.remove(&key).unwrap());
                let expected: Vec<String> = closed.into_iter().flat_map(rows).collect();
                hours += usize::from(!expected.is_empty());
                assert_eq!(effects.batches.iter().flat_map(shown).collect::<Vec<_>>(), expected);
            }
            let held: BTreeMap<Arc<str>, usize> = stage.open_hours();
            assert_eq!(held.values().sum::<usize>(), open.len());
        }
        assert!(late > 20 && hours > 5, "{late} late, {hours} with rows");
    }
}

#[test]
fn rows_name_the_position_behind_the_last_batch() {
    let play = of("play");
    let planned = planned(std::slice::from_ref(&play), limits());
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    process(&mut *stage, events(&play, &[(0, None, 0, None, None)]));
    let mut effects = Effects::default();
    stage.seal(&sealed(&["play", &planned.name], HOUR), &mut effects).unwrap();
    let batch = &effects.batches[0];
    assert_eq!((batch.origin.first, batch.origin.next, batch.arrived_at_ms), (100, 100, 77));
    assert_eq!(&*batch.event_type.name, "by_country");
    assert!(batch.event_type.id.is_empty(), "a group may be null");
}

#[test]
fn many_groups_leave_in_batches() {
    let play = of("play");
    let planned = planned(std::slice::from_ref(&play), limits());
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    let rows: Vec<Row> = (0..20_000).map(|n| (0, None, n, None, None)).collect();
    process(&mut *stage, events(&play, &rows));
    let mut effects = Effects::default();
    stage.seal(&sealed(&["play", &planned.name], HOUR), &mut effects).unwrap();
    assert_eq!(effects.batches.iter().map(Batch::len).collect::<Vec<_>>(), [8192, 8192, 3616]);
}

#[test]
fn no_number_of_hours_or_groups_refuses_an_event() {
    let play = of("play");
    let planned = planned(std::slice::from_ref(&play), Limits { max_groups: 3, max_open_hours: 2, ..limits() });
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    let row = |time: i64, n: i32| (time, Some("SE".to_owned()), n, None, None);
    for hour in 0..5 {
        let rows: Vec<Row> = (0..10).map(|n| row(hour * HOUR, n)).collect();
        assert_eq!(process(&mut *stage, events(&play, &rows)).tally.absorbed, 10);
    }
    let mut effects = Effects::default();
    stage.seal(&sealed(&["play", &planned.name], 5 * HOUR), &mut effects).unwrap();
    assert_eq!(effects.batches.iter().map(Batch::len).sum::<usize>(), 50);
}

#[test]
fn sketches_of_a_group_that_left_memory_tell_the_same() {
    let play = of("play");
    let options = json!({ "group_by": ["n"], "measures": { "users": "approx_distinct(ms)" } });
    let planned = input("users", options, std::slice::from_ref(&play), limits());
    // A list, a set, and registers of 6 bits, and what lies between.
    for distinct in [1, 7, 8, 9, 100, 191, 192, 193, 500, 5_000] {
        let estimates = [0, 512 << 20].map(|memory_bytes| {
            let mut stage = build_within(&*kind(), &planned, None, &Logs::default(), memory_bytes).unwrap();
            for part in 0..4 {
                let rows: Vec<Row> =
                    (0..distinct).filter(|n| n % 4 <= part).map(|n| (0, None, 1, Some(n), None)).collect();
                process(&mut *stage, events(&play, &rows));
                stage.snapshot(&mut Effects::default()).unwrap();
            }
            let mut effects = Effects::default();
            stage.seal(&sealed(&["play", &planned.name], HOUR), &mut effects).unwrap();
            effects.batches[0].records.column(3).as_primitive::<Int64Type>().value(0)
        });
        assert_eq!(estimates[0], estimates[1], "{distinct} values");
    }
}

#[test]
fn distinct_values_are_estimated_within_5_percent() {
    let play = of("play");
    let options =
        json!({ "group_by": [], "measures": { "users": "approx_distinct(ms)", "names": "approx_distinct(country)" } });
    let planned = input("users", options, std::slice::from_ref(&play), limits());
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    for part in 0..50 {
        let row = |n: i64| (0, Some(format!("the name of user {n}")), 0, Some(n % 40_000), None);
        let rows: Vec<Row> = (part * 2_000..(part + 1) * 2_000).map(row).collect();
        process(&mut *stage, events(&play, &rows));
        let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
        stage = build(&*kind(), &planned, Some(&snapshot), &Logs::default()).unwrap();
    }
    let mut effects = Effects::default();
    stage.seal(&sealed(&["play", &planned.name], HOUR), &mut effects).unwrap();
    let records = &effects.batches[0].records;
    for (column, expected) in [(2, 40_000.0), (3, 100_000.0)] {
        let found = records.column(column).as_primitive::<Int64Type>().value(0) as f64;
        assert!((found / expected - 1.0).abs() < 0.05, "{found} for {expected}");
    }
}

#[test]
fn every_scalar_kind_can_make_groups() {
    let fields = r#"{"name":"a","type":["null","boolean"]},{"name":"b","type":"float"},{"name":"c","type":"bytes"},
        {"name":"d","type":{"type":"enum","name":"D","symbols":["x","y"]}},
        {"name":"e","type":{"type":"fixed","name":"E","size":2}},
        {"name":"f","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"g","type":{"type":"string","logicalType":"uuid"}},
        {"name":"h","type":{"type":"int","logicalType":"date"}},
        {"name":"i","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"j","type":{"type":"fixed","name":"J","size":8,"logicalType":"decimal","precision":9,"scale":2}}"#;
    let of = event_type("all", fields, &[]);
    let groups = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let options = json!({ "group_by": groups, "measures": { "events": "count()" } });
    let planned = input("all-kinds", options, std::slice::from_ref(&of), limits());
    let outputs = kind().plan(&planned).unwrap();
    for name in groups {
        let (input, output) = (of.field(name).unwrap().1, outputs[0].field(name).unwrap().1);
        assert_eq!(input, output);
    }
    let uuid = "123e4567-e89b-12d3-a456-426614174000";
    let decimal = || arrow_array::Decimal128Array::from(vec![-5, -5]).with_precision_and_scale(9, 2).unwrap();
    let symbols = Arc::new(arrow_array::StringArray::from(vec!["x", "y"]));
    let times = || vec![7_i64, 7];
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(times()).with_timezone("UTC")),
        Arc::new(arrow_array::BooleanArray::from(vec![Some(true), Some(true)])),
        Arc::new(arrow_array::Float32Array::from(vec![0.0, -0.0])),
        Arc::new(arrow_array::BinaryViewArray::from_iter_values([b"long enough bytes", b"long enough bytes"])),
        Arc::new(arrow_array::DictionaryArray::<Int32Type>::new(Int32Array::from(vec![1, 1]), symbols)),
        Arc::new(arrow_array::FixedSizeBinaryArray::try_from_iter([[1, 2], [1, 2]].into_iter()).unwrap()),
        Arc::new(decimal()),
        Arc::new(StringViewArray::from(vec![uuid, uuid])),
        Arc::new(arrow_array::Date32Array::from(vec![-1, -1])),
        Arc::new(arrow_array::TimestampMicrosecondArray::from(times()).with_timezone("UTC")),
        Arc::new(decimal()),
    ];
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    let one = batch(&of, columns);
    process(&mut *stage, one.clone());
    let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
    let mut stage = build(&*kind(), &planned, Some(&snapshot), &Logs::default()).unwrap();
    let mut effects = Effects::default();
    stage.seal(&sealed(&["all", &planned.name], HOUR), &mut effects).unwrap();
    let row = &effects.batches[0].records;
    assert_eq!((row.num_rows(), row.column(12).as_primitive::<Int64Type>().value(0)), (1, 2));
    for column in 1..one.records.num_columns() {
        assert_eq!(&one.records.column(column).slice(0, 1), row.column(column + 1), "column {column}");
    }
}

fn codes(options: Value, types: &[Arc<EventType>]) -> Vec<(&'static str, String, String)> {
    let findings = kind().plan(&input("s", options, types, limits())).unwrap_err();
    let code = |finding: tidemill_core::Finding| {
        (finding.code, finding.item.unwrap_or_default(), finding.help.unwrap_or_default())
    };
    findings.into_iter().map(code).collect()
}

#[test]
fn options_that_do_not_fit_the_types_are_found_all_at_once() {
    let types =
        [of("play"), event_type("skip", r#"{"name":"country","type":"string"},{"name":"n","type":"long"}"#, &[])];
    let found = codes(
        json!({
            "group_by": ["contry", "country", "country", "hour"],
            "measures": { "a": "conut()", "b": "sum(n)", "c": "sum(country)", "d": "count(n)", "e": "min()",
            "1x": "count()",
                "f": "sum", "country": "count()" }
        }),
        &types,
    );
    let brief: Vec<(&str, &str)> = found.iter().map(|(code, item, _)| (*code, item.as_str())).collect();
    assert_eq!(
        brief,
        [
            ("unknown-field", "0"),
            ("unknown-field", "0"),
            ("taken-name", "2"),
            ("taken-name", "3"),
            ("unknown-function", "a"),
            ("mixed-kinds", "b"),
            ("type-mismatch", "c"),
            ("bad-measure", "d"),
            ("bad-measure", "e"),
            ("bad-name", "1x"),
            ("bad-measure", "f"),
            ("taken-name", "country"),
        ]
    );
    assert_eq!(found[0].2, "did you mean `country`?");
    assert_eq!(found[4].2, "did you mean `count`?");
    assert_eq!(codes(json!({ "group_by": [], "measures": {} }), &types)[0].0, "no-measures");
}

#[test]
fn the_id_is_hour_type_and_groups_when_none_may_be_null() {
    let options = json!({ "group_by": ["n"], "measures": { "events": "count()" } });
    let outputs = kind().plan(&input("counts", options, &[of("play")], limits())).unwrap();
    let id: Vec<&str> = outputs[0].id.iter().map(|at| outputs[0].fields[*at].name.as_str()).collect();
    assert_eq!(id, ["hour", "event_type", "n"]);
    assert_eq!(outputs[0].fields[outputs[0].time].name, "hour");
}

#[test]
fn a_state_made_for_other_measures_is_refused() {
    let play = of("play");
    let mut stage = build(&*kind(), &planned(std::slice::from_ref(&play), limits()), None, &Logs::default()).unwrap();
    let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
    let other = input("by_country", json!({ "group_by": [], "measures": { "events": "count()" } }), &[play], limits());
    let refused = build(&*kind(), &other, Some(&snapshot), &Logs::default()).err().expect("it is refused");
    assert!(refused.contains("start afresh"), "{refused}");
}
