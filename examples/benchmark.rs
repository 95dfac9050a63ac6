//! Measures the main job: generated events from a file -> tsv -> dedup -> hourly counts -> hourly Avro, cuts on.
//!
//! ```text
//! cargo run --release --example benchmark -- [events, default 10000000] [runs, default 3]
//! ```
//!
//! Prints, for each codec, the median run: events a second, CPU seconds, peak memory, and for each stage the nanoseconds
//! of its calls per event. The machine's noise shows in the spread (lowest and highest run). It uses the release binary beside
//! itself, which `cargo build --release` makes.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const CODECS: [(&str, &str); 3] =
    [("null", "codec = \"null\""), ("snappy", "codec = \"snappy\""), ("zstd 1", "codec = \"zstandard\"\nlevel = 1")];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let events: u64 = args.next().map_or(Ok(10_000_000), |text| text.parse())?;
    let runs: usize = args.next().map_or(Ok(3), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let binary = binary()?;
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
    for run in 0..runs {
        for (results, (_, codec)) in measured.iter_mut().zip(CODECS) {
            results.push(measure(&binary, dir.path(), &data, codec, events, run)?);
        }
    }
    for ((name, _), mut results) in CODECS.into_iter().zip(measured) {
        results.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let median = &results[results.len() / 2];
        println!(
            "\n{name}: {:.2} M events/s ({:.2} to {:.2}), {:.1} CPU seconds, peak memory {:.0} MiB, {} cuts",
            median.rate / 1e6,
            results[0].rate / 1e6,
            results[results.len() - 1].rate / 1e6,
            median.cpu_seconds,
            median.peak_mib,
            median.cuts
        );
        for (stage, ns) in &median.stages {
            println!("  {stage:<16} {ns:>6.1} ns/event");
        }
    }
    Ok(())
}

struct Measured {
    rate: f64,
    cpu_seconds: f64,
    peak_mib: f64,
    cuts: u64,
    stages: Vec<(String, f64)>,
}

/// The release binary in the directory above the one that examples are built into.
fn binary() -> Result<PathBuf, Box<dyn Error>> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().and_then(Path::parent).ok_or("the example has no directory")?;
    let binary = dir.join("tidemill");
    if binary.exists() { Ok(binary) } else { Err(format!("{} is not there: build it first", binary.display()).into()) }
}

fn measure(
    binary: &Path,
    dir: &Path,
    data: &Path,
    codec: &str,
    events: u64,
    run: usize,
) -> Result<Measured, Box<dyn Error>> {
    let home = dir.join("run");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    std::fs::copy(data.join("listening.avsc"), home.join("listening.avsc"))?;
    let topology = home.join("benchmark.toml");
    std::fs::write(&topology, topology_text(&data.join("events-*.tsv"), codec, data)?)?;
    // What earlier runs wrote is not this run's to wait for.
    Command::new("sync").status()?;
    let begin = Instant::now();
    let mut child = Command::new(binary)
        .args(["run", "--until-end", "--progress", "json", "--set", "admin.listen=", "--set", "log.level=warn"])
        .arg("--set")
        .arg(format!("state.root={}", home.join("state").display()))
        .arg("--set")
        .arg(format!("output.root={}", home.join("out").display()))
        .arg(&topology)
        .stdout(Stdio::from(std::fs::File::create(home.join("status"))?))
        .spawn()?;
    let (mut peak_kib, mut cpu_ticks) = (0, 0);
    let status = loop {
        peak_kib = peak(child.id()).unwrap_or(peak_kib).max(peak_kib);
        cpu_ticks = cpu(child.id()).unwrap_or(cpu_ticks);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let elapsed = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("run {run} ended with {status}").into());
    }
    let text = std::fs::read_to_string(home.join("status"))?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("no status")?)?;
    let per_event = |node: &Value| node["busy_ns"].as_f64().unwrap_or(0.0) / events as f64;
    let nodes = ["sources", "stages"].into_iter().flat_map(|list| last[list].as_array().cloned().unwrap_or_default());
    let stages = nodes.map(|node| (node["name"].as_str().unwrap_or("?").to_owned(), per_event(&node))).collect();
    Ok(Measured {
        rate: events as f64 / elapsed,
        cpu_seconds: cpu_ticks as f64 / 100.0,
        peak_mib: peak_kib as f64 / 1024.0,
        cuts: last["cut"].as_u64().unwrap_or(0),
        stages,
    })
}

fn topology_text(files: &Path, codec: &str, data: &Path) -> Result<String, Box<dyn Error>> {
    let truth: Value = serde_json::from_slice(&std::fs::read(data.join("truth.json"))?)?;
    let mut text = format!(
        r#"
[topology]
name = "benchmark"

[sources.events]
kind = "file"
paths = ["{}"]

[stages.parse]
kind = "tsv"
from = ["events"]
workers = 2
type_from = {{ column = 0 }}
time = "epoch_ms"

[stages.dedup]
kind = "dedup"
from = ["parse"]

[stages.counts]
kind = "hourly"
from = ["dedup"]
group_by = ["country"]
measures = {{ events = "count()", ms_played = "sum(ms_played)" }}

[sinks.warehouse]
kind = "avro_files"
from = ["dedup"]
{codec}

[sinks.counts_files]
kind = "avro_files"
from = ["counts"]
{codec}
"#,
        files.display()
    );
    for name in truth["types"].as_object().ok_or("truth.json names no types")?.keys() {
        text.push_str(&format!(
            "\n[types.{name}]\nschema = \"listening.avsc\"\ntime = \"event_time\"\nid = [\"event_id\"]\n"
        ));
    }
    Ok(text)
}

/// Highest resident memory of a process so far, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// CPU time of a process so far, in hundredths of a second.
fn cpu(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
