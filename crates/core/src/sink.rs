//! Sinks that deliver to the outside by calls of their own: what a developer plugs in.

use serde::de::DeserializeOwned;

use crate::batch::Batch;
use crate::cluster::Clusters;
use crate::hour::Hour;
use crate::kind::{Finding, KindSpec};
use crate::stage::StageInput;

/// Number of a cut; it grows by at least one from cut to cut.
pub type CutId = u64;

/// Names one delivery for ever: whenever it is repeated, in this process or another, it carries the same id and the same rows. As text,
/// `<pond>@<offset>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The pond in front of the sink: the identity of the state directory, a slash, the pond's name.
    pub pond: std::sync::Arc<str>,
    /// Offset of the delivery in it, in bytes. Later deliveries from the same pond have greater ones.
    pub offset: u64,
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.pond, self.offset)
    }
}

/// What a sink promises about events that are delivered again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// They may be there twice.
    AtLeastOnce,
    /// They are recognised by their id and are there once.
    Idempotent,
    /// They are visible only with the cut, and once.
    Transactional,
}

/// What a sink wants back when it is opened again; part of the cut.
pub type Resume = Vec<u8>;

/// Why a sink did not take a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Not now: the same call is repeated after `after`, as often as needed. The sink's input waits meanwhile.
    #[error("not available, to be tried again in {after:?}")]
    Retry {
        /// How long to wait.
        after: std::time::Duration,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// These rows (indexes into the batch's columns), each with its reason, will never be taken: they become dead letters.
    /// All other rows have been taken.
    #[error("{} rows refused", .rows.len())]
    Reject {
        /// Row and reason.
        rows: Vec<(usize, String)>,
    },
    /// The sink is broken: it is opened anew and the call repeated.
    #[error("the sink failed")]
    Fatal {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a sink is opened with.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Name, options, types and limits.
    pub input: StageInput,
    /// Folder of the topology file; relative paths start there.
    pub base_dir: std::path::PathBuf,
    /// Clusters of the settings.
    pub clusters: std::sync::Arc<Clusters>,
    /// The ponds that its deliveries come from, as [`DeliveryId`] names them.
    pub ponds: Vec<std::sync::Arc<str>>,
}

/// A row that a sink will never take, although `write` took it at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The delivery that it was part of.
    pub id: DeliveryId,
    /// Its index into the batch's columns.
    pub row: usize,
    /// Why, in the words of what refused it.
    pub reason: String,
}

/// A sink of your own. All calls come from one thread, one at a time.
#[allow(async_fn_in_trait)] // calls stay on the worker's thread: no `Send` bound is wanted
pub trait Sink: 'static {
    /// Takes the selected rows of a batch. A sink that sends them on their way here and learns of their fate later waits for
    /// that in `settle`.
    ///
    /// # Errors
    /// See [`SinkError`].
    async fn write(&mut self, batch: &Batch, id: DeliveryId) -> Result<(), SinkError>;

    /// Waits until the fate of all rows written since the last call is known, and says which were refused: they become dead
    /// letters. Called behind every few writes, always before `seal` and `flush`. Without an own one: `write` knows at once.
    ///
    /// # Errors
    /// See [`SinkError`]; not with `Reject`.
    async fn settle(&mut self) -> Result<Vec<Refused>, SinkError> {
        Ok(Vec::new())
    }

    /// Makes all earlier writes durable; what it returns comes back through `open` after a restart.
    ///
    /// # Errors
    /// See [`SinkError`].
    async fn flush(&mut self, cut: CutId) -> Result<Resume, SinkError>;

    /// An hour of a type is complete. Called before the `flush` of the cut that seals it: after a crash in between, the hour
    /// may get more events, and the call comes again.
    ///
    /// # Errors
    /// See [`SinkError`].
    async fn seal(&mut self, _event_type: &str, _hour: Hour) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A kind of sink of your own.
#[allow(async_fn_in_trait)] // as above
pub trait SinkKind: Send + Sync + 'static {
    /// The options, as `spec` describes them; durations arrive in milliseconds, sizes in bytes.
    type Config: DeserializeOwned;
    /// What is opened.
    type Sink: Sink;

    /// Name, options and documentation.
    fn spec(&self) -> &'static KindSpec;

    /// What is promised about repeats with these options; what the description says, unless it depends on them.
    fn guarantee(&self, _config: &Self::Config) -> Guarantee {
        self.spec().guarantee.unwrap_or(Guarantee::AtLeastOnce)
    }

    /// Checks what the descriptions of the options can't.
    fn check(&self, _config: &Self::Config, _input: &StageInput) -> Vec<Finding> {
        Vec::new()
    }

    /// Opens the sink; `resume` is what the last committed `flush` returned.
    ///
    /// # Errors
    /// See [`SinkError`].
    async fn open(
        &self,
        config: &Self::Config,
        context: &SinkContext,
        resume: Option<Resume>,
    ) -> Result<Self::Sink, SinkError>;
}
