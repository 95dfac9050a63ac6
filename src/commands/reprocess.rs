//! `tidemill reprocess`: makes a published hour once more, with today's topology.

use std::collections::BTreeMap;

use tidemill_actors::sink::Manifest;
use tidemill_core::Hour;
use tidemill_runtime::{Registry, RequestError, Requesting, RunConfig, can_follow, last_positions};
use tidemill_topology::{Plan, REPLAY};

use crate::cli::{Reprocess, now_ms};
use crate::commands::{hours, topology};
use crate::exit::{Code, Failure};
use crate::hours::revisions;
use crate::logging;
use crate::output::{print, print_json};
use crate::reprocess::{Again, Comparison, Made, Outcome, Target, again, publish, targets};
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
    let hour = Hour { start_ms: args.hour, width_ms: plan.limits.bucket_ms };
    let lies_in = Hour::of(hour.start_ms, hour.width_ms);
    if lies_in != hour {
        return Err(hours::no_hour(lies_in));
    }
    let config = settings.run_config(&plan.name, false)?;
    let requesting = Requesting::open(&config.state_root, &config.output_root)?;
    // What the owner could not go on with, it can't publish either.
    can_follow(&config.state_root, &plan)?;
    drop(plan);
    let reprocessing = Reprocessing { registry, args, config, hour, requesting };
    let mut done: Vec<Comparison> = Vec::new();
    let made = reprocessing.all(&mut done);
    reprocessing.tell(&done)?;
    made
}

struct Reprocessing<'a> {
    registry: &'a Registry,
    args: &'a Reprocess,
    config: RunConfig,
    hour: Hour,
    requesting: Requesting,
}

/// What was read once more, and is not published yet.
struct Remade {
    target: Target,
    manifests: Vec<Manifest>,
    /// Which run made it.
    run: usize,
    comparison: Comparison,
}

impl Reprocessing<'_> {
    fn all(&self, done: &mut Vec<Comparison>) -> Result<(), Failure> {
        let mut published: Vec<(String, String)> = Vec::new();
        for _ in 0..TRIES {
            let overtaken = self.once(&mut published, done)?;
            if overtaken.is_empty() {
                return Ok(());
            }
        }
        let message = format!("other revisions of the hour were published {TRIES} times meanwhile; try again later");
        Err(Failure::new(Code::Stopped, message))
    }

    fn plan(&self) -> Result<Plan, Failure> {
        // What there is to say of it was said when it was read first.
        let plan = topology::read(self.registry, Some(&self.args.topology)).loaded.plan;
        plan.ok_or_else(|| Failure::new(Code::Config, "the topology has errors now"))
    }

    /// Reads and publishes all that is not published yet; nothing is published before all is read and compared. Returns the types of which other revisions
    /// came meanwhile.
    fn once(&self, published: &mut Vec<(String, String)>, done: &mut Vec<Comparison>) -> Result<Vec<String>, Failure> {
        let key = |target: &Target| (target.event_type.clone(), target.sink.clone());
        let time = (self.hour.start_ms, self.hour.end_ms());
        let revisions = revisions(&self.config.output_root, time, self.args.event_type.as_deref())?;
        let mut skip = |why: String| eprintln!("tidemill: {why}");
        let mut targets = targets(revisions, &self.plan()?, self.hour.start_ms, &mut skip)?;
        targets.retain(|target| !published.contains(&key(target)));
        self.requesting.clear()?;
        let (remade, runs) = self.read(targets)?;
        let doubts: Vec<&str> = remade.iter().filter_map(|remade| remade.comparison.doubt()).collect();
        if self.args.dry_run || (!doubts.is_empty() && !self.args.replace) {
            let first = doubts.first().map(|doubt| (*doubt).to_owned());
            done.extend(remade.into_iter().map(|remade| remade.comparison));
            return match first.filter(|_| !self.args.dry_run) {
                None => Ok(Vec::new()),
                Some(doubt) => {
                    let what = if published.is_empty() { "nothing is published" } else { "no more is published" };
                    let message = format!(
                        "{doubt}, so {what}. When that is meant, say --replace; else see whether the input is still all there"
                    );
                    Err(Failure::new(Code::Fault, message))
                }
            };
        }
        let mut overtaken = Vec::new();
        for (number, Remade { target, manifests, run, mut comparison }) in remade.into_iter().enumerate() {
            let id = format!("{:016x}-{:08x}-{number}", now_ms(), std::process::id());
            let owner = (self.registry, &self.config);
            let made = (manifests.as_slice(), runs[run].root.as_path());
            match publish(&self.requesting, &target, made, &id, owner, &mut || self.plan())? {
                Outcome::Published(revision) => {
                    comparison.published_as = Some(revision);
                    published.push(key(&target));
                    done.push(comparison);
                }
                Outcome::Overtaken => overtaken.push(target.event_type),
                // Where fields are in the path, it may be in other directories.
                Outcome::Refused if self.is_overtaken(&target)? => overtaken.push(target.event_type),
                Outcome::Refused => {
                    let message = format!(
                        "the owner of the output has refused the hour of `{}`; its log says why",
                        target.event_type
                    );
                    return Err(Failure::new(Code::Stopped, message));
                }
            }
        }
        Ok(overtaken)
    }

    /// Whether the hour has another revision by now.
    fn is_overtaken(&self, target: &Target) -> Result<bool, Failure> {
        let time = (self.hour.start_ms, self.hour.end_ms());
        let revisions = revisions(&self.config.output_root, time, Some(&target.event_type))?;
        Ok(revisions
            .iter()
            .map(|revision| &revision.manifest)
            .any(|it| it.sink == target.sink && it.revision > target.base))
    }

    /// Reads all once more: one run for those that were sealed by the same barrier.
    fn read(&self, targets: Vec<Target>) -> Result<(Vec<Remade>, Vec<Made>), Failure> {
        let known = last_positions(&self.config.state_root)?;
        let replayed = |positions: Option<u64>| positions.unwrap_or(0);
        let now = replayed(known.get(REPLAY).map(|letters| letters.values().map(|at| at.next).sum()));
        let then = |target: &Target| replayed(target.last.positions.get(REPLAY).map(|letters| letters.values().sum()));
        if let Some(target) = targets.iter().find(|target| then(target) < now) {
            eprintln!(
                "tidemill: dead letters were replayed since revision {} of `{}` was sealed: events of theirs that are parsed now, too, will be in the hour twice",
                target.base, target.event_type
            );
        }
        let mut by_positions: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for target in targets {
            let positions = serde_json::to_string(&target.last.positions);
            let positions = positions.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            by_positions.entry(positions).or_default().push(target);
        }
        let (mut remade, mut runs) = (Vec::new(), Vec::new());
        for (run, targets) in by_positions.into_values().enumerate() {
            let again_of = Again {
                registry: self.registry,
                hour: self.hour,
                targets: &targets,
                known: &known,
                lead_ms: self.args.lead,
            };
            let scratch = self.requesting.scratch().join(run.to_string());
            let made = again(&again_of, self.plan()?, self.config.clone(), &scratch)?;
            made.gone.iter().for_each(|gone| eprintln!("tidemill: {gone}"));
            if made.dead_letters > 0 {
                eprintln!(
                    "tidemill: {} events that were read again are dead letters of this topology",
                    made.dead_letters
                );
            }
            for target in targets {
                let is_of = |made: &&Manifest| made.event_type == target.event_type && made.sink == target.sink;
                let manifests: Vec<Manifest> = made.manifests.iter().filter(is_of).cloned().collect();
                let is_input_gone = !made.gone.is_empty();
                let root = &self.config.output_root;
                let comparison = Comparison::of(&target, root, &manifests, &made.root, is_input_gone)?;
                remade.push(Remade { target, manifests, run, comparison });
            }
            runs.push(made);
        }
        remade.sort_by(|a, b| key_of(&a.target).cmp(&key_of(&b.target)));
        Ok((remade, runs))
    }

    fn tell(&self, comparisons: &[Comparison]) -> Result<(), Failure> {
        match self.args.json {
            true => print_json(comparisons),
            false => print(comparisons.iter().map(Comparison::text).collect::<String>()),
        }
    }
}

fn key_of(target: &Target) -> (&str, &str) {
    (&target.event_type, &target.sink)
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Run(error) => error.into(),
            _ => Self::new(Code::Unavailable, error.to_string()),
        }
    }
}
