//! Runs topologies on a simulated machine whose power fails, and checks that nothing was lost, doubled or seen too early.
//!
//! What runs is the real runtime with the real stages, on one thread and a clock of its own: an order of events is chosen by the seed, and so is what
//! goes wrong. The disk, the input and what is outside are simulated. A seed gives the same simulation every time.

mod check;
mod clock;
mod dice;
mod disk;
mod graph;
mod input;
#[cfg(test)]
mod ledger;
mod life;
mod machine;
mod outside;
mod shaky;
mod shape;
mod source;
mod world;

pub use world::{Outcome, simulate};
