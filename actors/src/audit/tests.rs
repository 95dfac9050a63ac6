//! The stage over remarks, seals and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use tidemill_core::{
    Counted, Effects, EventType, Horizon, Hour, HourNote, IdSum, Input, Late, LatePolicy, Limits, RevisionMode,
    SealReason, Seals, Stage, StageInput, Totals,
};
use tidemill_testkit::{KeptPieces, Start};

use super::kind::Audit;

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}, {"name": "id", "type": "string"}
]}"#;

fn event_type(name: &str, id: &[&str], policy: LatePolicy) -> Arc<EventType> {
    let id: Vec<String> = id.iter().map(|field| (*field).to_owned()).collect();
    let late = Late { policy, within_ms: 1_000, delay_ms: 5, mode: RevisionMode::Append };
    Arc::new(EventType::new(name, SCHEMA, "at", &id, None).expect("a type").with_late(late))
}

struct Rig {
    input: StageInput,
    stage: Box<dyn Stage>,
    cut: u64,
    sealed: BTreeMap<Arc<str>, i64>,
    pieces: KeptPieces,
}

/// Start of the hour, type, stage, events, ids, whether they are late, cut.
type Row = (i64, String, String, i64, Option<String>, bool, i64);

impl Rig {
    fn new(types: &[Arc<EventType>]) -> Self {
        let limits = Limits { bucket_ms: 100, hold_at_most_ms: 0, max_ahead_ms: 0, ..tidemill_testkit::limits() };
        let input = StageInput {
            name: "counted".into(),
            options: Default::default(),
            types: types.to_vec(),
            limits: Arc::new(limits),
        };
        let pieces = KeptPieces::default();
        Self { stage: build(&input, None, &BTreeMap::new(), &pieces), input, cut: 0, sealed: BTreeMap::new(), pieces }
    }

    fn note(&mut self, event_type: &str, start_ms: i64, stage: &str, cut: u64, events: u64) {
        let totals = Totals { events, ids: IdSum(u128::from(events) << 64) };
        let note = HourNote {
            event_type: event_type.into(),
            hour: Hour { start_ms, width_ms: 100 },
            duplicates: 0,
            refused: 0,
            counted: Some(Counted { cut, stage: stage.into(), totals }),
            accounts: None,
        };
        self.stage.process(&Input::Note(note), &mut Effects::default()).expect("a remark");
    }

    /// A barrier, and a restart from what it leaves; the rows, and whether rows wait for the end of a revision.
    fn barrier(&mut self, horizons: &[(&str, i64)], revised: &[&str]) -> (Vec<Row>, bool) {
        self.cut += 1;
        let horizon = |(name, before): &(&str, i64)| Horizon::new((*name).into(), *before, SealReason::Watermark);
        let seals = Seals {
            cut: self.cut,
            at_ms: 77,
            horizons: horizons.iter().map(horizon).collect(),
            revised: revised.iter().map(|name| Arc::from(*name)).collect(),
            ..tidemill_testkit::seals()
        };
        let mut effects = Effects::default();
        self.stage.seal(&seals, &mut effects).expect("sealed");
        let snapshot = self.stage.snapshot(&mut effects).expect("a snapshot");
        self.sealed.extend(horizons.iter().map(|(name, before)| (Arc::from(*name), *before)));
        self.pieces.apply(&effects.pieces);
        self.stage = build(&self.input, Some(&snapshot), &self.sealed, &self.pieces);
        let rows = effects.batches.iter().flat_map(|batch| {
            let columns = &batch.records;
            (0..batch.records.num_rows()).map(|row| {
                let text = |column: usize| columns.column(column).as_string_view();
                let ids = columns.column(4).as_string_view();
                (
                    columns.column(0).as_primitive::<TimestampMillisecondType>().value(row),
                    text(1).value(row).to_owned(),
                    text(2).value(row).to_owned(),
                    columns.column(3).as_primitive::<Int64Type>().value(row),
                    arrow_array::Array::is_valid(ids, row).then(|| ids.value(row).to_owned()),
                    columns.column(5).as_boolean().value(row),
                    columns.column(6).as_primitive::<Int64Type>().value(row),
                )
            })
        });
        (rows.collect(), !effects.revising.is_empty())
    }
}

fn build(
    input: &StageInput,
    snapshot: Option<&[u8]>,
    sealed: &BTreeMap<Arc<str>, i64>,
    pieces: &KeptPieces,
) -> Box<dyn Stage> {
    let pieces = Arc::new(pieces.clone());
    let start = Start { sealed_before_ms: sealed.clone(), snapshot, pieces, ..Start::default() };
    tidemill_testkit::build(&Audit, input, start).expect("it is built")
}

fn ids(events: u64) -> Option<String> {
    Some(IdSum(u128::from(events) << 64).to_string())
}

#[test]
fn there_is_a_row_for_each_stage_when_an_hour_is_sealed_and_late_ones_are_told_apart() {
    let mut rig = Rig::new(&[event_type("play", &["id"], LatePolicy::Revise)]);
    rig.note("play", 0, "parse", 1, 3);
    // By a second way, and the same.
    rig.note("play", 0, "parse", 1, 3);
    rig.note("play", 0, "dedup", 1, 2);
    assert_eq!(rig.barrier(&[], &[]), (vec![], false));
    rig.note("play", 0, "parse", 2, 4);
    rig.note("play", 100, "parse", 2, 1);
    let row = |stage: &str, events: u64, is_late: bool, cut: i64| {
        (0, "play".to_owned(), stage.to_owned(), events as i64, ids(events), is_late, cut)
    };
    let sealed = rig.barrier(&[("play", 100), ("counted", 100)], &[]);
    assert_eq!(sealed, (vec![row("dedup", 2, false, 2), row("parse", 7, false, 2)], false));
    rig.note("play", 0, "parse", 3, 1);
    assert_eq!(rig.barrier(&[], &[]), (vec![], false), "late events wait for their revision");
    assert_eq!(rig.barrier(&[], &["play"]), (vec![row("parse", 1, true, 4)], true));
    assert_eq!(rig.barrier(&[], &["counted"]), (vec![], false));
}

#[test]
fn without_ids_there_is_no_hash() {
    let mut rig = Rig::new(&[event_type("play", &[], LatePolicy::DeadLetter)]);
    for hour in 0..5 {
        rig.note("play", hour * 100, "parse", 1, 1);
    }
    let (rows, _) = rig.barrier(&[("play", 1_000)], &[]);
    assert_eq!(
        rows.iter().map(|row| (row.0, row.4.clone())).collect::<Vec<_>>(),
        [(0, None), (100, None), (200, None), (300, None), (400, None)]
    );
    // Those that come when their hour is sealed are dead letters.
    rig.note("play", 300, "parse", 2, 1);
    assert_eq!(rig.barrier(&[("play", 1_100)], &[]).0, []);
}
