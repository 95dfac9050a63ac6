//! Why a topology can't run, or can't go on.

use std::path::PathBuf;

/// An error that ends a run. What was committed stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A file or directory could not be used.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process owns the state directory.
    #[error("{} belongs to a running process: {owner}; stop it first, or give this run its own `state.root`", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Who holds it.
        owner: String,
    },
    /// The process that owns the state directory can't be replaced.
    #[error("can't take over {}: {why}. Nothing was opened", path.display())]
    TakeOver {
        /// The state directory.
        path: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// The output root belongs to another state directory.
    #[error(
        "output root {} belongs to the state directory {owner}; give this run its own `output.root`, or go on with that state",
        path.display()
    )]
    Claimed {
        /// The output root.
        path: PathBuf,
        /// Where its state is.
        owner: String,
    },
    /// What is on disk is damaged or contradicts itself.
    #[error("{what} ({}); nothing was changed. Restore the state directory from a backup, or start afresh with --fresh", path.display())]
    Corrupt {
        /// What is wrong.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// The topology was changed in a way that its state can't follow.
    #[error("the topology was changed in a way that its state can't follow:\n{}", changes.join("\n"))]
    Incompatible {
        /// What changed, and what to do.
        changes: Vec<String>,
    },
    /// State and output could not be set aside.
    #[error("can't move aside {}: {source}; {left}", path.display())]
    Aside {
        /// What could not be moved.
        path: PathBuf,
        /// What is where now, and what to do.
        left: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A stop was asked for, and a stage did not come to its end.
    #[error(
        "stopped without a last cut: for {seconds} s nothing moved, and {stages} did not answer; the state is that of cut {cut}. Nothing is lost: what came after it is read again by the next run"
    )]
    Undrained {
        /// Which stages, with what is known of them.
        stages: String,
        /// How long nothing had moved.
        seconds: u64,
        /// The last cut.
        cut: u64,
    },
    /// A stop was asked for, and what is sealed could not be published in time.
    #[error(
        "stopped after the last cut, but {files} files of sealed hours were not published within {seconds} s: is the \
         disk slow or full? Nothing is lost: the next start publishes them"
    )]
    Unpublished {
        /// How many files.
        files: usize,
        /// For how long it was waited.
        seconds: u64,
    },
    /// A source can't go on without skipping something.
    #[error("{message}")]
    Source {
        /// Which source, what happened and what to do.
        message: String,
    },
    /// A stage or sink can't be started.
    #[error("`{node}` can't be started: {message}")]
    Start {
        /// The stage or sink.
        node: String,
        /// Why.
        message: String,
    },
    /// Something to be used is not there, or not reachable.
    #[error("{0}")]
    Unavailable(String),
    /// The topology asks for something that the settings do not have, or have wrongly.
    #[error("{0}")]
    Settings(String),
    /// A stage made more dead letters than the topology allows.
    #[error(
        "`{node}`: {why}. Nothing is lost: `tidemill dead-letters` says what is wrong with them; mend it, or raise the cap, and start again"
    )]
    DeadLetters {
        /// The stage or sink.
        node: String,
        /// How many there were.
        why: String,
    },
    /// The audit found that events were lost or repeated on their way through a region.
    #[error("the audit does not hold: {what}{}; no cut was made of it, and nothing of it was published", and_more(*more))]
    Audit {
        /// The first place where it does not, with type and hour.
        what: String,
        /// How many more there are.
        more: usize,
    },
    /// A fault of Tidemill itself.
    #[error("internal fault: {0}")]
    Internal(String),
}

impl RunError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether it stays for as long as nobody changes something: the topology, the settings, what a source reads from.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Unavailable(_) | Self::Settings(_))
    }

    /// The error with all its causes, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        error_chain(self)
    }
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and in {more} more places; see the log)") }
}

/// An error with all its causes, on one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let part = inner.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = inner.source();
    }
    text
}
