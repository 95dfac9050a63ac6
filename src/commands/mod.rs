//! What the command line can be asked to do: one file a command.

pub(crate) mod audit;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod dead_letters;
pub(crate) mod generate;
pub(crate) mod graph;
pub(crate) mod hours;
pub(crate) mod kinds;
pub(crate) mod producers;
pub(crate) mod replay;
pub(crate) mod reprocess;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod status;
pub(crate) mod topology;
pub(crate) mod verify;
pub(crate) mod why_slow;
