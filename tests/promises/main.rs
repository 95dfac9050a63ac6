//! What Tidemill promises, seen from outside: the real binary, real files, readers that share no code. Needs Rust
//! and Python.

mod audit;
mod bad_input;
mod broken_topologies;
mod cli;
mod closing;
mod custom_sink;
mod dead_letters;
mod display;
mod docs;
mod draining;
mod faults;
mod finite;
mod following;
mod hours;
mod index;
mod late;
mod missing;
mod outbox;
mod outliers;
mod ponds;
mod producers;
mod replay;
mod reprocess;
mod secret;
mod shapes;
mod small_buckets;
mod sums;
mod suspects;
mod take_over;
mod terminal;
mod tiers;
