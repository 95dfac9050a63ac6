//! `cargo run --release -p tidemill-simulation -- --help`

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tidemill_simulation::{Outcome, simulate};

/// Simulates topologies on machines whose power fails; one seed, one simulation.
#[derive(Parser)]
struct Arguments {
    /// Only this seed, with its story.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// How long at most, in seconds.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
    /// Seeds side by side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Ends when something is wrong.
    #[arg(long)]
    until_violation: bool,
    /// Prints each seed's digest.
    #[arg(long)]
    digests: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Planned panics are many.
    std::panic::set_hook(Box::new(|panic| {
        // Those that are not planned are mistakes of the simulation itself.
        let text = panic.payload().downcast_ref::<String>();
        if let Some(text) = text.filter(|text| text.contains("of a simulation")) {
            eprintln!("{text}");
        }
    }));
    match arguments.seed {
        Some(seed) => one(seed),
        None => many(&arguments),
    }
}

fn one(seed: u64) -> ExitCode {
    tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false).init();
    let dir = tempfile::tempdir().expect("a directory");
    let outcome = simulate(seed, dir.path());
    outcome.story.iter().for_each(|line| println!("{line}"));
    outcome.violations.iter().for_each(|line| println!("VIOLATION {line}"));
    println!("seed {seed}: {} violations, digest {:016x}", outcome.violations.len(), outcome.digest);
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let begin = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let totals = Mutex::new((Outcome::default(), 0u64, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                let dir = tempfile::tempdir().expect("a directory");
                while begin.elapsed() < Duration::from_secs(arguments.seconds) {
                    let is_enough = arguments.until_violation && !totals.lock().expect("nobody panicked").2.is_empty();
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if is_enough || seed >= arguments.from + arguments.seeds {
                        return;
                    }
                    let outcome = simulate(seed, dir.path());
                    if arguments.digests {
                        println!("{seed} {:016x}", outcome.digest);
                    }
                    let mut totals = totals.lock().expect("nobody panicked");
                    if let Some(first) = outcome.violations.first() {
                        println!("seed {seed}: {} violations, first: {first}", outcome.violations.len());
                        totals.2.push(seed);
                    }
                    totals.0.events += outcome.events;
                    totals.0.deaths += outcome.deaths;
                    totals.0.power_cuts += outcome.power_cuts;
                    totals.0.revisions += outcome.revisions;
                    totals.1 += 1;
                }
            });
        }
    });
    let (sum, seeds, failed) = totals.into_inner().expect("nobody panicked");
    println!(
        "{seeds} seeds from {}, {} events, {} revisions, {} deaths of processes, {} power cuts in {} s: {} seeds with violations",
        arguments.from,
        sum.events,
        sum.revisions,
        sum.deaths,
        sum.power_cuts,
        begin.elapsed().as_secs(),
        failed.len()
    );
    if let Some(seed) = failed.first() {
        println!("again: cargo run --release -p tidemill-simulation -- --seed {seed}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
