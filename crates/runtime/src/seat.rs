//! Where an actor runs: on a thread of its own, or with all others on the one that started the topology.

use actix::{Arbiter, ArbiterHandle};

use crate::host::Host;

/// See the module.
pub(crate) enum Seat {
    Own(Arbiter),
    Shared,
}

impl Seat {
    pub(crate) fn take(host: &dyn Host) -> Self {
        if host.has_threads() { Self::Own(Arbiter::new()) } else { Self::Shared }
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
