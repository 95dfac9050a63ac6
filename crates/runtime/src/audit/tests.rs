//! The comparisons, on small numbers.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringViewArray, TimestampMillisecondArray};
use tidemill_core::{Batch, Counts, EventType, Hour, IdSum, Totals};
use tidemill_testkit::{HOUR_MS, origin};

use super::{ByHour, add, compare, wrong_row};

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}"#;

/// Events with these ids, an hour apart.
fn batch(ids: &[&str]) -> Batch {
    let event_type = Arc::new(EventType::new("r", SCHEMA, "at", &["id".to_owned()], None).expect("a type"));
    let times = (0..ids.len() as i64).map(|hour| hour * HOUR_MS);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(ids.to_vec())),
        Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC")),
    ];
    let mut batch =
        Batch { origin: Arc::new(origin(7, 8)), payload_bytes: 0, ..tidemill_testkit::batch(&event_type, columns) };
    batch.counts = Some(Counts::of(&batch, HOUR_MS));
    batch
}

fn by_hour(batch: &Batch) -> ByHour {
    let mut totals = ByHour::new();
    add(&mut totals, batch, HOUR_MS);
    totals
}

#[test]
fn totals_are_by_hour_and_of_the_selected_rows_with_the_hashes_that_manifests_have() {
    let batch = batch(&["a", "b", "c"]).select(vec![0, 2]);
    let key = |id: &str| tidemill_core::key_hash(&[&1u32.to_le_bytes(), id.as_bytes()].concat());
    let one = |id: &str| Totals { events: 1, ids: IdSum(key(id)) };
    assert_eq!(Counts::of(&batch, HOUR_MS).hours(), [(0, one("a")), (2 * HOUR_MS, one("c"))]);
}

#[test]
fn counts_are_those_of_a_batch_only_with_the_columns_and_rows_that_were_counted() {
    let (one, mut other) = (batch(&["a", "b"]), batch(&["a", "c"]));
    let hours = |batch: &Batch| Counts::of(batch, HOUR_MS).hours().to_vec();
    let own = hours(&other);
    other.counts.clone_from(&one.counts);
    assert_eq!(hours(&other), own, "columns that only look the same");
    assert_eq!(hours(&one.select(vec![1])), hours(&one)[1..], "fewer rows");
    assert!(Arc::ptr_eq(&Counts::of(&one, HOUR_MS), one.counts.as_ref().expect("they were counted")), "not again");
}

#[test]
fn what_was_lost_repeated_or_exchanged_is_named_with_its_hour() {
    let given = by_hour(&batch(&["a", "b"]));
    let said = |found: &Batch| -> Vec<String> {
        compare("here", &given, &by_hour(found), HOUR_MS).iter().map(ToString::to_string).collect()
    };
    assert_eq!(said(&batch(&["a", "b"])), Vec::<String>::new());
    let second = Hour { start_ms: HOUR_MS, width_ms: HOUR_MS };
    assert_eq!(said(&batch(&["a"])), [format!("here, type `r`, hour {second}: 1 expected, 0 found (1 lost)")]);
    assert_eq!(said(&batch(&["a", "b", "c"])).len(), 1, "an hour too many");
    let exchanged = said(&batch(&["a", "a"]));
    assert!(exchanged[0].contains(&format!("hour {second}: 1, but not the same ones")), "{exchanged:?}");
}

#[test]
fn a_row_leaves_a_stage_no_more_often_than_it_came() {
    let all = batch(&["a", "b", "c"]);
    let some = all.select(vec![0, 2]);
    let wrong = |inputs: &[&Batch], outputs: &[Batch]| {
        wrong_row("stage", inputs, outputs, HOUR_MS).map(|wrong| (wrong.found.events, wrong.expected.events))
    };
    assert_eq!(wrong(&[&all], std::slice::from_ref(&all)), None);
    assert_eq!(wrong(&[&all], std::slice::from_ref(&some)), None, "rows may be left out");
    assert_eq!(wrong(&[&all], &[all.select(vec![2]), all.select(vec![0, 1])]), None, "and parted");
    assert_eq!(wrong(&[&all.select(vec![0]), &all.select(vec![1, 2])], std::slice::from_ref(&all)), None, "and joined");
    assert_eq!(wrong(&[&all], &[batch(&["a", "a"])]), None, "columns of its own are its own business");
    assert_eq!(wrong(&[&all], &[all.select(vec![1, 1])]), Some((2, 1)));
    assert_eq!(wrong(&[&all], &[all.clone(), all.select(vec![1])]), Some((2, 1)));
    assert_eq!(wrong(&[&some], &[all.select(vec![0, 1])]), Some((1, 0)), "left out before");
    assert_eq!(wrong(&[&some], std::slice::from_ref(&all)), Some((1, 0)));
    assert_eq!(wrong(&[&all], &[all.select(vec![2, 0])]), None, "an order of its own is odd, and nothing is lost");
}
