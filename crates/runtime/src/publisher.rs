//! Works off the outbox of a region: what cuts have put there becomes files for readers, batch by batch, in the order
//! of cuts. Cuts go on meanwhile.
//!
//! A batch is published when a mark says so, which is set behind its last directory. A process that dies before that
//! leaves it to the next one, which publishes it again; that changes nothing that is there.

use std::path::PathBuf;
use std::sync::Arc;

use tidemill_core::{CutId, Publication};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::coordinator::{Fatal, Published};
use crate::error::RunError;
use crate::failpoint;
use crate::ledger::Committed;
use crate::mark::Mark;
use crate::publish::Publishing;
use crate::region::{Alarm, Region};
use crate::state_dir::RegionDir;
use crate::task;

/// So many batches may wait. Hours stay open beyond that; it bounds what a start has to do again.
pub(crate) const BATCHES_MAX: usize = 4;

/// What one cut publishes.
pub(crate) struct Outgoing {
    cut: CutId,
    files: Publishing,
    /// The cut ends the input.
    closing: bool,
}

impl Outgoing {
    /// `staged`: where each Log lies, and what becomes of it.
    pub(crate) fn of(cut: CutId, staged: Vec<(PathBuf, Publication)>, closing: bool) -> Self {
        Self { cut, files: Publishing::of(staged), closing }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// See the module.
pub(crate) struct Publisher {
    dir: RegionDir,
    marked: CutId,
    /// What the process before has left.
    left: Vec<Outgoing>,
}

impl Publisher {
    pub(crate) fn open(dir: &RegionDir, committed: &Committed) -> Result<Self, RunError> {
        let host = &*dir.state.host;
        let marked = Mark::Published.find(host, &dir.root)?;
        Mark::Published.remove_older(host, &dir.root, marked)?;
        let left = committed.outbox.iter().map(|(cut, batch)| {
            let mut staged = Vec::new();
            for (stage, publications) in &batch.publications {
                let path = dir.state.log_paths(stage);
                staged.extend(publications.iter().map(|publication| (path(&publication.log), publication.clone())));
            }
            Outgoing::of(*cut, staged, committed.last.closing)
        });
        Ok(Self { dir: dir.clone(), marked, left: left.collect() })
    }

    /// Publishes a batch, and marks it. May be called again after an error.
    fn publish(&mut self, batch: &mut Outgoing) -> Result<(), RunError> {
        batch.files.go_on(&self.dir.state)?;
        self.dir.set_mark(Mark::Published, self.marked, batch.cut)?;
        self.marked = batch.cut;
        failpoint::hit("publication-marked");
        // Readers may remove what is published: a start after a loss of power does not look for it.
        self.dir.state.host.sync(&self.dir.root).map_err(RunError::io("sync", &self.dir.root))
    }

    /// Starts it, with what is left. It ends when the sender is dropped, after what was sent; or with its region, after
    /// the batch in hand.
    pub(crate) fn start(mut self, region: Arc<Region>) -> (UnboundedSender<Outgoing>, oneshot::Receiver<()>) {
        let (sender, batches) = unbounded_channel();
        self.left.drain(..).for_each(|batch| drop(sender.send(batch)));
        let host = region.config.host.clone();
        (sender, task::start(&*host, "publisher", self.run(region, batches)))
    }

    async fn run(mut self, region: Arc<Region>, mut batches: UnboundedReceiver<Outgoing>) {
        let _alarm = Alarm { region: region.clone(), whose: "publisher" };
        while let Some(mut batch) = batches.recv().await {
            failpoint::publication(batch.closing);
            failpoint::at("publication-begins").await;
            if region.has_ended() {
                return;
            }
            let waits = "sealed hours wait to be published";
            if let Err(error) = task::waiting_for_room(&region, waits, || self.publish(&mut batch)).await {
                return region.coordinator().do_send(Fatal(error));
            }
            failpoint::at("published").await;
            region.committed().published(batch.cut);
            region.coordinator().do_send(Published);
        }
    }
}

/// What of a region's outbox is not published yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpublished {
    pub(crate) batches: usize,
    pub(crate) files: usize,
    /// When the barrier of the first of them began, in milliseconds since 1970.
    pub(crate) since_ms: Option<i64>,
}

impl Region {
    /// What waits for its publisher, or is in its hands.
    pub(crate) fn unpublished(&self) -> Unpublished {
        let mut unpublished = Unpublished::default();
        for batch in self.committed().outbox.values() {
            unpublished.batches += 1;
            unpublished.files += batch.files();
            unpublished.since_ms.get_or_insert(batch.at_ms);
        }
        unpublished
    }

    /// Whether all is published that a committed cut and those before it have sealed.
    pub(crate) fn is_published(&self, cut: CutId) -> bool {
        self.committed().outbox.range(..=cut).next().is_none()
    }
}
