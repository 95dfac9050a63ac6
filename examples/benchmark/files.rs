//! From a file, with three codecs.

use std::error::Error;
use std::process::{Command, Stdio};

use tidemill_harness::program;

use crate::measure::{Measured, home, median, run as run_once, topology};

const CODECS: [(&str, &str); 3] =
    [("null", "codec = \"null\""), ("snappy", "codec = \"snappy\""), ("zstd 1", "codec = \"zstandard\"\nlevel = 1")];

pub(crate) fn run(events: u64, runs: usize) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let binary = program();
    let data = dir.path().join("data");
    let generated = Command::new(&binary)
        .args(["generate", "--events", &events.to_string(), "--out"])
        .arg(&data)
        .stdout(Stdio::null())
        .status()?;
    if !generated.success() {
        return Err("tidemill generate failed".into());
    }
    let bytes = std::fs::metadata(data.join("events-00000.tsv"))?.len();
    println!("{events} events of {} bytes, {runs} runs each, the median shown", bytes / events.max(1));
    // In turns, so that a slow minute of the machine strikes all of them.
    let mut measured: Vec<Vec<Measured>> = CODECS.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        for (results, (_, codec)) in measured.iter_mut().zip(CODECS) {
            let home = home(dir.path(), &data)?;
            let file = home.join("benchmark.toml");
            let source = format!("kind = \"file\"\npaths = [\"{}\"]", data.join("events-*.tsv").display());
            std::fs::write(&file, topology(&source, codec, &data)?)?;
            results.push(run_once(&binary, &home, &file, &[], events)?);
        }
    }
    for ((name, _), results) in CODECS.into_iter().zip(measured) {
        let (median, lowest, highest) = median(results);
        median.print(name, lowest, highest);
    }
    Ok(())
}
