//! `tidemill check`

use tidemill_core::Severity;
use tidemill_runtime::Registry;

use crate::cli::Check;
use crate::commands::topology::read;
use crate::exit::{Code, Failure};
use crate::output::{print, print_json};

pub(crate) fn run(registry: &Registry, args: &Check) -> Result<(), Failure> {
    let mut all = Vec::new();
    for path in &args.topologies {
        let read = read(registry, Some(path));
        if !args.json {
            read.print();
            if read.loaded.plan.is_some() {
                print(format_args!("{}: ok\n", path.display()))?;
            }
        }
        all.extend(read.loaded.diagnostics);
    }
    if args.json {
        print_json(&all)?;
    }
    let errors = all.iter().filter(|found| found.severity == Severity::Error).count();
    match errors {
        0 => Ok(()),
        _ if args.json => Err(Failure::silent(Code::Config)),
        1 => Err(Failure::new(Code::Config, "1 error")),
        _ => Err(Failure::new(Code::Config, format!("{errors} errors"))),
    }
}
