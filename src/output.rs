//! Standard output, which may be a pipe that nobody reads any more.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::exit::{Code, Failure};

/// Writes a text to standard output. When whoever reads it has seen enough, that is no failure.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let text = text.to_string();
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Unavailable, format!("can't write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// The same with a value as indented JSON and a line feed.
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    print(format_args!("{text}\n"))
}
