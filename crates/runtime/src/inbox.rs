//! The Inbox: where batches wait, outside the actors, so that a dying actor loses nothing.
//!
//! An Inbox has a lane for each edge that leads to its stage. A lane is first in, first out, and bounded in bytes; a sender
//! reserves room before it pushes. Barriers need no room. When a barrier heads a lane, the lane is parked until the same barrier heads every
//! lane; then it becomes one item. Items get their number in the order in which they are taken from the lanes, and keep it.
//!
//! A worker *leases* an item. A lease ends when the item's effects have been handed on; if the worker fails first,
//! the item goes back to the front. For a stateful stage the items since the last committed cut are kept, to be replayed into
//! a new worker that starts from that cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tidemill_core::{CutId, Seals, Tally};
use tokio::sync::Notify;

use crate::item::{Item, Numbered};

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Something may be leased now.
    ready: Notify,
    /// A lane may have room now.
    room: Notify,
    lane_bytes_max: usize,
    leases_max: usize,
    keeps_replay: bool,
}

struct State {
    lanes: Vec<Lane>,
    next_lane: usize,
    next_number: u64,
    /// Items to be leased before anything in the lanes, in order: reclaimed leases and replays.
    front: VecDeque<Numbered>,
    leased: BTreeMap<u64, Numbered>,
    /// Items whose effects were handed on after the last committed cut, in order.
    replay: VecDeque<Numbered>,
    /// A worker is being restored: nothing may be leased.
    restoring: bool,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Item>,
    bytes: usize,
    /// Number of the last item taken in from this lane's sender; older ones are repeats.
    last_number: Option<u64>,
}

/// Fill of an Inbox, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fill {
    pub(crate) items: usize,
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) replay_items: usize,
}

impl Inbox {
    pub(crate) fn new(lanes: usize, lane_bytes_max: usize, workers: usize, keeps_replay: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                lanes: (0..lanes).map(|_| Lane::default()).collect(),
                next_lane: 0,
                next_number: 0,
                front: VecDeque::new(),
                leased: BTreeMap::new(),
                replay: VecDeque::new(),
                restoring: false,
            }),
            ready: Notify::new(),
            room: Notify::new(),
            lane_bytes_max,
            // Results wait for earlier ones, so a slow item may be overtaken by a few others, not by any number.
            leases_max: if keeps_replay { 1 } else { workers * 4 },
            keeps_replay,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds an inbox")
    }

    /// Waits until `lane` has room for `bytes`, and takes it. An item larger than the lane passes when the lane is empty.
    pub(crate) async fn reserve(&self, lane: usize, bytes: usize) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.lock();
                let lane = &mut state.lanes[lane];
                if lane.bytes == 0 || lane.bytes + bytes <= self.lane_bytes_max {
                    lane.bytes += bytes;
                    return;
                }
            }
            room.await;
        }
    }

    /// Hands an item over; its room was reserved. `number` is the sender's number for it: repeats are dropped.
    pub(crate) fn push(&self, lane: usize, number: u64, item: Item) {
        let mut state = self.lock();
        let lane = &mut state.lanes[lane];
        if lane.last_number.is_some_and(|last| number <= last) {
            lane.bytes -= item.weight_bytes();
            self.room.notify_waiters();
            return;
        }
        lane.last_number = Some(number);
        lane.queue.push_back(item);
        drop(state);
        self.ready.notify_waiters();
    }

    /// Waits for the next item and leases it.
    pub(crate) async fn lease(&self) -> Numbered {
        loop {
            let ready = self.ready.notified();
            tokio::pin!(ready);
            ready.as_mut().enable();
            if let Some(item) = self.try_lease() {
                return item;
            }
            ready.await;
        }
    }

    fn try_lease(&self) -> Option<Numbered> {
        let mut state = self.lock();
        if state.restoring || state.leased.len() >= self.leases_max {
            return None;
        }
        let item = match state.front.pop_front() {
            Some(item) => item,
            None => {
                let (item, freed) = state.take_from_lanes()?;
                if freed > 0 {
                    self.room.notify_waiters();
                }
                let number = state.next_number;
                state.next_number += 1;
                Numbered { number, item, outcome: None }
            }
        };
        state.leased.insert(item.number, item.clone());
        Some(item)
    }

    /// Ends a lease: the item's effects have been handed on.
    pub(crate) fn complete(&self, number: u64, outcome: Tally) {
        let mut state = self.lock();
        let item = state.leased.remove(&number);
        if let (true, Some(item)) = (self.keeps_replay, item) {
            state.replay.push_back(Numbered { outcome: Some(outcome), item: item.item.absolved(), ..item });
        }
        drop(state);
        self.ready.notify_waiters();
    }

    /// An item that is leased.
    pub(crate) fn leased(&self, number: u64) -> Option<Numbered> {
        self.lock().leased.get(&number).cloned()
    }

    /// Puts a leased item, or what has become of it, back to the front.
    pub(crate) fn give_back(&self, item: Numbered) {
        let mut state = self.lock();
        state.leased.remove(&item.number);
        let at = state.front.iter().position(|other| other.number > item.number).unwrap_or(state.front.len());
        state.front.insert(at, item);
        drop(state);
        self.ready.notify_waiters();
    }

    /// Lets nothing be leased until [`Inbox::replay`].
    pub(crate) fn hold(&self) {
        self.lock().restoring = true;
    }

    /// Puts everything behind the barrier of `cut`, which the stage was restored from, back to the front and lets leasing
    /// go on.
    pub(crate) fn replay(&self, cut: CutId) -> usize {
        self.committed(cut);
        let mut state = self.lock();
        let replayed = state.replay.len();
        while let Some(item) = state.replay.pop_back() {
            state.front.push_front(item);
        }
        state.restoring = false;
        drop(state);
        self.ready.notify_waiters();
        replayed
    }

    /// A cut is committed: what lies before its barrier will not be replayed.
    pub(crate) fn committed(&self, cut: CutId) {
        let mut state = self.lock();
        if let Some(at) = state.replay.iter().position(|item| item.item.cut() == Some(cut)) {
            state.replay.drain(..=at);
        }
    }

    pub(crate) fn fill(&self) -> Fill {
        let state = self.lock();
        let waiting = state.lanes.iter().flat_map(|lane| &lane.queue);
        let waiting = waiting.chain(state.front.iter().map(|numbered| &numbered.item));
        let (items, events) = waiting.fold((0, 0), |(items, events), item| (items + 1, events + item.events()));
        Fill { items, events, bytes: state.lanes.iter().map(|lane| lane.bytes).sum(), replay_items: state.replay.len() }
    }
}

impl State {
    /// The next item of the lanes that are not parked, round robin, and the bytes that it frees.
    fn take_from_lanes(&mut self) -> Option<(Item, usize)> {
        let lanes = self.lanes.len();
        for offset in 0..lanes {
            let index = (self.next_lane + offset) % lanes;
            let lane = &mut self.lanes[index];
            if matches!(lane.queue.front(), Some(Item::Data(_))) {
                let item = lane.queue.pop_front()?;
                let bytes = item.weight_bytes();
                lane.bytes -= bytes;
                self.next_lane = (index + 1) % lanes;
                return Some((item, bytes));
            }
        }
        self.lanes.iter().all(|lane| lane.queue.front().is_some()).then(|| self.align())
    }

    /// Every lane is headed by the barrier of the same cut: one item with the positions that all of them bring.
    fn align(&mut self) -> (Item, usize) {
        let mut merged: Option<Seals> = None;
        for lane in &mut self.lanes {
            let Some(Item::Barrier(seals)) = lane.queue.pop_front() else { continue };
            match &mut merged {
                None => merged = Some((*seals).clone()),
                Some(merged) => {
                    debug_assert_eq!(merged.cut, seals.cut, "one cut is in flight at a time");
                    merged.merge_positions(&seals);
                }
            }
        }
        let seals = merged.expect("a stage has at least one lane");
        (Item::Barrier(Arc::new(seals)), 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn data() -> Item {
        Item::Data(Arc::new([]))
    }

    fn barrier(cut: CutId, source: &str) -> Item {
        let positions = BTreeMap::from([(source.into(), Arc::default())]);
        Item::Barrier(Arc::new(Seals { cut, positions, ..tidemill_testkit::seals() }))
    }

    #[test]
    fn a_barrier_passes_only_when_it_heads_every_lane_and_brings_all_positions() {
        let inbox = Inbox::new(2, 100, 1, false);
        inbox.push(0, 1, barrier(7, "a"));
        inbox.push(0, 2, data());
        assert!(inbox.try_lease().is_none(), "lane 0 is parked");
        inbox.push(1, 1, data());
        assert!(matches!(inbox.try_lease().unwrap().item, Item::Data(_)), "lane 1 goes on");
        inbox.push(1, 2, barrier(7, "b"));
        let Item::Barrier(seals) = inbox.try_lease().unwrap().item else { panic!("the barrier is next") };
        assert_eq!(seals.positions.len(), 2);
        assert!(matches!(inbox.try_lease().unwrap().item, Item::Data(_)), "lane 0 goes on behind it");
    }

    #[test]
    fn an_item_that_was_pushed_before_is_dropped_when_it_comes_again() {
        let inbox = Inbox::new(1, 100, 1, false);
        inbox.push(0, 5, data());
        inbox.push(0, 5, data());
        inbox.push(0, 4, data());
        assert_eq!(inbox.fill().items, 1);
    }

    #[test]
    fn a_lease_that_is_given_back_comes_before_all_later_items() {
        let inbox = Inbox::new(1, 100, 2, false);
        for number in 0..3 {
            inbox.push(0, number, data());
        }
        let first = inbox.try_lease().unwrap();
        let second = inbox.try_lease().unwrap();
        inbox.give_back(second);
        inbox.give_back(first);
        let numbers: Vec<u64> = std::iter::from_fn(|| inbox.try_lease()).map(|item| item.number).collect();
        assert_eq!(numbers, [0, 1, 2]);
    }

    #[test]
    fn replay_repeats_exactly_what_came_after_the_committed_barrier() {
        let inbox = Inbox::new(1, 100, 1, true);
        inbox.push(0, 0, data());
        inbox.push(0, 1, barrier(1, "a"));
        inbox.push(0, 2, data());
        inbox.push(0, 3, data());
        for _ in 0..3 {
            let item = inbox.try_lease().unwrap();
            inbox.complete(item.number, Tally::default());
        }
        inbox.hold();
        assert!(inbox.try_lease().is_none());
        assert_eq!(inbox.replay(1), 1, "although nobody said before that the cut is committed");
        let numbers: Vec<u64> = (0..2)
            .map(|_| {
                let number = inbox.try_lease().unwrap().number;
                inbox.complete(number, Tally::default());
                number
            })
            .collect();
        assert_eq!(numbers, [2, 3]);
    }
}
