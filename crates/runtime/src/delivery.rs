//! How long events take from their arrival to the cut that has them in a sink.

use serde::{Deserialize, Serialize};

/// Upper bounds of what is counted, in milliseconds. From one to the next it is at most twice as much up to two seconds, around the interval of cuts.
const BOUNDS_MS: [u64; 17] = [
    50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
];

/// Events of a sink by the time that they took, since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryStatus {
    /// All of them.
    pub events: u64,
    /// The sum of their times, in milliseconds.
    pub total_ms: u64,
    /// A bound in milliseconds, and how many took as long at most.
    pub within: Vec<(u64, u64)>,
}

impl DeliveryStatus {
    /// Counts events that took so long.
    pub(crate) fn add(&mut self, took_ms: u64, events: u64) {
        if self.within.is_empty() {
            self.within = BOUNDS_MS.iter().map(|bound_ms| (*bound_ms, 0)).collect();
        }
        self.events += events;
        self.total_ms = self.total_ms.saturating_add(took_ms.saturating_mul(events));
        for (_, within) in self.within.iter_mut().filter(|(bound_ms, _)| took_ms <= *bound_ms) {
            *within += events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_within_all_bounds_that_they_meet() {
        let mut delivery = DeliveryStatus::default();
        delivery.add(700, 2);
        delivery.add(50, 1);
        delivery.add(u64::MAX, 1);
        let within = |bound: u64| delivery.within.iter().find(|(is, _)| *is == bound).map(|(_, events)| *events);
        assert_eq!((within(50), within(500), within(750), within(3_600_000)), (Some(1), Some(1), Some(3), Some(3)));
        assert_eq!(delivery.events, 4);
    }
}
