//! Exit codes, after sysexits.h where it has one. `docs/exit-codes.md` is their documentation.

use std::process::ExitCode;

use tidemill_runtime::RunError;

/// What the process says of itself to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Done.
    Done = 0,
    /// A check found a fault.
    Fault = 1,
    /// Wrong usage.
    Usage = 64,
    /// Something needed is unavailable.
    Unavailable = 69,
    /// The program's own fault.
    Internal = 70,
    /// Stopped so as not to do harm.
    Stopped = 75,
    /// Bad topology or settings.
    Config = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// For a person; empty when everything has been said.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: format!("tidemill: {}", message.into()) }
    }

    /// Everything has been said already.
    pub(crate) fn silent(code: Code) -> Self {
        Self { code, message: String::new() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match &error {
            RunError::Io { .. } | RunError::Aside { .. } | RunError::Unavailable(_) => Code::Unavailable,
            RunError::Incompatible { .. } | RunError::Start { .. } | RunError::Settings(_) => Code::Config,
            RunError::Internal(_) | RunError::Audit { .. } => Code::Internal,
            _ => Code::Stopped,
        };
        Self::new(code, error.chain())
    }
}
