//! Has an hour that was read once more published by the owner of the output.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_actors::sink::{AdoptedDirectory, Adoption, Ids, Manifest, Revision, own_counts};
use tidemill_core::{Request, ids_algorithm};
use tidemill_runtime::{Reads, Registry, Requesting, RunConfig, RunError, StateLock, owner_of};
use tidemill_topology::Plan;

use super::target::{Target, hour_path};
use crate::exit::{Code, Failure};

/// How long a running process may take: it looks for requests twice a second, and a cut may wait for a sink.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause between two cuts of our own, of which the first did not answer it; each is twice as long as the one before.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is this revision.
    Published(u32),
    /// Another revision had been published meanwhile.
    Overtaken,
    /// The owner has refused it; its log says why.
    Refused,
}

/// Asks for `made` (below `made_root`) as the next revision of the target. `plan` is the topology, for the case that no process runs it: then this one takes
/// the lock and makes the cut. `id` tells this request from all others.
pub(crate) fn publish(
    requesting: &Requesting,
    target: &Target,
    (made, made_root): (&[Manifest], &Path),
    id: &str,
    (registry, config): (&Registry, &RunConfig),
    plan: &mut dyn FnMut() -> Result<Plan, Failure>,
) -> Result<Outcome, Failure> {
    let adoption = adoption(requesting, target, made, made_root, id)?;
    let request = Request {
        id: id.to_owned(),
        stage: target.sink.as_str().into(),
        free: adoption.places(),
        files: adoption.directories.iter().flat_map(|directory| directory.given.clone()).collect(),
        body: json!(adoption),
    };
    requesting.ask(&request)?;
    let (begin, mut pause) = (Instant::now(), AGAIN_AFTER);
    while requesting.is_pending(id) {
        if begin.elapsed() > PATIENCE {
            requesting.withdraw(id)?;
            // It may have been answered at this moment.
            if let Outcome::Published(revision) = outcome(&adoption, id, &config.output_root)? {
                return Ok(Outcome::Published(revision));
            }
            let message = format!(
                "whoever runs the topology has not answered the request in {} s, so it was taken back: see the log, and `tidemill status`. What a cut has already is published all the same",
                PATIENCE.as_secs()
            );
            return Err(Failure::new(Code::Unavailable, message));
        }
        if owner_of(&config.state_root).is_some() {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        if let Err(failure) = plan().and_then(|plan| cut(plan, registry, config)) {
            requesting.withdraw(id)?;
            return match outcome(&adoption, id, &config.output_root)? {
                Outcome::Published(revision) => Ok(Outcome::Published(revision)),
                Outcome::Overtaken | Outcome::Refused => Err(failure),
            };
        }
        if requesting.is_pending(id) {
            // It was another one's turn, or the region could not make its cut, which the log tells.
            std::thread::sleep(pause);
            pause *= 2;
        }
    }
    outcome(&adoption, id, &config.output_root)
}

/// What is to be seen of a request that was answered.
fn outcome(adoption: &Adoption, id: &str, root: &Path) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Refused;
    for place in adoption.places() {
        let revision = Revision::read(&root.join(place));
        match revision.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))? {
            Some(published) if published.manifest.request.as_deref() == Some(id) => {
                return Ok(Outcome::Published(adoption.revision()));
            }
            Some(_) => outcome = Outcome::Overtaken,
            None => {}
        }
    }
    Ok(outcome)
}

/// Gives the files to the owner, and says what is to be made of them.
fn adoption(
    requesting: &Requesting,
    target: &Target,
    made: &[Manifest],
    made_root: &Path,
    id: &str,
) -> Result<Adoption, Failure> {
    let mut directories = Vec::new();
    let said = |manifest: Manifest| Manifest {
        positions: target.last.positions.clone(),
        not_waited_for: target.last.not_waited_for.clone(),
        counted: own_counts(manifest.counted),
        ..manifest
    };
    for manifest in made {
        let mut given = Vec::new();
        for (number, file) in manifest.files.iter().enumerate() {
            let name = format!("{id}-{}-{number}", directories.len());
            requesting.give(&made_root.join(&manifest.path).join(&file.name), &name)?;
            given.push(name);
        }
        let path = hour_path(manifest).to_owned();
        directories.push(AdoptedDirectory { path, manifest: said(manifest.clone()), given });
    }
    // What is not there any more has to be said, or the rows of before would stay.
    let is_made = |path: &str| made.iter().any(|manifest| hour_path(manifest) == path);
    for (path, path_values) in target.paths.iter().filter(|(path, _)| !is_made(path)) {
        let manifest = Manifest { path_values: path_values.clone(), ..without_rows(&target.last) };
        directories.push(AdoptedDirectory { path: path.clone(), manifest: said(manifest), given: Vec::new() });
    }
    Ok(Adoption {
        event_type: target.event_type.clone(),
        hour_start_ms: target.hour_start_ms,
        base: target.base,
        directories,
    })
}

fn without_rows(last: &Manifest) -> Manifest {
    let mut manifest = last.clone();
    (manifest.count, manifest.duplicates_dropped, manifest.late_within_allowed) = (0, 0, 0);
    (manifest.event_time.min, manifest.event_time.max) = (None, None);
    manifest.ids =
        manifest.ids.map(|ids| Ids { algorithm: ids_algorithm().to_owned(), sum: format!("{:032x}", 0), ..ids });
    manifest.files.clear();
    manifest.counted.clear();
    manifest.producers = None;
    manifest
}

/// Makes one cut of the topology, which reads nothing.
fn cut(plan: Plan, registry: &Registry, config: &RunConfig) -> Result<(), Failure> {
    let lock = match StateLock::take(&config.state_root) {
        // Somebody was faster, and will take it up.
        Err(RunError::Locked { .. }) => return Ok(()),
        lock => lock?,
    };
    let config = RunConfig { reads: Reads::Nothing, until_end: false, ..config.clone() };
    let ended = actix_rt::System::new().block_on(async {
        let running = tidemill_runtime::start_locked(plan, registry.clone(), config, lock)?;
        running.handle().stop();
        running.wait().await
    });
    ended?;
    Ok(())
}
