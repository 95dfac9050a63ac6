//! `tidemill why-slow`: names what the rest of a running topology waits for.

use std::time::{Duration, Instant};

use tidemill_runtime::{Bottleneck, Status, bottleneck, shares};

use crate::commands::status::ask;
use crate::exit::Failure;
use crate::output::print;
use crate::settings::Settings;

/// Time between the two looks.
const BETWEEN: Duration = Duration::from_secs(2);
/// How many of the busiest are shown.
const SHOWN: usize = 8;

pub(crate) fn run(settings: &Settings, topology: &str) -> Result<(), Failure> {
    let (before, begin) = (ask(settings, topology)?, Instant::now());
    std::thread::sleep(BETWEEN);
    let after = ask(settings, topology)?;
    print(format_args!("{}", told(&before, &after, begin.elapsed())))
}

fn told(before: &Status, after: &Status, elapsed: Duration) -> String {
    let mut text = match bottleneck(before, after, elapsed) {
        Bottleneck::Waits { node, cause } => format!("`{node}` waits: {cause}\n"),
        Bottleneck::PondFull { pond, node } => format!(
            "the pond `{pond}` is full: `{node}` is slower than what comes; make it faster, or let the pond make dead letters (`when_full`)\n"
        ),
        Bottleneck::Busy { node, share } => format!(
            "`{node}` is at work {:.0} % of the time, and the rest waits for it; a stage without state takes more `workers`\n",
            share * 100.0
        ),
        Bottleneck::Nothing => "nothing holds it up: it deals with what comes as it comes\n".to_owned(),
    };
    text.push_str(&format!("\nat work, of {:.1} s, by worker:\n", elapsed.as_secs_f64()));
    for (name, share) in shares(before, after, elapsed).into_iter().take(SHOWN) {
        text.push_str(&format!("  {:>4.0} %  {name}\n", share * 100.0));
    }
    text
}
