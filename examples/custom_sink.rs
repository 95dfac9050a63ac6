//! A sink of one's own in a binary of one's own: it keeps the number of events in a text file.
//! `cargo run --example custom_sink -- run examples/custom_sink.toml --until-end`

use std::path::PathBuf;

use tidemill::core::{
    Batch, CutId, DeliveryId, Guarantee, KindSpec, OptionSpec, OptionType, Resume, Sink, SinkContext, SinkError,
    SinkKind,
};

struct CountFile;

#[derive(serde::Deserialize)]
struct Config {
    path: PathBuf,
}

struct Counting {
    path: PathBuf,
    count: u64,
}

impl Sink for Counting {
    async fn write(&mut self, batch: &Batch, _: DeliveryId) -> Result<(), SinkError> {
        self.count += batch.len() as u64;
        Ok(())
    }

    /// What is returned here joins the cut: after a crash the count goes on from it, so nothing is counted twice.
    async fn flush(&mut self, _: CutId) -> Result<Resume, SinkError> {
        let written = std::fs::write(&self.path, self.count.to_string());
        written.map_err(|error| SinkError::Fatal { source: Box::new(error) })?;
        Ok(self.count.to_le_bytes().to_vec())
    }
}

const PATH: OptionSpec = OptionSpec::required("path", OptionType::Text, "The file.");
static SPEC: KindSpec = KindSpec::sink("count_file", "Counts events.", Guarantee::Idempotent, &[PATH]);

impl SinkKind for CountFile {
    type Config = Config;
    type Sink = Counting;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    async fn open(&self, config: &Config, _: &SinkContext, resume: Option<Resume>) -> Result<Counting, SinkError> {
        let count = resume.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        Ok(Counting { path: config.path.clone(), count })
    }
}

fn main() -> std::process::ExitCode {
    let mut registry = tidemill::registry();
    registry.add_sink(CountFile);
    tidemill::main(registry)
}
