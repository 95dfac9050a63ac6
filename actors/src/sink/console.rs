//! `console`: events as JSON lines on the standard output.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_core::{
    Batch, CutId, DefaultValue, DeliveryId, Guarantee, KindSpec, OptionSpec, OptionType, Resume, Role, Shape, Sink,
    SinkContext, SinkError, SinkKind, State,
};

use tracing::info;

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
        the last cut are written again. When whoever reads the output has seen enough and closes it (`head`), the rest is taken and not \
        written, as behind `limit`.",
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
    /// Gone when nobody reads it any more.
    out: Option<Box<dyn Write>>,
}

impl ConsoleSink {
    /// Writes to `out`, which is flushed at every cut; `written` events count against the limit already.
    #[must_use]
    pub fn new(config: &ConsoleConfig, written: u64, out: Box<dyn Write>) -> Self {
        Self { limit: config.limit.unwrap_or(u64::MAX), written, line: Vec::new(), out: Some(out) }
    }

    /// Writes or flushes. That nobody reads on is the end of demand, and no failure; `false` from then on.
    fn put(&mut self, act: impl FnOnce(&mut dyn Write, &[u8]) -> io::Result<()>) -> Result<bool, SinkError> {
        let Some(out) = &mut self.out else { return Ok(false) };
        match act(&mut **out, &self.line) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                info!("nobody reads the output any more: the rest is taken and not written");
                self.out = None;
                Ok(false)
            }
            Err(error) => Err(broken(error)),
        }
    }
}

fn broken(error: io::Error) -> SinkError {
    SinkError::Fatal { source: error.into() }
}

impl Sink for ConsoleSink {
    async fn write(&mut self, batch: &Batch, _id: DeliveryId) -> Result<(), SinkError> {
        if self.out.is_none() {
            return Ok(());
        }
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
        if self.put(|out, line| out.write_all(line))? {
            self.written += taken;
        }
        Ok(())
    }

    async fn flush(&mut self, _cut: CutId) -> Result<Resume, SinkError> {
        self.put(|out, _| out.flush())?;
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};

    use arrow_array::{ArrayRef, StringViewArray, TimestampMillisecondArray};
    use tidemill_core::EventType;

    use super::*;
    use crate::sink::BlackholeSink;

    /// Runs a future that never waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> Batch {
        let schema = r#"{"type":"record","name":"P","fields":[{"name":"id","type":"string"},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
        let event_type = Arc::new(EventType::new("p", schema, "at", &[], None).unwrap());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter_values(["a", "b", "c"])),
            Arc::new(TimestampMillisecondArray::from_iter_values([0, 1, 2]).with_timezone("UTC")),
        ];
        Batch { payload_bytes: 3, ..tidemill_testkit::batch(&event_type, columns) }
    }

    fn id() -> DeliveryId {
        DeliveryId { pond: "s/out.main".into(), offset: 0 }
    }

    #[test]
    fn selected_rows_are_lines_up_to_the_limit_also_over_a_restart() {
        let out = Shared::default();
        let config = ConsoleConfig { limit: Some(3) };
        let mut sink = ConsoleSink::new(&config, 0, Box::new(out.clone()));
        now(sink.write(&batch().select(vec![0, 2]), id())).unwrap();
        let resume = now(sink.flush(1)).unwrap();
        let mut sink = ConsoleSink::new(&config, count_of(Some(resume)), Box::new(out.clone()));
        now(sink.write(&batch(), id())).unwrap();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let line = |id: &str, time: &str| format!("{{\"id\":\"{id}\",\"at\":\"1970-01-01T00:00:00{time}Z\"}}\n");
        assert_eq!(text, [line("a", ""), line("c", ".002"), line("a", "")].concat());
    }

    /// A pipe whose reader has closed it, and how often it was written to.
    #[derive(Clone, Default)]
    struct Closed(Arc<Mutex<u32>>);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            *self.0.lock().unwrap() += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_is_closed_is_the_end_of_demand() {
        let out = Closed::default();
        let mut sink = ConsoleSink::new(&ConsoleConfig::default(), 0, Box::new(out.clone()));
        for _ in 0..3 {
            now(sink.write(&batch(), id())).unwrap();
        }
        assert_eq!(count_of(now(sink.flush(1)).ok()), 0, "nothing was written");
        assert_eq!(*out.0.lock().unwrap(), 1, "it is tried once");
    }

    #[test]
    fn a_blackhole_counts_selected_rows() {
        let mut sink = BlackholeSink::default();
        now(sink.write(&batch().select(vec![1]), id())).unwrap();
        now(sink.write(&batch(), id())).unwrap();
        assert_eq!((sink.rows(), count_of(now(sink.flush(1)).ok())), (4, 4));
    }
}
