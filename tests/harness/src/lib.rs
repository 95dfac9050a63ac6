//! What tests of whole topologies share: places, processes, brokers, and readers that share no code with Tidemill.
//!
//! A test makes a [`Place`], writes a topology and its input there, runs the binary as a [`Process`], and looks at
//! what is published.
//! [`needs`] knows which programs each group of tests needs.

pub mod admin;
pub mod certificate;
pub mod flights;
pub mod generated;
pub mod inside;
mod java;
pub mod kafka;
pub mod lock;
mod maven;
pub mod minutes;
pub mod needs;
mod output;
mod place;
mod plays;
mod process;
mod python;
pub mod registry;
pub mod reprocess;
pub mod sample;
mod seeds;

pub use output::{hours, json_lines, manifests};
pub use place::{Place, cache, example, gzip, program, root};
pub use plays::{HOUR, assert_each_once, lines};
pub use process::{
    DEADLINE, KILLED, Process, Usage, assert_exit, cpu_ticks, finish, printed, side_by_side, wait_for, with_input,
};
pub use python::{interpreter, python, python_command};
pub use seeds::seeded;
