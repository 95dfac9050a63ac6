//! One run of the release binary, measured from outside.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tidemill_harness::{Process, Usage};

/// What a run came to.
pub(crate) struct Measured {
    /// Events a second.
    pub(crate) rate: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) cuts: u64,
    /// Nanoseconds in calls of each source, stage and sink, per event.
    pub(crate) stages: Vec<(String, f64)>,
}

/// The run with the median rate, and the lowest and highest rates.
pub(crate) fn median(mut runs: Vec<Measured>) -> (Measured, f64, f64) {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let (lowest, highest) = (runs[0].rate, runs[runs.len() - 1].rate);
    (runs.swap_remove(runs.len() / 2), lowest, highest)
}

impl Measured {
    /// Prints it.
    pub(crate) fn print(&self, name: &str, lowest: f64, highest: f64) {
        println!(
            "\n{name}: {:.2} M events/s ({:.2} to {:.2}), {:.1} CPU seconds, peak memory {:.0} MiB, {} cuts",
            self.rate / 1e6,
            lowest / 1e6,
            highest / 1e6,
            self.cpu_seconds,
            self.peak_mib,
            self.cuts
        );
        for (stage, ns) in &self.stages {
            println!("  {stage:<16} {ns:>6.1} ns/event");
        }
    }
}

/// Runs a topology of `events` events to its end, with state and output of its own below `home`.
pub(crate) fn run(
    binary: &Path,
    home: &Path,
    topology: &Path,
    more: &[String],
    events: u64,
) -> Result<Measured, Box<dyn Error>> {
    // What earlier runs wrote is not this run's to wait for.
    Command::new("sync").status()?;
    let begin = Instant::now();
    let mut command = Command::new(binary);
    command
        .args(["run", "--until-end", "--progress", "json", "--set", "admin.listen=", "--set", "log.level=warn"])
        .arg("--set")
        .arg(format!("state.root={}", home.join("state").display()))
        .arg("--set")
        .arg(format!("output.root={}", home.join("out").display()))
        .args(more)
        .arg(topology)
        .stdout(Stdio::from(std::fs::File::create(home.join("status"))?))
        .stderr(Stdio::null());
    let Usage { status, peak_kib, cpu_ticks } = Process::start(&mut command).measure();
    let elapsed = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("the run ended with {status}").into());
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

/// The topology of the main job, with the types that the truth beside generated data names.
pub(crate) fn topology(source: &str, codec: &str, data: &Path) -> Result<String, Box<dyn Error>> {
    let truth: Value = serde_json::from_slice(&std::fs::read(data.join("truth.json"))?)?;
    let mut text = format!(
        r#"
[topology]
name = "benchmark"

[sources.events]
{source}

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
"#
    );
    for name in truth["types"].as_object().ok_or("truth.json names no types")?.keys() {
        text.push_str(&format!(
            "\n[types.{name}]\nschema = \"listening.avsc\"\ntime = \"event_time\"\nid = [\"event_id\"]\n"
        ));
    }
    Ok(text)
}

/// An empty directory for a run, with the schema in it.
pub(crate) fn home(dir: &Path, data: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let home = dir.join("run");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home)?;
    std::fs::copy(data.join("listening.avsc"), home.join("listening.avsc"))?;
    Ok(home)
}
