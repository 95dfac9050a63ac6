//! Doubles and faults for tests of topologies.

mod fault;
mod valve;

pub use fault::{Fault, Faulty, Trigger, holds};
pub use valve::{Kept, Valve};
