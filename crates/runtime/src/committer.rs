//! The thread that makes cuts durable. One order, always:
//!
//! 1. sync the Logs that the cut holds, and their directories;
//! 2. write and sync what changed of the stages' state;
//! 3. append the record to the ledger and sync it: this is the commit;
//! 4. only then its effects: show ponds to those who read them, publish files, remove retired Logs and segments of
//!    state that are not needed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{LogName, Publication};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::coordinator::{Committed as CommittedMessage, Fatal};
use crate::error::RunError;
use crate::failpoint;
use crate::host::Host;
use crate::ledger::{Committed, Ledger, Record};
use crate::logs::{Logs, path_in, sync_all};
use crate::pieces::{Changes, Pieces};
use crate::publish::{publish, remove};
use crate::region::{Alarm, NO_ROOM_MAX, Region};
use crate::state_dir::{RegionDir, StateDir};

/// A cut to commit.
pub(crate) struct Job {
    pub(crate) record: Record,
    pub(crate) pieces: BTreeMap<Arc<str>, Changes>,
    /// Bytes that sources had handed on at its barrier.
    pub(crate) read_bytes: u64,
}

/// Starts it, on a thread of its own if the host has any. It ends when the sender is dropped, after what was sent; then the receiver hears of it.
pub(crate) fn start(
    region: Arc<Region>,
    dir: RegionDir,
    ledger: Ledger,
) -> (UnboundedSender<Job>, oneshot::Receiver<()>) {
    let (sender, jobs) = unbounded_channel();
    let (over, is_over) = oneshot::channel();
    let has_threads = region.config.host.has_threads();
    let work = async move {
        run(region, dir, ledger, jobs).await;
        let _ = over.send(());
    };
    if has_threads {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("the system has room for another thread");
        let thread = std::thread::Builder::new().name("committer".into());
        thread.spawn(move || runtime.block_on(work)).expect("the system can start a thread");
    } else {
        actix_rt::spawn(work);
    }
    (sender, is_over)
}

async fn run(region: Arc<Region>, dir: RegionDir, mut ledger: Ledger, mut jobs: UnboundedReceiver<Job>) {
    let _alarm = Alarm { region: region.clone(), whose: "committer" };
    while let Some(job) = jobs.recv().await {
        let begin = Instant::now();
        let cut = job.record.cut;
        let read_bytes = job.read_bytes;
        if let Err(error) = commit(&region, &dir, &mut ledger, job).await {
            region.coordinator().do_send(Fatal(error));
            return;
        }
        region.coordinator().do_send(CommittedMessage { cut, read_bytes, took: begin.elapsed() });
    }
}

async fn commit(region: &Region, dir: &RegionDir, ledger: &mut Ledger, mut job: Job) -> Result<(), RunError> {
    failpoint::cut(&job.record);
    failpoint::at("cut-begins").await;
    let host = &*dir.state.host;
    let paths = dirty_paths(region, &job.record);
    sync_all(host, paths.iter().map(PathBuf::as_path))?;
    failpoint::at("logs-synced").await;
    leave_out_same(region, &mut job.pieces)?;
    region.committed().leave_out_known(&mut job.record);
    // What makes room needs room first: not where there is none.
    let mut makes_room = true;
    let write = || region.pieces.write(job.record.cut, &job.pieces, std::mem::take(&mut makes_room));
    let written = waiting_for_room(region, write).await?;
    job.record.pieces = Some(written.extent);
    failpoint::at("pieces-synced").await;
    waiting_for_room(region, || ledger.append(&job.record)).await?;
    failpoint::at("ledger-synced").await;
    waiting_for_room(region, || effects(region, &job.record, &dir.state)).await?;
    failpoint::at("effects-done").await;
    let was = region.committed().last.cut;
    waiting_for_room(region, || dir.mark_cut(was, job.record.cut)).await?;
    let mut committed = region.committed();
    let emptied = region.pieces.take_over(written);
    remove(host, emptied.into_iter())?;
    failpoint::hit("pieces-removed");
    committed.apply(job.record);
    if let Err(error) = ledger.rotate_if_large(&committed) {
        tracing::warn!(error = %error.chain(), "no new ledger file can be begun; going on with the old one");
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
fn dirty_paths(region: &Region, record: &Record) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for stage in &region.stages {
        let Some(said) = record.stages.get(&region.node(stage.node).name) else { continue };
        let logs = stage.logs();
        let written: Vec<PathBuf> = said.logs.iter().map(|(name, _)| logs.path(name)).collect();
        let dirs: BTreeSet<OsString> = written.iter().filter_map(|path| path.parent().map(OsString::from)).collect();
        paths.extend(written);
        paths.extend(dirs.into_iter().map(PathBuf::from));
    }
    paths
}

/// Repeats what failed for want of room. Inputs wait meanwhile, because no cut frees what is held for replay.
async fn waiting_for_room<T>(region: &Region, mut step: impl FnMut() -> Result<T, RunError>) -> Result<T, RunError> {
    let begin = Instant::now();
    let mut tries = 0u32;
    loop {
        match step() {
            Err(RunError::Io { action, path, source })
                if action != "sync"
                    && matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                if tries.is_multiple_of(20) {
                    tracing::error!(path = %path.display(), "no room for a cut; inputs wait and nothing is lost. Make room");
                }
                tries += 1;
                if region.config.until_end && begin.elapsed() > NO_ROOM_MAX {
                    return Err(RunError::Io { action, path, source });
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other,
        }
    }
}

/// Does the effects of a committed record. Doing them twice is the same as once.
fn effects(region: &Region, record: &Record, state: &StateDir) -> Result<(), RunError> {
    let logs_of = |name: &str| region.stages.iter().find(|stage| *region.node(stage.node).name == *name);
    for pond in &region.ponds_out {
        if let Some(said) = record.stages.get(&pond.name) {
            pond.written(said.logs.iter().map(|(log, length)| (log, *length)), &said.retired);
        }
    }
    for (name, said) in &record.stages {
        let Some(stage) = logs_of(name) else { continue };
        let mut logs = stage.logs();
        let (staged, retired) = places(&logs, &said.publications, &said.retired);
        for log in said.publications.iter().map(|publication| &publication.log).chain(&said.retired) {
            logs.forget(log);
        }
        drop(logs);
        publish(state, &staged)?;
        retire(&*state.host, retired)?;
    }
    Ok(())
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

fn places<'a>(
    logs: &Logs,
    publications: &'a [Publication],
    retired: &[LogName],
) -> (Vec<(PathBuf, &'a Publication)>, Vec<PathBuf>) {
    let staged = publications.iter().map(|publication| (logs.path(&publication.log), publication)).collect();
    (staged, retired.iter().map(|log| logs.path(log)).collect())
}

/// Redoes the effects of the last record when a run starts, before any Log is touched, and finds the pieces of the
/// state.
pub(crate) fn recover(dir: &RegionDir, committed: &Committed) -> Result<Arc<Pieces>, RunError> {
    let record = &committed.last;
    failpoint::cut(record);
    for (name, said) in &record.stages {
        let (state_logs, output_logs) = dir.state.stage_logs(name);
        let path = |log: &LogName| path_in(&state_logs, &output_logs, log);
        let staged: Vec<_> =
            said.publications.iter().map(|publication| (path(&publication.log), publication)).collect();
        publish(&dir.state, &staged)?;
        retire(&*dir.state.host, said.retired.iter().map(path).collect())?;
    }
    failpoint::hit("effects-redone");
    dir.check_mark(record.cut)?;
    let pieces = Pieces::open(dir.state.host.clone(), dir.root.clone(), record.pieces, record.cut)?;
    failpoint::hit("pieces-found");
    Ok(pieces)
}
