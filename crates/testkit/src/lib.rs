//! Fixtures for tests of single parts; doubles and faults for tests of topologies.

mod fault;
mod fixtures;
mod followed;
mod valve;

pub use fault::{Fault, Faulty, Trigger, holds};
pub use fixtures::{HOUR_MS, KeptPieces, NoLogs, Start, batch, build, limits, origin, seals};
pub use followed::Followed;
pub use valve::{Kept, Valve};
