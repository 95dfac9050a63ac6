//! Runs topologies: supervised actors, bounded queues, and one commit point.
//!
//! This is the only crate that names actix. A topology is divided into *regions*, with ponds between them: sources and stages between which batches move through
//! inboxes (bounded lanes outside the actors); a coordinator that sends barriers through them; and a committer that makes what the
//! barriers leave behind durable, as one ledger record.
//!
//! ```text
//!  Pool (supervisor of a stage)          Coordinator --Order--> Reader --chunks, barriers--> Inbox
//!    `- Worker --lease--> Inbox            ^  `--Job--> committer thread (Logs, pieces, ledger) -> publisher thread
//!         `- Engine (the stage's value)    `--Ack-- Worker --Outlet--> next Inbox
//! ```

mod aside;
mod audit;
mod backoff;
mod barren;
mod bottleneck;
mod caps;
mod circuit;
mod clocks;
mod committer;
mod consistent;
mod coordinator;
mod delivery;
mod drain;
mod engine;
mod error;
mod external;
mod failpoint;
mod finite;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod horizon;
mod host;
mod hours;
mod inbox;
mod intake;
mod item;
mod ledger;
mod live;
mod logs;
mod mark;
mod metrics;
mod niceness;
mod opening;
mod outlet;
mod pieces;
mod pond;
mod pool;
mod producers;
mod progress;
mod publish;
mod published;
mod publisher;
mod reached;
mod reader;
mod region;
mod registry;
mod replay;
mod requests;
mod run;
mod seat;
mod silence;
mod state_dir;
mod status;
mod stretch;
mod stuck;
mod suspects;
mod sync;
mod take_over;
mod task;
mod watchdog;
mod watermark;
mod worker;

pub use aside::set_aside;
pub use bottleneck::{Bottleneck, bottleneck, shares};
pub use coordinator::Ended;
pub use delivery::DeliveryStatus;
pub use error::RunError;
#[cfg(feature = "failpoints")]
pub use failpoint::{Decide, Decision, decide_by, state_files_of, steps_of};
pub use host::{Host, HostFile, Open, System};
pub use hours::{HourState, TypeHours, hour_state};
pub use metrics::{Exporter, METRICS, MetricKind, MetricSpec, describe, histograms};
pub use published::{DamagedLine, Newest, Published, index_path, newest, published};
pub use region::{Reads, RunConfig, SealAt};
pub use registry::Registry;
pub use replay::{ReplayError, ReplayedLetter, Requests, Ways};
pub use requests::{RequestError, Requesting};
pub use run::{Handle, Running, Short, can_follow, last_cut, last_positions, start, start_locked};
pub use state_dir::{Owner, StateLock, is_claimed, owner_of};
pub use status::{
    DeadLetterStatus, MismatchStatus, PartitionStatus, PondStatus, RegionStatus, SourceStatus, StageStatus, Status,
    TypeStatus, WorkerStatus,
};
pub use take_over::{take_over, wait_for_lock};
