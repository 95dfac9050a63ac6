//! Measures the main job: generated events -> tsv -> dedup -> hourly counts -> hourly Avro, cuts on.
//!
//! ```text
//! cargo build --release
//! cargo run --release --example benchmark -- files [events, default 10000000] [runs, default 3]
//! cargo run --release --example benchmark -- kafka BOOTSTRAP [events] [runs] [process id of the broker]
//! ```
//!
//! From files, prints for each codec the median run: events a second, CPU seconds, peak memory, and for each stage the nanoseconds
//! of its calls per event. From Kafka (a topic of three partitions, which it makes), the same for zstd 1, beside a bare consumer loop,
//! in turns; with the broker's process id, its CPU seconds too. The machine's noise shows in the spread (lowest and highest run). It
//! uses the release binary beside itself.

mod files;
mod kafka;
mod measure;

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| args.get(at).map_or(Ok(default), |text| text.parse());
    match args.first().map(String::as_str) {
        Some("files") => files::run(number(1, 10_000_000)?, number(2, 3)? as usize),
        Some("kafka") => {
            let bootstrap = args.get(1).ok_or("say the address of a broker: benchmark kafka HOST:PORT")?;
            let broker = args.get(4).map(|pid| pid.parse()).transpose()?;
            kafka::run(bootstrap, number(2, 10_000_000)?, number(3, 3)? as usize, broker)
        }
        _ => Err("say what to read from: benchmark files, or benchmark kafka HOST:PORT".into()),
    }
}
