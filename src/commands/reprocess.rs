//! `tidemill reprocess`: makes a published hour once more, with today's topology.

use std::collections::BTreeMap;

use tidemill_core::Hour;
use tidemill_runtime::{Registry, RequestError, Requesting, last_positions};

use crate::cli::{Reprocess, now_ms};
use crate::commands::{hours, topology};
use crate::exit::{Code, Failure};
use crate::hours::Wanted;
use crate::logging;
use crate::output::{print, print_json};
use crate::reprocess::{Again, Comparison, Outcome, Target, again, publish, targets};
use crate::settings::{LogLevel, Settings};

/// How often an hour is read once more because another revision came meanwhile.
const TRIES: u32 = 3;

pub(crate) fn run(registry: &Registry, args: &Reprocess) -> Result<(), Failure> {
    let mut settings = Settings::load(&args.settings)?;
    if matches!(settings.log.level, LogLevel::Info) {
        settings.log.level = LogLevel::Warn;
    }
    logging::start(&settings.log);
    let plan = topology::read(registry, Some(&args.topology)).plan()?;
    let (name, hour) = (plan.name.clone(), Hour { start_ms: args.hour, width_ms: plan.limits.bucket_ms });
    if Hour::of(hour.start_ms, hour.width_ms) != hour {
        let message = format!(
            "no hour of {} ms begins then; the one that it lies in begins at {}",
            hour.width_ms,
            tidemill_core::format_time_ms(Hour::of(hour.start_ms, hour.width_ms).start_ms)
        );
        return Err(Failure::new(Code::Usage, message));
    }
    drop(plan);
    let config = settings.run_config(&name, false)?;
    let requesting = Requesting::open(&config.state_root, &config.output_root)?;
    let reprocessing = Reprocessing { registry, args, settings, hour, requesting };
    let mut comparisons = Vec::new();
    let mut tries = 0;
    loop {
        tries += 1;
        let overtaken = reprocessing.once(&name, &mut comparisons)?;
        if overtaken.is_empty() {
            break;
        }
        if tries == TRIES {
            let message = format!(
                "late events of {} were published {TRIES} times meanwhile; try again when they come less often",
                overtaken.join(", ")
            );
            return Err(Failure::new(Code::Stopped, message));
        }
    }
    reprocessing.requesting.clear()?;
    reprocessing.tell(&comparisons)
}

struct Reprocessing<'a> {
    registry: &'a Registry,
    args: &'a Reprocess,
    settings: Settings,
    hour: Hour,
    requesting: Requesting,
}

impl Reprocessing<'_> {
    /// Reads and publishes all that is not published yet. Returns the types of which other revisions came meanwhile.
    fn once(&self, name: &str, done: &mut Vec<Comparison>) -> Result<Vec<String>, Failure> {
        let args = self.args;
        let config = self.settings.run_config(name, false)?;
        let plan = || topology::read(self.registry, Some(&args.topology)).loaded.plan;
        let plan = || plan().ok_or_else(|| Failure::new(Code::Config, "the topology has errors now"));
        let wanted = Wanted {
            since_ms: Some(self.hour.start_ms),
            until_ms: Some(self.hour.start_ms + 1),
            event_type: args.event_type.as_deref(),
            manifests: true,
        };
        let (report, faults) = hours::read(&self.settings, &wanted, &|_, _| None)?;
        if faults > 0 {
            return Err(Failure::new(Code::Fault, format!("{faults} directories could not be read")));
        }
        let mut skip = |why: String| eprintln!("tidemill: {why}");
        let mut targets = targets(report, &plan()?, self.hour.start_ms, args.event_type.as_deref(), &mut skip)?;
        targets.retain(|target| !done.iter().any(|done| done.is_of(target)));
        let known = last_positions(&config.state_root)?;
        // One run for all that were sealed by the same barrier.
        let mut runs: BTreeMap<String, Vec<&Target>> = BTreeMap::new();
        for target in &targets {
            let positions = serde_json::to_string(&target.last.positions);
            let positions = positions.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            runs.entry(positions).or_default().push(target);
        }
        let mut overtaken = Vec::new();
        for targets in runs.values() {
            self.requesting.clear()?;
            let scratch = self.requesting.scratch();
            let again_of = Again {
                registry: self.registry,
                topology: &args.topology,
                hour: self.hour,
                targets,
                known: &known,
                lead_ms: args.lead,
            };
            let (made, letters) = again(&again_of, config.clone(), &scratch)?;
            if letters > 0 {
                eprintln!("tidemill: {letters} events that were read again are dead letters of this topology");
            }
            let made_root = scratch.join("out");
            for target in targets {
                let is_of = |made: &&tidemill_actors::sink::Manifest| {
                    made.event_type == target.event_type && made.sink == target.sink
                };
                let made: Vec<_> = made.iter().filter(is_of).cloned().collect();
                let mut comparison = Comparison::of(target, &config.output_root, &made, &made_root)?;
                if !args.dry_run && comparison.has_fewer() && !args.fewer {
                    done.push(comparison);
                    self.tell(done)?;
                    let message = "events that are published are not there any more, so nothing is published in their place. When that is meant, say --fewer; \
                        else see whether the input is still all there";
                    return Err(Failure::new(Code::Fault, message));
                }
                if !args.dry_run {
                    let id = format!("{:016x}-{:08x}", now_ms(), std::process::id());
                    let id = format!("{id}-{}", done.len());
                    let made = (made.as_slice(), made_root.as_path());
                    let outcome =
                        publish(&self.requesting, target, made, &id, (self.registry, &config), &mut || plan())?;
                    match outcome {
                        Outcome::Published(revision) => comparison.published_as = Some(revision),
                        Outcome::Overtaken => {
                            overtaken.push(target.event_type.clone());
                            continue;
                        }
                        Outcome::Refused => {
                            let message = "the owner of the output has refused the hour; its log says why";
                            return Err(Failure::new(Code::Stopped, message));
                        }
                    }
                }
                done.push(comparison);
            }
        }
        Ok(overtaken)
    }

    fn tell(&self, comparisons: &[Comparison]) -> Result<(), Failure> {
        match self.args.json {
            true => print_json(comparisons),
            false => print(comparisons.iter().map(Comparison::text).collect::<String>()),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Run(error) => error.into(),
            _ => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}
