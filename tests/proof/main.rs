//! The same promises with millions of events, and with crashes at every step. Needs Rust and Python, and minutes.

mod closing;
mod crash;
mod faults;
mod flights;
mod take_over;
mod workers;
