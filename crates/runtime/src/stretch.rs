//! A source that is read once more, in the partitions and up to the positions of a [`Stretch`] and no further.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Moved, PartitionPosition, Polled, Source, SourceError, Stretch};

/// See the module. Whatever the source gives, nothing beyond the stretch comes out.
pub(crate) struct Stretched {
    source: Box<dyn Source>,
    /// Partitions that are not at the end of the stretch, with that end.
    left: BTreeMap<Arc<str>, u64>,
}

impl Stretched {
    /// `positions`: behind what was handed on, when the source is opened again.
    pub(crate) fn new(
        source: Box<dyn Source>,
        stretch: &Stretch,
        positions: &BTreeMap<Arc<str>, PartitionPosition>,
    ) -> Self {
        let mut left = stretch.until.clone();
        left.retain(|partition, until| positions.get(partition).map_or(0, |position| position.next) < *until);
        Self { source, left }
    }
}

impl Source for Stretched {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        if self.left.is_empty() {
            return Ok(Polled::Ended);
        }
        let chunk = match self.source.poll()? {
            Polled::Chunk(chunk) => chunk,
            other => return Ok(other),
        };
        let Some(until) = self.left.get(&chunk.origin.partition).copied() else {
            return Ok(Polled::Idle(Duration::ZERO));
        };
        if chunk.origin.next >= until {
            self.left.remove(&chunk.origin.partition);
        }
        Ok(chunk.before(until).map_or(Polled::Idle(Duration::ZERO), Polled::Chunk))
    }

    fn moved(&mut self) -> Moved {
        self.source.moved()
    }

    fn waits_for(&self) -> Option<String> {
        self.source.waits_for()
    }
}
