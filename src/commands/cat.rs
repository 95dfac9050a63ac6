//! `tidemill cat`

use std::io::{BufWriter, Write};
use std::path::Path;

use tidemill_actors::sink::CatError;

use crate::exit::{Code, Failure};

pub(crate) fn run(file: &Path, limit: Option<u64>) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let done = tidemill_actors::sink::cat(file, limit, &mut out).map_err(|error| {
        let broken_pipe = std::error::Error::source(&error)
            .and_then(|cause| cause.downcast_ref::<std::io::Error>())
            .is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe);
        let code = if matches!(error, CatError::Open { .. }) { Code::Unavailable } else { Code::Fault };
        if broken_pipe { Failure::silent(Code::Done) } else { Failure::new(code, error.to_string()) }
    });
    let _ = out.flush();
    done.map(|_| ())
}
