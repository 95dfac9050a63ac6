//! `console`: events as JSON lines on the standard output.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_core::{
    Batch, CutId, DefaultValue, DeliveryId, Guarantee, KindSpec, OptionSpec, OptionType, Resume, Role, Shape, Sink,
    SinkContext, SinkError, SinkKind, State,
};

use super::json::json_of;

/// The kind `console`.
pub struct Console;

/// Its options.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ConsoleConfig {
    /// Events to write; all when absent.
    #[serde(default)]
    pub limit: Option<u64>,
}

static SPEC: KindSpec = KindSpec {
    name: "console",
    role: Role::Sink,
    summary: "Writes events as JSON lines to the standard output.",
    details: "Times are RFC 3339, bytes hex, decimals text. For looking at events, not for keeping them: after a crash, events behind \
        the last cut are written again.",
    options: &[OptionSpec {
        name: "limit",
        ty: OptionType::Integer { min: 0, max: i64::MAX },
        default: DefaultValue::Absent,
        doc: "Events to write; those behind are taken and not written. All when left out.",
        shapes_state: false,
    }],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::AtLeastOnce),
};

/// The open console.
pub struct ConsoleSink {
    limit: u64,
    written: u64,
    line: Vec<u8>,
    out: Box<dyn Write>,
}

impl ConsoleSink {
    /// Writes to `out`, which is flushed at every cut; `written` events count against the limit already.
    #[must_use]
    pub fn new(config: &ConsoleConfig, written: u64, out: Box<dyn Write>) -> Self {
        Self { limit: config.limit.unwrap_or(u64::MAX), written, line: Vec::new(), out }
    }
}

fn broken(error: io::Error) -> SinkError {
    SinkError::Fatal { source: error.into() }
}

impl Sink for ConsoleSink {
    async fn write(&mut self, batch: &Batch, _id: DeliveryId) -> Result<(), SinkError> {
        self.line.clear();
        let room = self.limit.saturating_sub(self.written);
        let mut taken = 0;
        for row in batch.indexes().take(usize::try_from(room).unwrap_or(usize::MAX)) {
            let columns = batch.event_type.fields.iter().zip(batch.records.columns());
            let members: Map<String, Value> =
                columns.map(|(field, column)| (field.name.clone(), json_of(field, column.as_ref(), row))).collect();
            serde_json::to_writer(&mut self.line, &members).map_err(|error| broken(error.into()))?;
            self.line.push(b'\n');
            taken += 1;
        }
        self.out.write_all(&self.line).map_err(broken)?;
        self.written += taken;
        Ok(())
    }

    async fn flush(&mut self, _cut: CutId) -> Result<Resume, SinkError> {
        self.out.flush().map_err(broken)?;
        Ok(self.written.to_le_bytes().to_vec())
    }
}

impl SinkKind for Console {
    type Config = ConsoleConfig;
    type Sink = ConsoleSink;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn guarantee(&self, _config: &Self::Config) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn open(
        &self,
        config: &Self::Config,
        _context: &SinkContext,
        resume: Option<Resume>,
    ) -> Result<Self::Sink, SinkError> {
        Ok(ConsoleSink::new(config, count_of(resume), Box::new(io::stdout())))
    }
}

/// The count in what a flush returned; 0 at the first start.
pub(super) fn count_of(resume: Option<Resume>) -> u64 {
    resume.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
