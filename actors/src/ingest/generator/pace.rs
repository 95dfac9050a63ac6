//! All lines in order, as fast as they are wanted.

use std::time::{Duration, Instant};

use super::truth::TruthFold;
use super::{Event, Generator, GeneratorConfig, Truth};

/// Most lines of a portion.
const PORTION: u64 = 16_384;

/// Calls `each` with the first line's number and the events of one portion after the other, `rate` lines a second (0: as fast
/// as can be), tells `progress` the lines so far, and returns the truth about all of them.
pub(super) fn each_portion<E>(
    config: &GeneratorConfig,
    rate: u64,
    progress: &mut dyn FnMut(u64),
    mut each: impl FnMut(u64, &[Event]) -> Result<(), E>,
) -> Result<Truth, E> {
    let generator = Generator::new(config);
    let mut truth = TruthFold::default();
    // With a rate, portions are a 50th of a second, so that whoever follows sees a steady stream.
    let portion = if rate == 0 { PORTION } else { (rate / 50).clamp(1, PORTION) };
    let started = Instant::now();
    let mut events = Vec::new();
    let mut line = 0;
    while line < config.events {
        let end = config.events.min(line + portion);
        events.clear();
        events.extend((line..end).map(|line| truth.line(&generator, line)));
        each(line, &events)?;
        line = end;
        progress(line);
        if rate > 0 {
            let due = started + Duration::from_secs_f64(line as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(truth.finish(&generator))
}
