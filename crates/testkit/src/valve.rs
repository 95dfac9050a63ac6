//! A sink that can be closed, and keeps what it was given.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidemill_core::{
    Batch, CutId, DeliveryId, Guarantee, Hour, KindSpec, Refused, Resume, Sink, SinkContext, SinkError, SinkKind,
};

/// The kind `valve`; all sinks of one value share what they keep.
#[derive(Clone, Default)]
pub struct Valve(Arc<Mutex<Kept>>);

/// What a valve was given.
#[derive(Default)]
pub struct Kept {
    /// Whether it takes nothing.
    pub is_closed: bool,
    /// Deliveries that it takes before it closes by itself.
    pub closes_after: Option<usize>,
    /// Each delivery that was taken, with the bytes of its rows as they were received.
    pub deliveries: Vec<(DeliveryId, Vec<Vec<u8>>)>,
    /// Hours that it was told of, each with the number of deliveries before.
    pub sealed: Vec<(String, i64, usize)>,
    /// Rows are refused when they hold these bytes.
    pub refuses: Option<Vec<u8>>,
}

static SPEC: KindSpec =
    KindSpec::sink("valve", "Keeps what it is given, unless it is closed.", Guarantee::Idempotent, &[]);

/// It has none.
#[derive(serde::Deserialize)]
pub struct NoOptions {}

impl Valve {
    /// What it keeps.
    ///
    /// # Panics
    /// When somebody panicked while looking at it.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("nobody panicked while looking at it")
    }

    fn take(&self) -> Result<MutexGuard<'_, Kept>, SinkError> {
        let mut kept = self.kept();
        if kept.closes_after == Some(0) {
            (kept.is_closed, kept.closes_after) = (true, None);
        }
        if kept.is_closed {
            return Err(SinkError::Retry { after: Duration::from_millis(1), source: "the valve is closed".into() });
        }
        Ok(kept)
    }
}

impl Sink for Valve {
    async fn write(&mut self, batch: &Batch, id: DeliveryId) -> Result<(), SinkError> {
        let mut kept = self.take()?;
        kept.closes_after = kept.closes_after.map(|left| left - 1);
        let is_refused = |row: &[u8]| {
            kept.refuses.as_ref().is_some_and(|part| row.windows(part.len()).any(|window| window == &part[..]))
        };
        let (refused, taken): (Vec<usize>, Vec<usize>) =
            batch.indexes().partition(|row| is_refused(batch.received(*row)));
        let rows = taken.into_iter().map(|row| batch.received(row).to_vec()).collect();
        kept.deliveries.push((id, rows));
        if refused.is_empty() {
            return Ok(());
        }
        Err(SinkError::Reject { rows: refused.into_iter().map(|row| (row, "not this one".to_owned())).collect() })
    }

    async fn settle(&mut self) -> Result<Vec<Refused>, SinkError> {
        self.take().map(|_| Vec::new())
    }

    async fn flush(&mut self, _: CutId) -> Result<Resume, SinkError> {
        self.take().map(|_| Resume::new())
    }

    async fn seal(&mut self, event_type: &str, hour: Hour) -> Result<(), SinkError> {
        let mut kept = self.take()?;
        let before = kept.deliveries.len();
        kept.sealed.push((event_type.to_owned(), hour.start_ms, before));
        Ok(())
    }
}

impl SinkKind for Valve {
    type Config = NoOptions;
    type Sink = Valve;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    async fn open(&self, _: &NoOptions, _: &SinkContext, _: Option<Resume>) -> Result<Valve, SinkError> {
        Ok(self.clone())
    }
}
