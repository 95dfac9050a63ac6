//! `tidemill verify`

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;

use tidemill_actors::sink::verify::{Fault, FaultCode, Report, verify};
use tidemill_runtime::{index_path, is_claimed, published};

use crate::cli::Verify;
use crate::exit::{Code, Failure};
use crate::output::{print, print_json};

pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    let (published, faults) = index(&args.dir);
    let report = if faults.iter().any(|fault| fault.code == FaultCode::NotARoot) {
        // Whatever it holds is not ours to judge.
        std::fs::read_dir(&args.dir)
            .map_err(|error| Failure::new(Code::Unavailable, format!("can't list {}: {error}", args.dir.display())))?;
        Report { faults, ..Report::default() }
    } else {
        let mut report = files(args, published.as_ref())?;
        report.add(faults);
        report
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(format_args!("{report}\n"))?;
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::silent(Code::Fault)) }
}

/// Paths of the index, with which an hour that is gone as a whole is missed, as far as they are known; what is wrong with the index.
fn index(root: &Path) -> (Option<BTreeSet<String>>, Vec<Fault>) {
    let name = index_path(root).file_name().map(|name| name.to_string_lossy().into_owned());
    let fault = |file: Option<String>, code, message: String| {
        let (path, event_type, hour) = (String::new(), None, None);
        Fault { path, file, event_type, hour, code, message }
    };
    let unchecked = "whether an hour is missing as a whole could not be checked";
    match published(root) {
        Ok(Some(index)) => {
            let faults = index.damaged.into_iter().map(|line| {
                let message = format!("line {} is damaged: {}", line.number, line.message);
                fault(name.clone(), FaultCode::DamagedIndex, message)
            });
            (index.paths, faults.collect())
        }
        Ok(None) if is_claimed(root) => {
            let message = format!("the index of all that was published is gone; {unchecked}");
            (None, vec![fault(name, FaultCode::MissingIndex, message)])
        }
        Ok(None) => {
            let message = format!(
                "{} is not an output root of Tidemill: it has no index of what was published. Give the directory that \
                 `output.root` names, not one above or below it",
                root.display()
            );
            (None, vec![fault(None, FaultCode::NotARoot, message)])
        }
        Err(error) => (None, vec![fault(name, FaultCode::Unreadable, format!("{}; {unchecked}", error.chain()))]),
    }
}

fn files(args: &Verify, published: Option<&BTreeSet<String>>) -> Result<Report, Failure> {
    let watched = std::io::stderr().is_terminal() && !args.json;
    let report = verify(&args.dir, published, &|progress| {
        if watched {
            let _ = write!(std::io::stderr(), "\r{} of {} directories ", progress.done, progress.directories);
        }
    });
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    report.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::new(Code::Unavailable, format!("{error}{cause}"))
    })
}
