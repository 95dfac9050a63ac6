//! `tidemill verify`

use std::io::{IsTerminal, Write};

use tidemill_actors::sink::verify::verify;
use tidemill_runtime::RunError;

use crate::cli::Verify;
use crate::exit::{Code, Failure};
use crate::output::print;

pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    // With the index of the root an hour that is gone as a whole is missed too.
    let published = tidemill_runtime::published(&args.dir).map_err(|error| match error {
        RunError::Corrupt { .. } => Failure::new(Code::Fault, error.chain()),
        _ => error.into(),
    })?;
    let watched = std::io::stderr().is_terminal() && !args.json;
    let report = verify(&args.dir, published.as_ref(), &|progress| {
        if watched {
            let _ = write!(std::io::stderr(), "\r{} of {} directories ", progress.done, progress.directories);
        }
    });
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report = report.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(Code::Unavailable, format!("{error}{cause}"))
    })?;
    if args.json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        print(format_args!("{text}\n"))?;
    } else {
        print(format_args!("{report}\n"))?;
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::silent(Code::Fault)) }
}
