//! `tidemill generate`

use std::io::{IsTerminal, Write};

use tidemill_actors::ingest::generator::{Compression, GeneratorConfig, write_files};
use tidemill_core::parse_duration_ms;

use crate::cli::{self, Generate};
use crate::exit::{Code, Failure};
use crate::output::print;

pub(crate) fn run(args: &Generate) -> Result<(), Failure> {
    let usage = |message: String| Failure::new(Code::Usage, message);
    if !(0.0..=0.9).contains(&args.duplicates) {
        return Err(usage(format!("--duplicates {}: it takes a share from 0 to 0.9", args.duplicates)));
    }
    if args.files == 0 || args.hours == 0 {
        return Err(usage("--files and --hours take at least 1".into()));
    }
    let config = GeneratorConfig {
        events: args.events,
        seed: args.seed,
        duplicates: args.duplicates,
        hours: u64::from(args.hours),
        disorder_ms: parse_duration_ms(&args.disorder).map_err(|error| usage(format!("--disorder: {error}")))?,
        ..GeneratorConfig::default()
    };
    let compression = match args.compression {
        cli::Compression::None => Compression::None,
        cli::Compression::Gzip => Compression::Gzip,
        cli::Compression::Zstd => Compression::Zstd,
    };
    let watched = std::io::stderr().is_terminal();
    let mut progress = |lines: u64| {
        if watched {
            let _ = write!(std::io::stderr(), "\r{lines} of {} lines ", args.events);
        }
    };
    let truth = write_files(&config, &args.out, args.files, compression, args.rate, &mut progress)
        .map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    print(format_args!(
        "{} lines, {} events, {} sent twice; the truth about them is in {}\n",
        truth.events,
        truth.unique,
        truth.duplicates,
        args.out.join("truth.json").display()
    ))
}
