//! Caps on dead letters. A stage that makes more than the topology allows is paused, before everything that comes is put aside: its input waits, and
//! what waits is not lost. It goes on when the process is started again, with the mistake mended or the cap raised, and when a stop is asked for.

use std::sync::{Mutex, MutexGuard};

use tidemill_core::Tally;
use tidemill_topology::DeadLetterCaps;
use tokio::sync::Notify;

/// A share is judged over so many records at least.
const SHARE_OF: u64 = 10_000;

/// Those of one stage.
pub(crate) struct Caps {
    most: DeadLetterCaps,
    state: Mutex<State>,
    lifted: Notify,
}

#[derive(Default)]
struct State {
    in_a_row: u64,
    received: u64,
    dead: u64,
    is_paused: bool,
    is_lifted: bool,
}

impl Caps {
    pub(crate) fn new(most: DeadLetterCaps) -> Self {
        Self { most, state: Mutex::default(), lifted: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it counts dead letters")
    }

    /// Counts what became of an item; says why when the stage is paused for it. What is in a row is told by whole items.
    pub(crate) fn count(&self, tally: &Tally) -> Option<String> {
        let mut state = self.lock();
        if tally.received == 0 || state.is_paused || state.is_lifted {
            return None;
        }
        state.in_a_row = if tally.dead == tally.received { state.in_a_row + tally.dead } else { tally.dead };
        (state.received, state.dead) = (state.received + tally.received, state.dead + tally.dead);
        let why = match self.most {
            DeadLetterCaps { in_a_row: Some(most), .. } if state.in_a_row > most => {
                Some(format!("{} records in a row became dead letters (`max_dead_in_a_row` = {most})", state.in_a_row))
            }
            DeadLetterCaps { percent: Some(most), .. }
                if state.received >= SHARE_OF && state.dead * 100 > state.received * most =>
            {
                let State { received, dead, .. } = *state;
                Some(format!("{dead} of {received} records became dead letters (`max_dead_percent` = {most})"))
            }
            _ => None,
        };
        if state.received >= SHARE_OF {
            (state.received, state.dead) = (0, 0);
        }
        state.is_paused = why.is_some();
        why
    }

    /// Waits while the stage is paused.
    pub(crate) async fn let_pass(&self) {
        loop {
            let lifted = self.lifted.notified();
            tokio::pin!(lifted);
            lifted.as_mut().enable();
            if !self.lock().is_paused {
                return;
            }
            lifted.await;
        }
    }

    /// Nothing is paused any more: what is on its way comes to its end.
    pub(crate) fn lift(&self) {
        let mut state = self.lock();
        (state.is_paused, state.is_lifted) = (false, true);
        drop(state);
        self.lifted.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, dead: u64) -> Tally {
        Tally { received: sent + dead, sent, dead, ..Tally::default() }
    }

    #[test]
    fn dead_letters_in_a_row_pause_it_and_one_good_record_begins_the_count_anew() {
        let caps = Caps::new(DeadLetterCaps { in_a_row: Some(100), percent: None });
        assert!(caps.count(&tally(0, 100)).is_none() && caps.count(&tally(1, 50)).is_none());
        assert!(caps.count(&tally(0, 50)).is_none(), "100 in a row are allowed");
        assert!(caps.count(&tally(0, 1)).is_some_and(|why| why.contains("101 records in a row")));
        assert!(caps.count(&tally(0, 1)).is_none(), "it is paused already");
    }

    #[test]
    fn a_share_is_judged_over_enough_records_and_each_time_anew() {
        let caps = Caps::new(DeadLetterCaps { in_a_row: None, percent: Some(10) });
        assert!(caps.count(&tally(0, 9_999)).is_none(), "too few to judge");
        assert!(caps.count(&tally(90_001, 0)).is_none(), "10 % are allowed");
        assert!(caps.count(&tally(8_999, 1_001)).is_some_and(|why| why.contains("1001 of 10000")));
    }

    #[tokio::test]
    async fn what_is_paused_goes_on_when_it_is_lifted_and_is_not_paused_again() {
        let caps = Caps::new(DeadLetterCaps { in_a_row: Some(1), percent: None });
        assert!(caps.count(&tally(0, 2)).is_some());
        let passes = async { caps.let_pass().await };
        let lifts = async { caps.lift() };
        tokio::join!(passes, lifts);
        assert!(caps.count(&tally(0, 2)).is_none());
    }
}
