//! Sources: where records come from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::RawChunk;
use crate::kind::{Finding, KindSpec, Options};
use crate::seal::PartitionPosition;
use crate::stage::Limits;

/// What a source needs to open.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// Its name in the topology.
    pub name: Arc<str>,
    /// Its options, checked, with defaults filled in.
    pub options: Options,
    /// Limits of the topology.
    pub limits: Arc<Limits>,
    /// Folder of the topology file; relative paths start there.
    pub base_dir: std::path::PathBuf,
    /// Stop at the end of the input as it is at the start (`--until-end`).
    pub until_end: bool,
    /// Positions of the last cut by partition; empty at the first start.
    pub positions: BTreeMap<Arc<str>, PartitionPosition>,
}

/// What a source had to give.
#[derive(Debug)]
pub enum Polled {
    /// A chunk of whole records; its origin's `next` becomes the partition's position.
    Chunk(RawChunk),
    /// Nothing now; poll again after this time at the latest.
    Idle(Duration),
    /// Nothing ever again (finite sources, or `until_end`).
    Ended,
}

/// Why a source can't go on.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What happened, where, and what to do.
    pub message: String,
    /// Whether the same call may succeed later; if not, the run stops (exit 75) rather than skip anything.
    pub retry: bool,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Reads records. Runs on a thread of its own, so it may block, but for at most about 50 ms a call.
pub trait Source: Send {
    /// The next chunk: whole records of one partition, up to about 1 MiB, positions ascending without gaps or repeats.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn poll(&mut self) -> Result<Polled, SourceError>;

    /// Every known partition at the position behind what `poll` has returned. Partitions that exist but were not read
    /// yet are among them: they hold hours open.
    fn positions(&self) -> BTreeMap<Arc<str>, PartitionPosition>;

    /// Partitions that hold no hour open now, although they have not ended: read to their end and quiet for a grace time.
    fn idle_partitions(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

/// A kind of source.
pub trait SourceKind: Send + Sync + 'static {
    /// Name, options and documentation.
    fn spec(&self) -> &'static KindSpec;

    /// Checks what the descriptions of the options can't.
    fn check(&self, _options: &Options) -> Vec<Finding> {
        Vec::new()
    }

    /// Opens it at the positions of the context.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError>;
}
