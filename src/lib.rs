//! Tidemill: an actor-based stream processor for event delivery.
//!
//! This crate is the facade: the vocabulary and traits of [`core`], the shipped kinds, and the command line, which a
//! binary of your own can start with kinds of your own:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     let registry = tidemill::registry();
//!     // registry.add_sink(MySink);
//!     tidemill::main(registry)
//! }
//! ```

mod admin;
mod cli;
mod commands;
mod display;
mod exit;
mod hours;
mod logging;
mod output;
mod reprocess;
mod settings;
mod table;
mod terminal;

pub use tidemill_core as core;
pub use tidemill_runtime::Registry;

/// The kinds that come with Tidemill.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    tidemill_actors::source_kinds().into_iter().for_each(|kind| registry.add_source(kind));
    tidemill_actors::stage_kinds().into_iter().for_each(|kind| registry.add_stage(kind));
    registry.add_sink(tidemill_actors::sink::Console);
    registry.add_sink(tidemill_actors::sink::Kafka::default());
    registry.add_sink(tidemill_actors::sink::Blackhole);
    registry
}

/// Runs the command line with these kinds.
#[must_use]
pub fn main(registry: Registry) -> std::process::ExitCode {
    match cli::run(registry, std::env::args_os()) {
        Ok(()) => exit::Code::Done.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            failure.code.into()
        }
    }
}
