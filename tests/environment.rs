//! The first of the tests outside the library: which programs are missing, and how to get them; then what is fetched
//! once.
//!
//! `cargo test-fast`, `--test promises` and `--test proof` need Rust, git and Python only, whatever else is missing.

use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Instant;

use tidemill_harness::needs::{Missing, NEEDS, missing};
use tidemill_harness::{interpreter, kafka, registry};

/// Options of test programs that have a value behind them.
const WITH_VALUE: [&str; 7] = ["--test-threads", "--skip", "--color", "--format", "--logfile", "--shuffle-seed", "-Z"];

/// Packages of Debian that have what is missing, each once.
fn packages(missing: &[Missing]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|missing| missing.need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages.join(" ")
}

/// Whether the arguments select other tests, or only ask for a list.
fn is_left_out() -> bool {
    let args: Vec<String> = std::env::args().collect();
    // The first one is the program.
    let names = args.windows(2).filter(|pair| !pair[1].starts_with('-') && !WITH_VALUE.contains(&pair[0].as_str()));
    let names: Vec<&str> = names.map(|pair| pair[1].as_str()).collect();
    let is_named = names.is_empty() || names.iter().any(|name| "environment".contains(name));
    args.iter().any(|arg| arg == "--list") || !is_named
}

/// The address of `KAFKA_BOOTSTRAP`, if nobody answers there.
fn silent_broker() -> Option<String> {
    let servers = std::env::var("KAFKA_BOOTSTRAP").ok()?;
    servers.split(',').all(|server| TcpStream::connect(server).is_err()).then_some(servers)
}

fn main() -> ExitCode {
    if is_left_out() {
        return ExitCode::SUCCESS;
    }
    let missing = missing(None);
    if !missing.is_empty() {
        eprintln!("\nThese tests need programs that are not here:");
        missing.iter().for_each(|missing| eprintln!("  {missing}"));
        eprintln!("On Debian: apt-get install {}", packages(&missing));
        eprintln!("The tests of `cargo test-fast` need Rust, git and Python only\n");
        return ExitCode::FAILURE;
    }
    if let Some(servers) = silent_broker() {
        eprintln!("\nKAFKA_BOOTSTRAP is {servers}, and nobody answers there: start that broker, or unset it\n");
        return ExitCode::FAILURE;
    }
    println!("\nall {} programs that the tests run are here", NEEDS.len());
    let begin = Instant::now();
    println!("Python with its packages: {}", interpreter().display());
    println!("Apache Kafka: {}", kafka::classpath());
    println!("schema registry: {}", registry::jar().display());
    println!("fetched or found in {} s\n", begin.elapsed().as_secs());
    ExitCode::SUCCESS
}
