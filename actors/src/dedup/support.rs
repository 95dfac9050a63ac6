//! What the tests of keyed stages and filters share.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use arrow_array::ArrayRef;
use serde_json::Value;
use tidemill_core::{
    Batch, Effects, EventType, Horizon, Late, LatePolicy, Limits, LogName, LogReader, Options, PieceReader,
    RevisionMode, SealReason, Seals, Stage, StageError, StageInput, StageKind,
};
use tidemill_testkit::{KeptPieces, Start};

pub(crate) use tidemill_testkit::HOUR_MS as HOUR;

/// Logs in memory.
#[derive(Clone, Default)]
pub(crate) struct Logs(pub(crate) HashMap<LogName, Vec<u8>>);

impl LogReader for Logs {
    fn open(&self, log: &LogName) -> std::io::Result<Box<dyn Read>> {
        let bytes = self.0.get(log).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        // Some bytes at a time, so that no read ends at the end of an id.
        struct Few(std::io::Cursor<Vec<u8>>);
        impl Read for Few {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let most = buffer.len().min(1_001);
                self.0.read(&mut buffer[..most])
            }
        }
        Ok(Box::new(Few(std::io::Cursor::new(bytes.clone()))))
    }
}

pub(crate) fn limits() -> Limits {
    Limits { allowed_lateness_ms: 600_000, max_ahead_ms: HOUR, ..tidemill_testkit::limits() }
}

pub(crate) fn input(name: &str, options: Value, types: &[Arc<EventType>], limits: Limits) -> StageInput {
    let Value::Object(options) = options else { panic!("options are a table") };
    StageInput { name: name.into(), options: Options(options), types: types.to_vec(), limits: Arc::new(limits) }
}

pub(crate) fn build(
    kind: &dyn StageKind,
    input: &StageInput,
    snapshot: Option<&[u8]>,
    logs: &Logs,
) -> Result<Box<dyn Stage>, String> {
    build_within(kind, input, snapshot, logs, 512 << 20)
}

/// The same with so much memory for its state.
pub(crate) fn build_within(
    kind: &dyn StageKind,
    input: &StageInput,
    snapshot: Option<&[u8]>,
    logs: &Logs,
    memory_bytes: u64,
) -> Result<Box<dyn Stage>, String> {
    let kept: Option<(Vec<u8>, tidemill_core::PieceChanges)> = match snapshot {
        Some(bytes) => Some(postcard::from_bytes(bytes).map_err(|error| error.to_string())?),
        None => None,
    };
    let pieces = KeptPieces::default();
    pieces.apply(kept.as_ref().map_or(&[], |(_, pieces)| pieces));
    let start = Start {
        snapshot: kept.as_ref().map(|(head, _)| &head[..]),
        pieces: Arc::new(pieces.clone()),
        memory_bytes,
        logs,
        ..Start::default()
    };
    Ok(Box::new(Whole { stage: tidemill_testkit::build(kind, input, start)?, pieces }))
}

/// A stage whose snapshots hold its pieces, too.
struct Whole {
    stage: Box<dyn Stage>,
    pieces: KeptPieces,
}

impl Stage for Whole {
    fn process(&mut self, input: &tidemill_core::Input, effects: &mut Effects) -> Result<(), StageError> {
        self.stage.process(input, effects)
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        self.stage.seal(seals, effects)
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        let head = self.stage.snapshot(effects)?;
        self.pieces.apply(&effects.pieces);
        let read = |name: String| (self.pieces.read(&name).ok(), name);
        let pieces: Vec<_> = self.pieces.names("").into_iter().map(read).map(|(bytes, name)| (name, bytes)).collect();
        Ok(postcard::to_stdvec(&(head, pieces)).unwrap())
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        self.stage.open_hours()
    }
}

pub(crate) fn event_type(name: &str, fields: &str, id: &[&str]) -> Arc<EventType> {
    let time = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
    let schema = format!(r#"{{"type":"record","name":"{name}","fields":[{time},{fields}]}}"#);
    let id: Vec<String> = id.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(EventType::new(name, &schema, "at", &id, None).unwrap())
}

pub(crate) fn batch(of: &Arc<EventType>, columns: Vec<ArrayRef>) -> Batch {
    let origin = Arc::new(tidemill_testkit::origin(0, 100));
    Batch { origin, payload_bytes: 1_000, ..tidemill_testkit::batch(of, columns) }
}

/// The same type with late events as revisions, of hours that ended so long ago at most.
pub(crate) fn revised(of: &EventType, within_ms: i64) -> Arc<EventType> {
    let id: Vec<String> = of.id.iter().map(|at| of.fields[*at].name.clone()).collect();
    let made = EventType::new(&of.name, &of.schema_json, "at", &id, None).unwrap();
    let late = Late { policy: LatePolicy::Revise, within_ms, delay_ms: 0, mode: RevisionMode::Append };
    Arc::new(made.with_late(late))
}

pub(crate) fn seals(event_type: &str, sealed_before_ms: i64) -> Seals {
    let horizon = Horizon::new(event_type.into(), sealed_before_ms, SealReason::Watermark);
    Seals { at_ms: 77, horizons: vec![horizon], ..tidemill_testkit::seals() }
}

/// Calls the stage with a batch and checks that no record is lost.
pub(crate) fn process(stage: &mut dyn Stage, batch: Batch) -> Effects {
    let received = batch.len() as u64;
    let mut effects = Effects::default();
    stage.process(&tidemill_core::Input::Rows(batch), &mut effects).unwrap();
    assert!(effects.tally.is_conserved(), "{:?}", effects.tally);
    assert_eq!(effects.tally.received, received);
    assert_eq!(effects.tally.dead + effects.tally.late, effects.dead.len() as u64);
    effects
}
