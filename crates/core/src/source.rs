//! Sources: where records come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::batch::RawChunk;
use crate::cluster::Clusters;
use crate::kind::{Finding, KindSpec, Options};
use crate::moved::{Idle, Moved};
use crate::seal::{PartitionPosition, SourcePositions};
use crate::stage::Limits;

/// What a source needs to open.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// Name of the topology.
    pub topology: Arc<str>,
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
    pub positions: SourcePositions,
    /// With `until_end`: where each partition ends, as an earlier process of the same run has found it
    /// ([`Source::ends`]); others are not read. `None`: the source looks for the ends itself.
    pub ends: Option<BTreeMap<Arc<str>, u64>>,
    /// Clusters of the settings.
    pub clusters: Arc<Clusters>,
    /// The part of the input that is to be read once more, by a run that reads nothing else. It begins without a cut and with `until_end`.
    pub stretch: Option<Arc<Stretch>>,
}

/// A part of the input of a source that was read before. The runtime hands on nothing beyond it, so a source that can't do better may read all
/// that there is.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// What arrived before it, in milliseconds since 1970, may be left out.
    pub arrived_from_ms: i64,
    /// The partitions, and the position in each that it ends at.
    pub until: BTreeMap<Arc<str>, u64>,
    /// What the state knows of partitions: names for those that can't be told by what is there now.
    pub known: SourcePositions,
    /// What of it a source has found to be gone, or may be, in words.
    pub gone: Arc<Mutex<BTreeSet<String>>>,
}

impl Stretch {
    /// Notes that a part of it is gone, or may be.
    pub fn is_gone(&self, what: String) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
    }
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
    /// What can be done about it.
    pub cure: Cure,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What can be done about a source's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// The source is opened again, after a pause, behind what it has handed on.
    Reopen,
    /// Nothing by itself: going on would skip or mistake something. The run stops (exit 75).
    Stop,
    /// Something that the run needs is unavailable, and it was not to wait longer. The run stops (exit 69).
    GiveUp,
    /// The topology or the settings have to be changed. The run stops (exit 78).
    Reconfigure,
}

/// How far a partition is behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Records that are there and have not been handed on.
    pub events: u64,
    /// Age of the newest record that was handed on, in milliseconds, where there are newer ones; 0 at the end.
    pub ms: u64,
}

/// Reads records. Runs on a thread of its own, so it may block, but for at most about 50 ms a call.
pub trait Source: Send {
    /// The next chunk: whole records of one partition, up to about 1 MiB, positions ascending without gaps or repeats.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn poll(&mut self) -> Result<Polled, SourceError>;

    /// What has moved since it was asked last; the first answer has all partitions. Those that exist but were not read
    /// yet are among them: they hold hours open. Asked behind every chunk, so it is not to look at all partitions.
    /// One that has few may compare ([`Reported`](crate::Reported)).
    fn moved(&mut self) -> Moved;

    /// Which partitions hold no hour open now, although they have not ended. Asked some ten times a second.
    fn idle(&self) -> Idle {
        Idle::default()
    }

    /// Partitions that have given nothing, and were not proven to have nothing, although they were asked: for how long. Those that were waiting for their
    /// turn, or that nobody asked because what is behind the source was full, are none. Beyond `hold_at_most` they hold no hour open any more, and
    /// manifests name them. Of a source whose calls fail the runtime knows it by itself. Asked as often as [`Source::idle`].
    fn silent_partitions(&self) -> BTreeMap<Arc<str>, Duration> {
        BTreeMap::new()
    }

    /// A cut with these positions is committed. Called between two polls, not for every cut; for publishing them elsewhere.
    fn committed(&mut self, _positions: &BTreeMap<Arc<str>, PartitionPosition>) {}

    /// How far each partition is behind its end, where the source knows. Asked about once a second.
    fn lag(&self) -> BTreeMap<Arc<str>, Lag> {
        BTreeMap::new()
    }

    /// Of a run to the end: all partitions that it reads, with the position behind the last record of each, as far as
    /// the
    /// source bounds it. `None` while that is not known. The first answer is kept in the cut, and holds for processes
    /// that go on with the run.
    fn ends(&self) -> Option<BTreeMap<Arc<str>, u64>> {
        None
    }

    /// What the source waits for before it can give anything, such as a broker that does not answer. While there is such a
    /// thing, the process is not ready.
    fn waits_for(&self) -> Option<String> {
        None
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

    /// Whether a source with these options comes to an end when it is opened with `until_end`.
    fn ends(&self, _options: &Options) -> bool {
        false
    }

    /// Opens it at the positions of the context.
    ///
    /// # Errors
    /// See [`SourceError`].
    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError>;
}
