//! The run that reads an hour once more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_actors::sink::{Manifest, Revision, SUCCESS_NAME};
use tidemill_core::{Hour, Positions, Stretch};
use tidemill_runtime::{Reads, Registry, RunConfig, RunError, StateLock, newest};
use tidemill_topology::Plan;

use super::narrow::{Wanted, narrowed, reach_ms, with_kinds};
use super::target::Target;
use crate::exit::{Code, Failure};

/// How wrong the clock of a cluster may be against ours.
const CLOCKS_MS: i64 = 60_000;

/// What is to be read once more, and how.
pub(crate) struct Again<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) hour: Hour,
    /// All of them stood at the same positions of the sources.
    pub(crate) targets: &'a [Target],
    /// What the state knows of the sources' partitions.
    pub(crate) known: &'a Positions,
    /// How far before the hour reading begins, where sources can begin by time; `None`: as far as `dedup` can look back.
    pub(crate) lead_ms: Option<i64>,
}

/// What was made of it.
pub(crate) struct Made {
    /// Below its output root.
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) root: PathBuf,
    /// What of the input is gone, or may be.
    pub(crate) gone: BTreeSet<String>,
    pub(crate) dead_letters: u64,
}

/// Reads it, with a state and an output below `scratch`, which must not be there.
pub(crate) fn again(again: &Again<'_>, plan: Plan, config: RunConfig, scratch: &Path) -> Result<Made, Failure> {
    let lead_ms = again.lead_ms.unwrap_or_else(|| reach_ms(&plan));
    let early_ms = lead_ms.saturating_add(plan.limits.max_ahead_ms).saturating_add(CLOCKS_MS);
    let arrived_from_ms = again.hour.start_ms.saturating_sub(early_ms).max(0);
    let gone: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let positions = again.targets.first().map(|target| &target.last.positions);
    let stretches: BTreeMap<Arc<str>, Arc<Stretch>> = (positions.into_iter().flatten())
        .map(|(source, partitions)| {
            let stretch = Stretch {
                arrived_from_ms,
                until: partitions.iter().map(|(partition, next)| (partition.as_str().into(), *next)).collect(),
                known: again.known.get(source.as_str()).cloned().unwrap_or_default(),
                gone: Arc::clone(&gone),
            };
            (source.as_str().into(), Arc::new(stretch))
        })
        .collect();
    let mut wanted = Wanted::new();
    for target in again.targets {
        wanted.entry(target.sink.clone()).or_default().insert(target.event_type.clone());
    }
    let output_root = scratch.join("out");
    let config = RunConfig {
        state_root: scratch.join("state"),
        output_root: output_root.clone(),
        reads: Reads::Stretches(Arc::new(stretches)),
        until_end: true,
        ..config
    };
    let plan = narrowed(plan, again.hour, &wanted);
    let registry = with_kinds(again.registry.clone());
    let dead_letters = run(plan, registry, config)?;
    let index = newest(&output_root, u64::MAX)?.unwrap_or_default();
    let directories = index.paths.iter().filter_map(|path| path.strip_suffix(SUCCESS_NAME)?.strip_suffix('/'));
    let mut manifests = Vec::new();
    // What was published a moment ago is there once only.
    for path in directories.collect::<BTreeSet<_>>() {
        let revision = Revision::read(&output_root.join(path));
        let revision = revision.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
        manifests.extend(revision.filter(|made| made.start_ms == again.hour.start_ms).map(|made| made.manifest));
    }
    let gone = std::mem::take(&mut *gone.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Made { manifests, root: output_root, gone, dead_letters })
}

/// Runs it to its end; how many dead letters there were.
fn run(plan: Plan, registry: Registry, config: RunConfig) -> Result<u64, Failure> {
    let lock = StateLock::take(&config.state_root)?;
    let ended = actix_rt::System::new().block_on(async {
        let running = tidemill_runtime::start_locked(plan, registry, config, lock)?;
        let handle = running.handle();
        running.wait().await?;
        Ok::<_, RunError>(handle.status().dead_letters.iter().map(|letters| letters.count).sum())
    });
    Ok(ended?)
}
