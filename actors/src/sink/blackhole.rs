//! `blackhole`: events are counted and forgotten.

use serde::Deserialize;
use tidemill_core::{
    Batch, CutId, DeliveryId, Guarantee, KindSpec, Resume, Role, Shape, Sink, SinkContext, SinkError, SinkKind, State,
};

use super::console::count_of;

/// The kind `blackhole`.
pub struct Blackhole;

/// It has no options.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct BlackholeConfig {}

static SPEC: KindSpec = KindSpec {
    name: "blackhole",
    role: Role::Sink,
    summary: "Takes events and forgets them.",
    details: "For measuring what comes before it, and for events that nobody wants.",
    options: &[],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::AtLeastOnce),
};

/// The open sink.
#[derive(Debug, Default)]
pub struct BlackholeSink {
    rows: u64,
}

impl BlackholeSink {
    /// Events taken so far; over restarts, those behind the last cut count again.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Sink for BlackholeSink {
    async fn write(&mut self, batch: &Batch, _id: DeliveryId) -> Result<(), SinkError> {
        self.rows += batch.len() as u64;
        Ok(())
    }

    async fn flush(&mut self, _cut: CutId) -> Result<Resume, SinkError> {
        Ok(self.rows.to_le_bytes().to_vec())
    }
}

impl SinkKind for Blackhole {
    type Config = BlackholeConfig;
    type Sink = BlackholeSink;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn guarantee(&self, _config: &Self::Config) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn open(
        &self,
        _config: &Self::Config,
        _context: &SinkContext,
        resume: Option<Resume>,
    ) -> Result<Self::Sink, SinkError> {
        Ok(BlackholeSink { rows: count_of(resume) })
    }
}
