//! The stage over events of producers, seals and restarts.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringViewArray, TimestampMillisecondArray};
use tidemill_core::{
    Account, Batch, Effects, EventType, Horizon, Input, Late, Limits, Producers, SealReason, Seals, Stage, StageInput,
};
use tidemill_testkit::Start;

use super::kind::Accounts;

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "host", "type": "string"},
    {"name": "seq", "type": "long"}
]}"#;

fn event_type(name: &str, marks: &[&str]) -> Arc<EventType> {
    let producers = Producers {
        field: 1,
        sequence: Some(2),
        lease_ms: 1_000,
        marks: marks.iter().map(|name| Arc::from(*name)).collect(),
        ends: None,
    };
    let made = EventType::new(name, SCHEMA, "at", &[], None).expect("a type");
    Arc::new(made.with_producers(Some(producers)).with_late(Late::DEAD_LETTER))
}

fn batch(event_type: &Arc<EventType>, rows: &[(i64, &str, i64)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC")),
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    Batch { payload_bytes: 0, ..tidemill_testkit::batch(event_type, columns) }
}

fn build(types: &[Arc<EventType>], snapshot: Option<&[u8]>) -> Box<dyn Stage> {
    let limits = Limits {
        bucket_ms: 100,
        hold_at_most_ms: 1_000,
        max_ahead_ms: 0,
        max_open_hours: 10,
        ..tidemill_testkit::limits()
    };
    let input = StageInput {
        name: "accounts".into(),
        options: Default::default(),
        types: types.to_vec(),
        limits: Arc::new(limits),
    };
    tidemill_testkit::build(&Accounts, &input, Start { snapshot, ..Start::default() }).expect("a stage")
}

/// What is told when the hours of `play` up to there are sealed: hour, producer, events, missing, found.
fn seal(stage: &mut dyn Stage, before_ms: i64) -> Vec<(i64, String, u64, u64, u64)> {
    let horizon = Horizon::new("play".into(), before_ms, SealReason::Watermark);
    let seals = Seals { horizons: vec![horizon], ..tidemill_testkit::seals() };
    let mut effects = Effects::default();
    stage.seal(&seals, &mut effects).expect("a seal");
    let missing: u64 = effects.missing.iter().map(|(_, missing)| missing).sum();
    let told = effects.notes.iter().flat_map(|note| {
        let told =
            |told: &Account| (note.hour.start_ms, told.producer.to_string(), told.events, told.missing, told.found);
        note.accounts.iter().flat_map(|accounts| &accounts.producers).map(told)
    });
    let told: Vec<_> = told.collect();
    assert_eq!(missing, told.iter().map(|told| told.3).sum::<u64>());
    told
}

fn told(hour: i64, producer: &str, events: u64, missing: u64, found: u64) -> (i64, String, u64, u64, u64) {
    (hour, producer.to_owned(), events, missing, found)
}

#[test]
fn gaps_are_told_by_producer_and_hour_over_a_restart_and_markers_show_the_end() {
    let (play, mark) = (event_type("play", &[]), event_type("mark", &["play"]));
    let types = [play.clone(), mark.clone()];
    let mut stage = build(&types, None);
    let take = |stage: &mut dyn Stage, batch: Batch| {
        let mut effects = Effects::default();
        let count = batch.len();
        stage.process(&Input::Rows(batch), &mut effects).expect("it takes it");
        assert!(
            effects.tally.is_conserved() && effects.tally.sent == count as u64 && effects.batches[0].len() == count
        );
    };
    take(&mut *stage, batch(&play, &[(0, "a", -1), (10, "a", 0), (20, "b", 7), (30, "a", 3), (110, "a", 5)]));
    let snapshot = stage.snapshot(&mut Effects::default()).expect("a snapshot");
    let mut stage = build(&types, Some(&snapshot));
    take(&mut *stage, batch(&mark, &[(100, "b", 9), (100, "nobody", 9)]));
    assert_eq!(seal(&mut *stage, 100), [told(0, "a", 3, 2, 0), told(0, "b", 1, 2, 0)]);
    // One of each comes late, and one in time.
    take(&mut *stage, batch(&play, &[(25, "a", 1), (26, "b", 8), (120, "a", 4)]));
    assert_eq!(seal(&mut *stage, 200), [told(0, "a", 1, 0, 1), told(0, "b", 1, 0, 1), told(100, "a", 2, 0, 0)]);
    assert_eq!(seal(&mut *stage, 300), []);
}
