//! `tidemill verify`

use crate::cli::Verify;
use crate::exit::{Code, Failure};

pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    let report = tidemill_actors::verify::verify(&args.dir, None)
        .map_err(|error| Failure::new(Code::Unavailable, format!("{}: {error}", args.dir.display())))?;
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        println!("{text}");
    } else {
        print!("{report}");
    }
    if report.faults.is_empty() { Ok(()) } else { Err(Failure::silent(Code::Fault)) }
}
