//! The numbers of one producer.

use serde::{Deserialize, Serialize};

/// Numbers that came, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Range {
    first: u64,
    /// Behind the last one.
    next: u64,
    /// Event time of the first one, in milliseconds: the gap before it is of this hour.
    first_ms: i64,
    /// The gap before it was told as missing.
    is_told: bool,
}

/// What is known of the numbers of one producer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// In ascending order, not touching. One without numbers stands where a marker said that the numbers go on.
    ranges: Vec<Range>,
    /// Numbers of gaps that were given up before they were told, and the time of the last of these gaps.
    given_up: Option<(i64, u64)>,
}

/// What a number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Expected, or not told as missing yet.
    New,
    /// Told as missing before.
    Found,
    /// There already.
    Again,
}

impl Account {
    /// How many ranges there are.
    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Takes note of an event's number. Where that makes more than `ranges_max` ranges, the oldest gaps are given up.
    pub(super) fn see(&mut self, number: u64, at_ms: i64, ranges_max: usize) -> Seen {
        let seen = self.saw(number, at_ms);
        self.keep(ranges_max);
        seen
    }

    fn keep(&mut self, ranges_max: usize) {
        while self.ranges.len() > ranges_max.max(1) {
            self.give_up();
        }
    }

    fn saw(&mut self, number: u64, at_ms: i64) -> Seen {
        let next = number.saturating_add(1);
        // Mostly it is the last one, and ends where the number is.
        let at = match self.ranges.last() {
            Some(last) if last.next == number => self.ranges.len() - 1,
            _ => self.ranges.partition_point(|range| range.next < number),
        };
        let Some(range) = self.ranges.get_mut(at) else {
            self.ranges.insert(at, Range { first: number, next, first_ms: at_ms, is_told: false });
            return Seen::New;
        };
        // The gap that the number is in is the one before this range.
        let is_told = match range.next == number {
            true => {
                range.next = next;
                self.join(at)
            }
            false if number >= range.first => return Seen::Again,
            false => {
                let is_told = range.is_told;
                if next == range.first {
                    // What is missing before it keeps its hour: that of the event that showed it.
                    range.first = number;
                } else {
                    self.ranges.insert(at, Range { first: number, next, first_ms: at_ms, is_told });
                }
                is_told
            }
        };
        if is_told { Seen::Found } else { Seen::New }
    }

    /// A marker says that all numbers up to `last` were sent before `at_ms`. It may make a range, as an event does.
    pub(super) fn sent_up_to(&mut self, last: u64, at_ms: i64, ranges_max: usize) {
        let end = last.saturating_add(1);
        if self.ranges.last().is_some_and(|range| range.next < end) {
            let range = Range { first: end, next: end, first_ms: at_ms.saturating_sub(1), is_told: false };
            self.ranges.push(range);
            self.keep(ranges_max);
        }
    }

    /// A range has grown: it becomes one with the range behind it when they touch. Says whether the gap between them was told.
    fn join(&mut self, at: usize) -> bool {
        let Some(following) = self.ranges.get(at + 1).copied() else { return false };
        if self.ranges[at].next >= following.first {
            self.ranges[at].next = self.ranges[at].next.max(following.next);
            self.ranges.remove(at + 1);
        }
        following.is_told
    }

    /// Gives up the oldest gap: what comes of it counts as there already.
    fn give_up(&mut self) {
        let [first, second, ..] = self.ranges[..] else { return };
        if !second.is_told {
            let unknown = second.first - first.next + self.given_up.map_or(0, |(_, unknown)| unknown);
            self.given_up = Some((second.first_ms, unknown));
        }
        self.ranges[1] = Range { next: second.next, ..first };
        self.ranges.remove(0);
    }

    /// Numbers of gaps that were given up, before events of times before `before_ms`, with the time of the last; told once.
    pub(super) fn unknown(&mut self, before_ms: i64) -> Option<(i64, u64)> {
        self.given_up.take_if(|(at_ms, _)| *at_ms < before_ms)
    }

    /// Missing numbers of gaps before events of times before `before_ms`, that were not told yet, with that time; they are told by this.
    pub(super) fn tell(&mut self, before_ms: i64) -> Vec<(i64, u64)> {
        let mut told = Vec::new();
        let mut end = None;
        for range in &mut self.ranges {
            if let Some(end) = end.filter(|_| !range.is_told && range.first_ms < before_ms) {
                told.push((range.first_ms, range.first - end));
                range.is_told = true;
            }
            end = Some(range.next);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand_xoshiro::SplitMix64;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    use super::*;

    /// As many ranges as come up.
    const MANY: usize = 1_000;

    impl Account {
        /// The least and the greatest number that came.
        fn span(&self) -> Option<(u64, u64)> {
            let last = self.ranges.iter().rev().find(|range| range.first < range.next)?;
            Some((self.ranges.first()?.first, last.next - 1))
        }
    }

    #[test]
    fn a_gap_is_told_once_with_the_time_of_the_event_behind_it_and_what_fills_it_is_found() {
        let mut account = Account::default();
        for (number, at_ms) in [(10, 0), (11, 1), (15, 5), (16, 6), (20, 100)] {
            assert_eq!(account.see(number, at_ms, MANY), Seen::New);
        }
        assert_eq!(account.tell(5), []);
        assert_eq!(account.tell(6), [(5, 3)]);
        assert_eq!(account.tell(1_000), [(100, 3)]);
        assert_eq!(account.tell(1_000), []);
        assert_eq!([account.see(13, 3, MANY), account.see(12, 2, MANY), account.see(14, 4, MANY)], [Seen::Found; 3]);
        assert_eq!([account.see(13, 3, MANY), account.see(10, 0, MANY), account.see(20, 100, MANY)], [Seen::Again; 3]);
        assert_eq!(account.span(), Some((10, 20)));
    }

    #[test]
    fn a_marker_shows_what_is_missing_at_the_end() {
        let mut account = Account::default();
        account.sent_up_to(7, 50, MANY);
        assert_eq!(account, Account::default(), "of whom nothing came, nobody knows where it began");
        account.see(5, 10, MANY);
        account.sent_up_to(7, 50, MANY);
        assert_eq!(account.tell(50), [(49, 2)]);
        account.sent_up_to(7, 60, MANY);
        assert_eq!((account.see(6, 11, MANY), account.see(8, 70, MANY)), (Seen::Found, Seen::New));
        assert_eq!((account.tell(1_000), account.span()), (vec![], Some((5, 8))));
    }

    /// Against a set of numbers: what is told less what is found is what did not come.
    #[test]
    fn what_is_told_and_not_found_is_what_did_not_come_in_any_order() {
        for seed in 0..300 {
            let mut random = SplitMix64::seed_from_u64(seed);
            let mut below = |bound: u64| random.next_u64() % bound;
            let (mut account, mut came) = (Account::default(), BTreeSet::new());
            let (mut told, mut found) = (0, 0);
            for at in 0..400u64 {
                let number = 100 + at / 2 + below(8);
                if below(10) < 8 {
                    let seen = account.see(number, number as i64, MANY);
                    assert_eq!(seen == Seen::Again, !came.insert(number), "seed {seed}: {number}");
                    found += u64::from(seen == Seen::Found);
                }
                if below(20) == 0 {
                    told += account.tell(number as i64).iter().map(|(_, missing)| missing).sum::<u64>();
                }
            }
            told += account.tell(i64::MAX).iter().map(|(_, missing)| missing).sum::<u64>();
            let (first, last) = (*came.first().expect("some came"), *came.last().expect("some came"));
            assert_eq!(account.span(), Some((first, last)), "seed {seed}");
            assert_eq!(told - found, last - first + 1 - came.len() as u64, "seed {seed}: {account:?}");
        }
    }

    #[test]
    fn so_many_gaps_are_kept_and_of_older_ones_nothing_is_known() {
        let mut account = Account::default();
        for number in 0..1_000 {
            account.see(number * 2, 0, 64);
        }
        assert_eq!(account.ranges(), 64);
        account.sent_up_to(1_998, 0, 64);
        assert_eq!(account.see(1, 0, 64), Seen::Again, "given up");
        assert_eq!(account.see(1_997, 0, 64), Seen::New);
        assert_eq!((account.span(), account.unknown(0), account.unknown(1)), (Some((0, 1_998)), None, Some((0, 936))));
        assert_eq!(account.tell(1).iter().map(|(_, missing)| missing).sum::<u64>(), 62, "all but 1,997 of the others");
    }
}
