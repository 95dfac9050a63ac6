//! The worker: counts of open hours, and the rows of sealed ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use tidemill_core::{
    Batch, Counted, Effects, EventType, HourNote, Input, Late, Origin, PieceChanges, PieceReader, RowOrigins, Seals,
    Stage, StageContext, StageError, Tally, Totals,
};

use crate::by_hour::{ByHour, hour_and_type};

/// Rows of a batch at most.
const BATCH_ROWS: usize = 8192;
/// What the names of its pieces begin with.
const PREFIX: &str = "c/";
/// First byte of a snapshot.
const VERSION: u8 = 2;

pub(super) struct AuditStage {
    bucket_ms: i64,
    output: Arc<EventType>,
    types: BTreeMap<Arc<str>, OfType>,
    /// Of the rows.
    sealed_before_ms: i64,
    /// Rows of late events went out that are in no revision yet.
    is_revising: bool,
    /// Pieces of types that do not arrive any more.
    strangers: PieceChanges,
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StageError {
    StageError { message: "can't read the state of audit".into(), source: Some(error.into()) }
}

fn unwritable(error: postcard::Error) -> StageError {
    StageError { message: "can't write the state of audit".into(), source: Some(error.into()) }
}

struct OfType {
    late: Late,
    has_ids: bool,
    sealed_before_ms: i64,
    /// Hours that end at or before it are told of no more.
    given_up_ms: i64,
    /// By stage: the cut that the count ends with, and the count. In pieces `c/<hour>/<type>`.
    hours: ByHour<BTreeMap<Arc<str>, (u64, Totals)>>,
}

struct Row {
    start_ms: i64,
    event_type: Arc<str>,
    stage: Arc<str>,
    totals: Totals,
    has_ids: bool,
    is_late: bool,
}

impl AuditStage {
    pub(super) fn new(context: &StageContext<'_>) -> Result<Self, StageError> {
        let given_up_ms: BTreeMap<Arc<str>, i64> = match context.snapshot.map(<[u8]>::split_first) {
            None => BTreeMap::new(),
            Some(Some((&VERSION, bytes))) => postcard::from_bytes(bytes).map_err(unreadable)?,
            Some(first) => {
                let version = first.map(|(version, _)| *version);
                return Err(StageError::new(format!(
                    "the snapshot of audit has version {version:?}, this program reads {VERSION}: use the version that wrote it"
                )));
            }
        };
        let output = context.outputs.first().cloned();
        let of_type = |of: &Arc<EventType>| {
            let sealed_before_ms = context.sealed_before_ms.get(&of.name).copied().unwrap_or(i64::MIN);
            let of_type = OfType {
                late: of.late,
                has_ids: !of.id.is_empty(),
                sealed_before_ms,
                given_up_ms: given_up_ms.get(&of.name).copied().unwrap_or(sealed_before_ms),
                hours: ByHour::default(),
            };
            (of.name.clone(), of_type)
        };
        let mut stage = Self {
            bucket_ms: context.input.limits.bucket_ms,
            output: output.ok_or_else(|| StageError::new("the stage was planned without a type of its own"))?,
            types: context.input.types.iter().map(of_type).collect(),
            sealed_before_ms: context.sealed_before_ms.get(&context.input.name).copied().unwrap_or(i64::MIN),
            is_revising: false,
            strangers: PieceChanges::new(),
        };
        stage.restore(&*context.pieces)?;
        Ok(stage)
    }

    fn restore(&mut self, pieces: &dyn PieceReader) -> Result<(), StageError> {
        for name in pieces.names(PREFIX) {
            let no_hour = || StageError::new(format!("audit has no piece `{name}`"));
            let (start_ms, of) = hour_and_type(&name[PREFIX.len()..]).ok_or_else(no_hour)?;
            match self.types.get_mut(of) {
                Some(of_type) => {
                    let bytes = pieces.read(&name).map_err(unreadable)?;
                    of_type.hours.restore(start_ms, postcard::from_bytes(&bytes).map_err(unreadable)?);
                }
                None => self.strangers.push((name, None)),
            }
        }
        Ok(())
    }

    fn note(&mut self, note: &HourNote) {
        let Some(Counted { cut, stage, totals }) = &note.counted else { return };
        let Some(of_type) = self.types.get_mut(&note.event_type) else { return };
        let start_ms = note.hour.start_ms;
        if note.hour.end_ms() <= of_type.given_up_ms || totals.events == 0 {
            return;
        }
        let known = of_type.hours.entry(start_ms).entry(stage.clone()).or_default();
        // Stages that take from one and lead to one bring its remarks twice.
        if *cut > known.0 {
            known.0 = *cut;
            known.1 += *totals;
        }
    }

    /// Rows of all hours of a type that are sealed; those before `sealed_ms` were sealed before.
    fn told(&mut self, name: &Arc<str>, sealed_ms: i64) -> Vec<Row> {
        let bucket_ms = self.bucket_ms;
        let Some(of_type) = self.types.get_mut(name) else { return Vec::new() };
        let open_from_ms = of_type.sealed_before_ms.saturating_sub(bucket_ms).saturating_add(1);
        let mut rows = Vec::new();
        for (start_ms, stages) in of_type.hours.split_before(open_from_ms) {
            let end_ms = start_ms.saturating_add(bucket_ms);
            let is_late = end_ms <= sealed_ms;
            self.is_revising |= end_ms <= self.sealed_before_ms;
            rows.extend(stages.into_iter().map(|(stage, (_, totals))| Row {
                start_ms,
                event_type: name.clone(),
                stage,
                totals,
                has_ids: of_type.has_ids,
                is_late,
            }));
        }
        rows
    }

    fn batch(&self, rows: &[Row], seals: &Seals) -> Batch {
        let (mut types, mut stages, mut ids) =
            (StringViewBuilder::new(), StringViewBuilder::new(), StringViewBuilder::new());
        for row in rows {
            types.append_value(&row.event_type);
            stages.append_value(&row.stage);
            ids.append_option(row.has_ids.then(|| row.totals.ids.to_string()));
        }
        let hours = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.start_ms));
        let told_at = TimestampMillisecondArray::from_value(seals.at_ms, rows.len());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(hours.with_timezone("UTC")),
            Arc::new(types.finish()),
            Arc::new(stages.finish()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.totals.events as i64))),
            Arc::new(ids.finish()),
            Arc::new(rows.iter().map(|row| Some(row.is_late)).collect::<BooleanArray>()),
            Arc::new(Int64Array::from_value(seals.cut as i64, rows.len())),
            Arc::new(told_at.with_timezone("UTC")),
        ];
        let records = RecordBatch::try_new(self.output.arrow.clone(), columns);
        let records = records.expect("the columns are those of the type");
        let made_of = self.output.name.clone();
        Batch {
            event_type: self.output.clone(),
            payload_bytes: rows.len() * 64,
            counts: None,
            records,
            selection: None,
            rows: RowOrigins::default(),
            origin: Arc::new(Origin { source: made_of, partition: "".into(), first: 0, next: 0, enters: None }),
            arrived_at_ms: seals.at_ms,
        }
    }
}

impl Stage for AuditStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        match input {
            Input::Rows(batch) => {
                let count = batch.len() as u64;
                effects.tally.add(&Tally { received: count, absorbed: count, ..Tally::default() });
            }
            Input::Note(note) => self.note(note),
            Input::Raw(_) => return Err(StageError::new("audit takes typed events, not raw records")),
        }
        Ok(())
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        let mut rows = Vec::new();
        for horizon in &seals.horizons {
            let Some(of_type) = self.types.get_mut(&horizon.event_type) else { continue };
            let was_ms = of_type.sealed_before_ms;
            of_type.sealed_before_ms = was_ms.max(horizon.sealed_before_ms);
            of_type.given_up_ms = of_type.given_up_ms.max(of_type.late.given_up_by_ms(horizon));
            rows.extend(self.told(&horizon.event_type, was_ms));
        }
        for name in &seals.revised {
            let sealed_ms = self.types.get(name).map_or(i64::MIN, |of| of.sealed_before_ms);
            rows.extend(self.told(name, sealed_ms));
        }
        for horizon in seals.horizons.iter().filter(|horizon| horizon.event_type == self.output.name) {
            self.sealed_before_ms = self.sealed_before_ms.max(horizon.sealed_before_ms);
        }
        // They end with this barrier.
        self.is_revising &= !seals.revised.contains(&self.output.name);
        effects.batches.extend(rows.chunks(BATCH_ROWS).map(|rows| self.batch(rows, seals)));
        Ok(())
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        if std::mem::take(&mut self.is_revising) {
            effects.revising.push(self.output.name.clone());
        }
        effects.pieces.append(&mut self.strangers);
        for (name, of_type) in &mut self.types {
            of_type.hours.save(|start_ms| format!("{PREFIX}{start_ms}/{name}"), &mut effects.pieces)?;
        }
        let given_up_ms: BTreeMap<&Arc<str>, i64> =
            self.types.iter().map(|(name, of)| (name, of.given_up_ms)).collect();
        postcard::to_extend(&given_up_ms, vec![VERSION]).map_err(unwritable)
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        let open = self.types.iter().filter(|(_, of)| !of.hours.is_empty());
        open.map(|(name, of)| (name.clone(), of.hours.len())).collect()
    }
}
