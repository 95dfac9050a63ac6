//! `tidemill dead-letters replay`

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use tidemill_actors::sink::Letter;
use tidemill_runtime::{Registry, ReplayError, ReplayedLetter, Requests, Ways, owner_of};

use crate::cli::WantedLetters;
use crate::commands::dead_letters::{finish, read};
use crate::commands::topology;
use crate::display::count;
use crate::exit::{Code, Failure};
use crate::output::print;
use crate::settings::Settings;

/// What is done with the letters that are asked for.
#[derive(Default)]
struct Outcome {
    replayed: u64,
    before: u64,
    /// Letters that can't be replayed, by reason.
    refused: BTreeMap<String, u64>,
}

pub(crate) fn run(
    registry: &Registry,
    topology: &Path,
    wanted: &WantedLetters,
    dry_run: bool,
    settings: &Settings,
) -> Result<(), Failure> {
    let plan = topology::read(registry, Some(topology)).plan()?;
    let config = settings.run_config(&plan.name, false)?;
    let ways = Ways::of(&plan);
    let mut requests = Requests::open(&config.state_root)?;
    let mut outcome = Outcome::default();
    let mut failed = None;
    let faults = read(&config.output_root, wanted, &mut |letter| match replayable(&ways, letter) {
        Ok(letter) if requests.is_new(&letter) => {
            outcome.replayed += 1;
            let added = if dry_run { Ok(()) } else { requests.add(&letter) };
            match added {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        }
        Ok(_) => {
            outcome.before += 1;
            ControlFlow::Continue(())
        }
        Err(why) => {
            *outcome.refused.entry(why).or_default() += 1;
            ControlFlow::Continue(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if !dry_run {
        requests.finish()?;
    }
    print(told(&outcome, dry_run, owner_of(&config.state_root).is_some()))?;
    finish(faults)
}

/// The letter as it is replayed.
fn replayable(ways: &Ways, letter: Letter) -> Result<ReplayedLetter, String> {
    if letter.payload_bytes > letter.payload.len() as i64 {
        return Err("only the beginning of the event was kept, because it is longer than `max_event`".to_owned());
    }
    if letter.payload.is_empty() {
        return Err(
            "there are no bytes that were received: a message without a value, or rows that a stage made".to_owned()
        );
    }
    ways.find(&letter.source, &letter.stage)?;
    Ok(ReplayedLetter {
        source: letter.source.into(),
        partition: letter.partition.into(),
        position: letter.position as u64,
        stage: letter.stage.into(),
        reason: letter.reason,
        arrived_at_ms: letter.arrived_at_ms,
        payload: letter.payload,
    })
}

fn told(outcome: &Outcome, dry_run: bool, is_running: bool) -> String {
    let Outcome { replayed, before, refused } = outcome;
    let letters = |number: u64| if number == 1 { "1 letter".to_owned() } else { format!("{} letters", count(number)) };
    let what = match (dry_run, is_running) {
        _ if *replayed == 0 => "nothing to replay",
        (true, _) => "would be replayed",
        (false, true) => "handed to the running process, which takes them up within a second",
        (false, false) => "taken up by the next run of the topology",
    };
    let mut text = if *replayed == 0 { format!("{what}\n") } else { format!("{}: {what}\n", letters(*replayed)) };
    if *before > 0 {
        text.push_str(&format!("{}: replayed before\n", letters(*before)));
    }
    for (why, number) in refused {
        text.push_str(&format!("{}: can't be replayed: {why}\n", letters(*number)));
    }
    text
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Run(error) => error.into(),
            ReplayError::Damaged { .. } => Self::new(Code::Fault, error.to_string()),
            _ => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}
