//! Where a source is, as its region sees it, and what a barrier says of that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidemill_core::{Moved, SourceError};
use tidemill_topology::REPLAY;
use tokio::time::Instant;

use super::{Order, Reading};
use crate::coordinator::SourceAck;
use crate::intake::{Intake, Place, Still};

/// How often a source is asked which of its partitions give nothing: it may have to look at all of them.
const STILL_EVERY: Duration = Duration::from_millis(100);

impl Reading {
    /// Takes over the source's positions, which now are behind what was handed on, and shows them.
    pub(super) fn publish(&mut self, intake: &mut Intake, ended: bool) -> Result<(), SourceError> {
        let place = intake.place()?;
        let still = self.still(intake)?;
        self.show(place, still, ended);
        Ok(())
    }

    /// Partitions that give nothing, when it is time to ask.
    pub(super) fn still(&mut self, intake: &Intake) -> Result<Option<Still>, SourceError> {
        if self.asked.is_some_and(|asked| asked.elapsed() < STILL_EVERY) {
            return Ok(None);
        }
        self.asked = Some(Instant::now());
        intake.still().map(Some)
    }

    pub(super) fn show(&mut self, place: Place, still: Option<Still>, ended: bool) {
        let source = self.source.clone();
        let mut state = source.state();
        self.moved.extend(place.moved.positions.keys().chain(&place.moved.gone).cloned());
        // What was proven of others says nothing of one that is new.
        state.gives(place.moved.positions.keys());
        state.moves(place.moved);
        (state.heard, state.ended) = (place.heard, ended);
        let Some(Still { idle, silent }) = still else { return };
        (state.idle, state.silent) = (idle, silent);
        let stuck = state.positions.as_ref().map(|positions| self.stuck.of(positions, Instant::now()));
        // What comes through a pond has been waited for.
        if let (None, Some(positions), true) = (&source.pond, &state.positions, self.barren.is_due(Instant::now())) {
            let progress = self.region.progress();
            let seen = progress.seen.get(&self.region.node(source.node).name);
            let newest = |partition: &str| {
                let reached = seen.and_then(|seen| seen.get(partition))?;
                // One far ahead stays the last one, however many follow it.
                reached.newest.or(reached.beyond)
            };
            self.barren.look(positions, newest, Instant::now());
        }
        let barren = self.barren.found().iter().map(|(partition, silence)| (partition.clone(), *silence));
        for (partition, silence) in stuck.into_iter().flatten().chain(barren) {
            let known = state.silent.entry(partition).or_default();
            *known = silence.max(*known);
        }
        let state = &mut *state;
        if let Some(positions) = &state.positions {
            self.silent_before.end(positions, &state.idle, &state.silent, self.has_answered);
        }
        self.silent_before.add(&mut state.silent);
        state.fails_for = self.silent_before.whole();
    }

    pub(super) fn barrier(&mut self, order: &Order) {
        let positions = self.source.state().positions.clone().unwrap_or_else(|| self.positions.clone());
        let mut seals = (*order.seals).clone();
        match &self.source.pond {
            // Where nothing was ever replayed, nobody needs to be told so.
            None if positions.is_empty() && *self.name() == *REPLAY => {}
            None => drop(seals.positions.insert(self.name(), positions.clone())),
            Some(pond) => {
                let heard = self.source.state().heard.clone();
                seals.is_whole = heard.is_whole;
                seals.positions.extend(heard.positions.clone());
                if !heard.positions_of.is_empty() {
                    seals.positions_of.extend(heard.positions_of.iter().cloned());
                } else if self.region.has_several_ponds() {
                    let sends = self.region.node(self.source.node).sends.iter().map(|sent| sent.name.clone());
                    let types = sends.chain(pond.carries.iter().cloned()).collect();
                    seals.positions_of.push((types, Arc::new(heard.positions.clone())));
                }
            }
        }
        let mut moved = Moved::default();
        for name in std::mem::take(&mut self.moved) {
            match positions.get(&name) {
                Some(position) => drop(moved.positions.insert(name, position.clone())),
                None => drop(moved.gone.insert(name)),
            }
        }
        self.number += 1;
        self.source.outlet.send_barrier(self.number, &Arc::new(seals));
        self.region.coordinator().do_send(SourceAck {
            node: self.source.node,
            cut: order.seals.cut,
            moved,
            read_bytes: self.region.read_bytes.load(Ordering::Relaxed),
            progress: std::mem::take(&mut self.progress),
            books: std::mem::take(&mut self.books),
        });
    }
}
