//! Doubles and faults for tests of topologies.

mod fault;

pub use fault::{Fault, Faulty, Trigger};
