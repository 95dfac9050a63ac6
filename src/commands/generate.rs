//! `tidemill generate`

use std::io::{IsTerminal, Write};

use tidemill_actors::ingest::generator::{
    Compression, GeneratorConfig, TopicError, write_files, write_topic, write_truth,
};
use tidemill_core::parse_duration_ms;

use crate::cli::{self, Generate};
use crate::exit::{Code, Failure};
use crate::output::print;
use crate::settings::Settings;

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
    let unavailable = |error: std::io::Error| Failure::new(Code::Unavailable, error.to_string());
    let truth = match (&args.kafka, &args.topic, &args.out) {
        (Some(cluster), Some(topic), out) => {
            let clusters = Settings::load(&args.settings)?.clusters();
            let sent = write_topic(&config, &clusters, cluster, topic, args.partitions, args.rate, &mut progress);
            let truth = sent.map_err(|error| {
                let code = if matches!(error, TopicError::Settings(_)) { Code::Config } else { Code::Unavailable };
                Failure::new(code, error.to_string())
            })?;
            if let Some(out) = out {
                write_truth(&truth, out).map_err(unavailable)?;
            }
            truth
        }
        (_, _, Some(out)) => {
            write_files(&config, out, args.files, compression, args.rate, &mut progress).map_err(unavailable)?
        }
        _ => return Err(usage("--out or --kafka says where the lines go".into())),
    };
    if watched {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let told =
        args.out.as_ref().map(|out| format!("; the truth about them is in {}", out.join("truth.json").display()));
    print(format_args!(
        "{} lines, {} events, {} sent twice{}\n",
        truth.events,
        truth.unique,
        truth.duplicates,
        told.unwrap_or_default()
    ))
}
