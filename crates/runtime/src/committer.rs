//! The thread that makes cuts durable. One order, always:
//!
//! 1. sync the Logs that the cut holds, and their directories;
//! 2. write and sync what changed of the stages' state;
//! 3. append the record to the ledger and sync it: this is the commit;
//! 4. only then its effects: show ponds to those who read them, hand what it publishes to the publisher, remove retired
//!    Logs and segments of state that are not needed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_core::Publication;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::coordinator::{Committed as CommittedMessage, Fatal};
use crate::error::RunError;
use crate::failpoint;
use crate::host::Host;
use crate::ledger::{Committed, Ledger, Record};
use crate::mark::Mark;
use crate::pieces::{Changes, Pieces};
use crate::publish::remove;
use crate::publisher::{Outgoing, Publisher};
use crate::region::{Alarm, Region};
use crate::state_dir::{RegionDir, StateDir};
use crate::sync::{Written, sync_all};
use crate::task::{self, waiting_for_room};

/// A cut to commit.
pub(crate) struct Job {
    pub(crate) record: Record,
    pub(crate) pieces: BTreeMap<Arc<str>, Changes>,
    /// Bytes that sources had handed on at its barrier.
    pub(crate) read_bytes: u64,
}

/// Starts it, and the publisher behind it. Both end when there are no more jobs; then the receiver hears of it.
pub(crate) fn start(
    region: Arc<Region>,
    dir: RegionDir,
    ledger: Ledger,
    publisher: Publisher,
    jobs: UnboundedReceiver<Job>,
) -> oneshot::Receiver<()> {
    let (publisher, all_published) = publisher.start(region.clone());
    let host = region.config.host.clone();
    let work = async move {
        run(region, dir, ledger, jobs, publisher).await;
        let _ = all_published.await;
    };
    task::start(&*host, "committer", work)
}

async fn run(
    region: Arc<Region>,
    dir: RegionDir,
    mut ledger: Ledger,
    mut jobs: UnboundedReceiver<Job>,
    publisher: UnboundedSender<Outgoing>,
) {
    let _alarm = Alarm { region: region.clone(), whose: "committer" };
    while let Some(job) = jobs.recv().await {
        let begin = Instant::now();
        let cut = job.record.cut;
        let read_bytes = job.read_bytes;
        if let Err(error) = commit(&region, &dir, &mut ledger, job, &publisher).await {
            region.coordinator().do_send(Fatal(error));
            return;
        }
        region.coordinator().do_send(CommittedMessage { cut, read_bytes, took: begin.elapsed() });
    }
}

async fn commit(
    region: &Region,
    dir: &RegionDir,
    ledger: &mut Ledger,
    mut job: Job,
    publisher: &UnboundedSender<Outgoing>,
) -> Result<(), RunError> {
    failpoint::cut(&job.record);
    failpoint::at("cut-begins").await;
    let host = &*dir.state.host;
    sync_all(host, &written(region, &job.record))?;
    failpoint::at("logs-synced").await;
    leave_out_same(region, &mut job.pieces)?;
    region.committed().leave_out_known(&mut job.record);
    // What makes room needs room first: not where there is none.
    let mut makes_room = true;
    let write = || region.pieces.write(job.record.cut, &job.pieces, std::mem::take(&mut makes_room));
    let waits = "cuts and inputs wait";
    let written = waiting_for_room(region, waits, write).await?;
    job.record.pieces = Some(written.extent);
    failpoint::at("pieces-synced").await;
    waiting_for_room(region, waits, || ledger.append(&job.record)).await?;
    failpoint::at("ledger-synced").await;
    let outgoing = waiting_for_room(region, waits, || effects(region, &job.record, &dir.state)).await?;
    failpoint::at("effects-done").await;
    let was = region.committed().last.cut;
    waiting_for_room(region, waits, || dir.set_mark(Mark::Committed, was, job.record.cut)).await?;
    let mut committed = region.committed();
    let emptied = region.pieces.take_over(written);
    remove(host, emptied.into_iter())?;
    failpoint::hit("pieces-removed");
    committed.apply(job.record);
    if let Err(error) = ledger.rotate_if_large(&committed) {
        tracing::warn!(error = %error.chain(), "no new ledger file can be begun; going on with the old one");
    }
    drop(committed);
    if !outgoing.is_empty() {
        publisher.send(outgoing).map_err(|_| RunError::Internal("the publisher is gone".into()))?;
    }
    Ok(())
}

/// What is given whole at every cut is often as it was.
fn leave_out_same(region: &Region, pieces: &mut BTreeMap<Arc<str>, Changes>) -> Result<(), RunError> {
    for (stage, changes) in pieces {
        let Some((_, Some(whole))) = changes.last() else { continue };
        if region.pieces.is_same(stage, "", whole)? {
            changes.pop();
        }
    }
    Ok(())
}

/// The files and directories that must be durable before the record.
fn written(region: &Region, record: &Record) -> Vec<Written> {
    let mut all = Vec::new();
    for stage in &region.stages {
        let Some(said) = record.stages.get(&region.node(stage.node).name) else { continue };
        let mut logs = stage.logs();
        let written: Vec<Written> = said.logs.iter().map(|(name, _)| logs.written(name)).collect();
        // As bytes: paths compare slowly.
        let dirs: BTreeSet<&OsStr> = written.iter().filter_map(|log| log.path.parent().map(Path::as_os_str)).collect();
        let dirs: Vec<Written> = dirs.into_iter().map(|dir| Path::new(dir).into()).collect();
        all.extend(written.into_iter().chain(dirs));
    }
    all
}

/// Does the effects of a committed record, and returns what is to be published. Doing them twice is the same as once.
fn effects(region: &Region, record: &Record, state: &StateDir) -> Result<Outgoing, RunError> {
    let stage_of = |name: &str| region.stages.iter().find(|stage| *region.node(stage.node).name == *name);
    for pond in &region.ponds_out {
        if let Some(said) = record.stages.get(&pond.name) {
            pond.written(said.logs.iter().map(|(log, length)| (log, *length)), &said.retired);
        }
    }
    let mut outgoing = Vec::new();
    for (name, said) in &record.stages {
        let Some(stage) = stage_of(name) else { continue };
        let mut logs = stage.logs();
        let staged = |publication: &Publication| (logs.path(&publication.log), publication.clone());
        outgoing.extend(said.publications.iter().map(staged));
        let retired = said.retired.iter().map(|log| logs.path(log)).collect();
        for log in said.publications.iter().map(|publication| &publication.log).chain(&said.retired) {
            logs.forget(log);
        }
        drop(logs);
        retire(&*state.host, retired)?;
    }
    Ok(Outgoing::of(record.cut, outgoing, record.closing))
}

/// Removes Logs that are not needed any more.
fn retire(host: &dyn Host, logs: Vec<PathBuf>) -> Result<(), RunError> {
    if logs.is_empty() {
        return Ok(());
    }
    remove(host, logs.into_iter())?;
    failpoint::hit("logs-removed");
    Ok(())
}

/// When a run starts, before any Log is touched: redoes the effects of the last record, and finds the pieces of the state
/// and what is still to be published.
pub(crate) fn recover(dir: &RegionDir, committed: &Committed) -> Result<(Arc<Pieces>, Publisher), RunError> {
    let record = &committed.last;
    dir.check_marks(record.cut)?;
    let publisher = Publisher::open(dir, committed)?;
    failpoint::cut(record);
    for (name, said) in &record.stages {
        retire(&*dir.state.host, said.retired.iter().map(dir.state.log_paths(name)).collect())?;
    }
    failpoint::hit("effects-redone");
    let pieces = Pieces::open(dir.state.host.clone(), dir.root.clone(), record.pieces, record.cut)?;
    failpoint::hit("pieces-found");
    Ok((pieces, publisher))
}
