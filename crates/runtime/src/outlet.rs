//! The Outlet: hands on what a stage's calls have brought about, in the order in which their items were leased.
//!
//! A pool of workers is one sender: whoever finishes an item leaves its result here, and one of them releases the results in order.
//! So a barrier stays where it was among the items, and what is behind sees the order that was in front.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tidemill_core::{Batch, Input, Seals};
use tidemill_topology::Port;

use crate::inbox::Inbox;
use crate::item::{Item, Part};

/// Where a stage's results go.
pub(crate) struct Outlet<T> {
    pub(crate) targets: Vec<Target>,
    order: Mutex<Order<T>>,
}

/// One edge.
pub(crate) struct Target {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) lane: usize,
    pub(crate) port: Port,
    pub(crate) types: Option<Vec<Arc<str>>>,
    /// The node that it leads to.
    pub(crate) node: Arc<str>,
    /// That node and all that are behind it.
    pub(crate) leads_to: Arc<BTreeSet<Arc<str>>>,
}

impl Target {
    /// Whether events of a batch go this way.
    fn takes(&self, batch: &Batch) -> bool {
        self.passes(&batch.event_type.name)
            && batch.origin.enters.as_ref().is_none_or(|stage| self.leads_to.contains(stage))
    }

    fn passes(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|known| **known == *event_type))
    }
}

struct Order<T> {
    next: u64,
    done: BTreeMap<u64, T>,
    releasing: bool,
}

impl<T> Outlet<T> {
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        Self { targets, order: Mutex::new(Order { next: 0, done: BTreeMap::new(), releasing: false }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Order<T>> {
        self.order.lock().expect("no code panics while it holds an outlet")
    }

    /// Whether an item's result was handed on before: it is being replayed.
    pub(crate) fn is_repeat(&self, number: u64) -> bool {
        number < self.lock().next
    }

    /// How many results were handed on.
    pub(crate) fn released(&self) -> u64 {
        self.lock().next
    }

    /// Leaves a result. `true` means that the caller has to release: take results until there is none.
    pub(crate) fn leave(&self, number: u64, result: T) -> bool {
        let mut order = self.lock();
        order.done.insert(number, result);
        !std::mem::replace(&mut order.releasing, true)
    }

    /// The next result in order, for the caller that releases; `None` ends its turn.
    pub(crate) fn next(&self) -> Option<(u64, T)> {
        let mut order = self.lock();
        let number = order.next;
        let result = order.done.remove(&number);
        match result {
            Some(result) => {
                order.next += 1;
                Some((number, result))
            }
            None => {
                order.releasing = false;
                None
            }
        }
    }

    /// Sends inputs to every edge that takes them: first room is reserved everywhere, then they are pushed, so that they
    /// are handed over whole or not at all.
    pub(crate) async fn send(&self, number: u64, data: Vec<Part>, dead: Option<Batch>) {
        let mut pushes = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let parts: Arc<[Part]> = match target.port {
                Port::Data => data
                    .iter()
                    .filter(|part| match part.input() {
                        Input::Raw(_) => true,
                        Input::Rows(batch) => target.takes(batch),
                        Input::Note(note) => target.passes(&note.event_type),
                    })
                    .cloned()
                    .collect(),
                Port::DeadLetters => dead.iter().map(|batch| Part::Live(Input::Rows(batch.clone()))).collect(),
            };
            if !parts.is_empty() {
                let item = Item::Data(parts);
                target.inbox.reserve(target.lane, item.weight_bytes()).await;
                pushes.push((target, item));
            }
        }
        for (target, item) in pushes {
            target.inbox.push(target.lane, number * 2, item);
        }
    }

    /// Sends a part to one node.
    pub(crate) async fn send_to(&self, number: u64, node: &str, part: Part) {
        let item = Item::Data([part].into());
        if let Some(target) = self.targets.iter().find(|target| *target.node == *node) {
            target.inbox.reserve(target.lane, item.weight_bytes()).await;
            target.inbox.push(target.lane, number * 2, item);
        }
    }

    /// Sends a barrier over every edge, behind what its own call has sent. It needs no room.
    pub(crate) fn send_barrier(&self, number: u64, seals: &Arc<Seals>) {
        for target in &self.targets {
            target.inbox.push(target.lane, number * 2 + 1, Item::Barrier(seals.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_barrier_makes_a_stage_send_arrives_before_the_barrier() {
        let inbox = Inbox::new(1, 1 << 20, 1, false);
        let outlet: Outlet<()> = Outlet::new(vec![Target {
            inbox: inbox.clone(),
            lane: 0,
            port: Port::Data,
            types: None,
            node: "a".into(),
            leads_to: Arc::default(),
        }]);
        let note = tidemill_core::HourNote::on("a".into(), tidemill_core::Hour { start_ms: 0, width_ms: 1 });
        outlet.send(7, vec![Part::Live(Input::Note(note))], None).await;
        outlet.send_barrier(7, &Arc::new(tidemill_testkit::seals()));
        assert!(matches!(inbox.lease().await.item, Item::Data(_)));
        inbox.complete(0, tidemill_core::Tally::default());
        assert!(matches!(inbox.lease().await.item, Item::Barrier(_)));
    }

    #[tokio::test]
    async fn replayed_letters_go_only_where_they_were_refused() {
        let target = |node: &str| Target {
            inbox: Inbox::new(1, 1 << 20, 1, false),
            lane: 0,
            port: Port::Data,
            types: None,
            node: node.into(),
            leads_to: Arc::new(BTreeSet::from([node.into(), "far".into()])),
        };
        let outlet: Outlet<()> =
            Outlet::new(vec![target("near"), target("far"), Target { leads_to: Arc::default(), ..target("beside") }]);
        let origin = |enters| tidemill_core::Origin { enters, ..tidemill_testkit::origin(0, 1) };
        let letter = tidemill_core::DeadLetter {
            origin: Arc::new(origin(None)),
            position: 0,
            event_type: None,
            reason: tidemill_core::Reason::Refused,
            message: String::new(),
            payload: b"x".to_vec(),
            length: 1,
            arrived_at_ms: 0,
            parsed: None,
        };
        let mut batch = tidemill_core::dead_letter_batch("far", &[letter], 10).expect("a batch");
        for (number, enters, reached) in
            [(1, None, [1, 1, 1]), (2, Some("far".into()), [2, 2, 1]), (3, Some("near".into()), [3, 2, 1])]
        {
            batch.origin = Arc::new(origin(enters));
            outlet.send(number, vec![Part::Live(Input::Rows(batch.clone()))], None).await;
            let items: Vec<usize> = outlet.targets.iter().map(|target| target.inbox.fill().items).collect();
            assert_eq!(items, reached, "{number}");
        }
    }

    #[test]
    fn results_are_released_in_the_order_of_their_numbers_by_one_worker_at_a_time() {
        let outlet: Outlet<char> = Outlet::new(Vec::new());
        assert!(outlet.leave(1, 'b'), "the first to come releases");
        assert!(outlet.next().is_none(), "but number 0 is not there yet");
        assert!(outlet.leave(0, 'a'));
        assert_eq!(outlet.next(), Some((0, 'a')));
        assert!(!outlet.leave(2, 'c'), "somebody is releasing");
        assert_eq!(outlet.next(), Some((1, 'b')));
        assert_eq!(outlet.next(), Some((2, 'c')));
        assert_eq!(outlet.next(), None);
        assert!(outlet.is_repeat(2) && !outlet.is_repeat(3));
    }
}
