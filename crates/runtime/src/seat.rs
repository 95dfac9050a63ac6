//! Where an actor runs: on a thread of its own, or with all others on the one that started the topology.

use actix::{Arbiter, ArbiterHandle};

use crate::host::Host;
use crate::niceness;

/// See the module.
pub(crate) enum Seat {
    Own(Arbiter),
    Shared,
}

impl Seat {
    /// `gives_way`: by how many steps of niceness a thread of its own gives way to others.
    pub(crate) fn take(host: &dyn Host, gives_way: i32) -> Self {
        if !host.has_threads() {
            return Self::Shared;
        }
        let arbiter = Arbiter::new();
        if gives_way > 0 {
            arbiter.spawn_fn(move || {
                if let Err(error) = niceness::lower(gives_way) {
                    tracing::warn!(%error, gives_way, "the priority of a thread can't be lowered: all regions have the same share of the processors");
                }
            });
        }
        Self::Own(arbiter)
    }

    pub(crate) fn handle(&self) -> ArbiterHandle {
        match self {
            Self::Own(arbiter) => arbiter.handle(),
            Self::Shared => Arbiter::current(),
        }
    }

    /// Ends a thread of its own, and what runs on it, when it waits next.
    pub(crate) fn stop(&self) {
        if let Self::Own(arbiter) = self {
            arbiter.stop();
        }
    }
}
