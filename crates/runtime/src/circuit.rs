//! The restart budget of a stage, and what is done when it is spent: its circuit is open. Workers that fail are then replaced at a slow, even pace, as probes,
//! until one of them gets something done.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// So many failures within the window are met with pauses that grow.
const BUDGET: usize = 12;
const WINDOW: Duration = Duration::from_secs(60);
/// Pause before each probe.
pub(crate) const PROBE: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Default)]
pub(crate) struct Circuit {
    failures: VecDeque<Instant>,
    is_open: bool,
}

impl Circuit {
    /// A worker has failed by itself, not in a search for an event to blame. Says whether the circuit opens with it.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.failures.push_back(now);
        while self.failures.len() > BUDGET + 1 {
            self.failures.pop_front();
        }
        let is_spent = self.failures.len() > BUDGET && now.duration_since(self.failures[0]) <= WINDOW;
        let opens = is_spent && !self.is_open;
        self.is_open |= is_spent;
        opens
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// A worker that was started after a failure has got something done. Says whether the circuit closes with it.
    pub(crate) fn works(&mut self) -> bool {
        let closes = std::mem::take(&mut self.is_open);
        if closes {
            self.failures.clear();
        }
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_when_the_budget_is_spent_and_closes_when_a_probe_works() {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        for failure in 0..BUDGET as u32 {
            assert!(!circuit.failed(start + Duration::from_secs(1) * failure) && !circuit.is_open());
        }
        assert!(circuit.failed(start + Duration::from_secs(20)) && circuit.is_open());
        assert!(!circuit.failed(start + Duration::from_secs(35)), "it is open already");
        assert!(circuit.works() && !circuit.is_open());
        assert!(!circuit.failed(start + Duration::from_secs(36)), "the budget is whole again");
    }

    #[test]
    fn failures_that_are_far_apart_do_not_add_up() {
        let mut circuit = Circuit::default();
        let start = Instant::now();
        assert!((0..1_000).all(|failure| !circuit.failed(start + Duration::from_secs(6) * failure)));
    }
}
