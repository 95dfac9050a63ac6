//! Finds what there is to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use tidemill_actors::sink::{Revision, RevisionError, SUCCESS_NAME};
use tidemill_core::{DEAD_LETTER_TYPE, GAP_HOURS_MAX, Hour as Bucket, format_time_ms};
use tidemill_runtime::{HourState, Status, TypeHours, hour_state, newest};

use super::{Hour, Report, Row, State};
use crate::exit::{Code, Failure};

/// Bytes of the index that are looked at, from its end: some 600,000 lines, three or four for each revision.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Manifests that are read at most.
const REVISIONS_MAX: usize = 200_000;
/// So many are read side by side.
const AT_ONCE: usize = 512;
/// Hours that are shown when nothing is said.
const HOURS: i64 = 24;
/// Hours that can be shown.
const HOURS_MAX: i64 = 5_000;
const DAY_MS: i64 = 86_400_000;
/// An hour is overdue when it is open for so long beyond its allowed lateness: cuts and sources take their time.
const GRACE_MS: i64 = 60_000;

/// Which hours are asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) since_ms: Option<i64>,
    pub(crate) until_ms: Option<i64>,
    pub(crate) event_type: Option<&'a str>,
    /// Whether manifests are wanted in full.
    pub(crate) manifests: bool,
}

/// Looks at an output root. `ask` is asked for the status of a topology that may run. What can't be read goes to `fault`.
pub(crate) fn gather(
    root: &Path,
    wanted: &Wanted<'_>,
    now_ms: i64,
    ask: &dyn Fn(&str, &Path) -> Option<Status>,
    fault: &mut dyn FnMut(RevisionError),
) -> Result<Report, Failure> {
    let state = hour_state(root)?;
    let limits = Limits { index_bytes: INDEX_BYTES_MAX, revisions: REVISIONS_MAX, only_wanted: false };
    let (revisions, is_partial) = published(root, wanted, limits, fault)?;
    let state = state.unwrap_or_default();
    let hour_ms = match (state.bucket_ms, revisions.first()) {
        (0, Some(revision)) => revision.manifest.hour.width_ms,
        (0, None) => 3_600_000,
        (known, _) => known,
    };
    let (since_ms, until_ms) = span(wanted, hour_ms, &state, &revisions)?;
    let status = (!state.topology.is_empty()).then(|| ask(&state.topology, &state.state_root)).flatten();
    let starts_ms: Vec<i64> = std::iter::successors(Some(since_ms), |start| Some(start + hour_ms))
        .take_while(|start| *start < until_ms)
        .collect();
    let mut published: BTreeMap<(&str, Option<&str>), Vec<&Revision>> = BTreeMap::new();
    for revision in &revisions {
        let manifest = &revision.manifest;
        published.entry((&manifest.event_type, Some(&manifest.sink))).or_default().push(revision);
    }
    for name in state.types.keys().filter(|name| wanted.event_type.is_none_or(|wanted| ***name == *wanted)) {
        if !published.keys().any(|(known, _)| *known == &**name) {
            published.insert((name, None), Vec::new());
        }
    }
    let none = TypeHours::default();
    let mut types = Vec::new();
    for ((event_type, sink), revisions) in published {
        let of_sink = sink.and_then(|sink| state.sinks.get(sink));
        let first = state.types.get(event_type).unwrap_or(&none);
        // What a sink takes no more is missing nowhere.
        let is_taken = of_sink.is_none_or(|types| types.contains_key(event_type));
        let of_type = of_sink.and_then(|types| types.get(event_type)).unwrap_or(first);
        let hours = Hours { hour_ms, now_ms, lateness_ms: state.allowed_lateness_ms, starts_ms: &starts_ms, is_taken };
        let told = status.iter().flat_map(|status| &status.types).find(|told| told.name == *event_type);
        types.push(Row {
            event_type: event_type.to_owned(),
            sink: sink.map(str::to_owned),
            owner: revisions.first().and_then(|newest| newest.manifest.owner.clone()),
            sealed_before: of_type.sealed_before_ms.map(format_time_ms),
            watermark: told.and_then(|told| told.watermark_ms).map(format_time_ms),
            held_by: told.and_then(|told| told.held_by.clone()),
            revising_since: first.revising_since_ms.map(format_time_ms),
            hours: hours.of(event_type, &revisions, of_type, &first.open),
            manifests: (revisions.iter().rev())
                .filter(|revision| wanted.manifests && starts_ms.contains(&revision.start_ms))
                .map(|revision| revision.manifest.clone())
                .collect(),
        });
    }
    if let Some(wanted) = wanted.event_type.filter(|_| types.is_empty()) {
        let message = format!("nothing is known of a type `{wanted}` in {}", root.display());
        return Err(Failure::new(Code::Unavailable, message));
    }
    let mut report = Report {
        output_root: root.display().to_string(),
        at: format_time_ms(now_ms),
        since: format_time_ms(since_ms),
        until: format_time_ms(until_ms),
        hour_ms,
        topology: Some(state.topology).filter(|name| !name.is_empty()),
        cut_at: (state.at_ms > 0).then(|| format_time_ms(state.at_ms)),
        is_running: status.is_some(),
        is_partial,
        types,
        starts_ms,
    };
    if wanted.since_ms.is_none() {
        // Nothing was asked for: what lies before all that is known is left off.
        let first_ms = report.types.iter().filter_map(|row| row.hours.first()).map(|hour| hour.start_ms).min();
        report.starts_ms.retain(|start| first_ms.is_none_or(|first| *start >= first));
        if let Some(first) = report.starts_ms.first() {
            report.since = format_time_ms(*first);
        }
    }
    Ok(report)
}

/// All revisions of the hours that lie in a time, of one type or of all. Reads every manifest that was sealed from a day before on: some 10 µs each.
pub(crate) fn revisions(
    root: &Path,
    (since_ms, until_ms): (i64, i64),
    event_type: Option<&str>,
) -> Result<Vec<Revision>, Failure> {
    let wanted = Wanted { since_ms: Some(since_ms), until_ms: Some(until_ms), event_type, manifests: true };
    let mut faults = Vec::new();
    let limits = Limits { index_bytes: u64::MAX, revisions: usize::MAX, only_wanted: true };
    let (revisions, _) = published(root, &wanted, limits, &mut |error| faults.push(error))?;
    match faults.first() {
        None => Ok(revisions),
        Some(first) => Err(Failure::new(Code::Fault, first.to_string())),
    }
}

/// How much is looked at.
struct Limits {
    /// Of the index, from its end.
    index_bytes: u64,
    /// Manifests that are kept.
    revisions: usize,
    /// None are kept but those of the hours that are asked for.
    only_wanted: bool,
}

/// What was published, the newest first, and whether there may be more.
fn published(
    root: &Path,
    wanted: &Wanted<'_>,
    limits: Limits,
    fault: &mut dyn FnMut(RevisionError),
) -> Result<(Vec<Revision>, bool), Failure> {
    let index = newest(root, limits.index_bytes)?.ok_or_else(|| {
        let message = format!(
            "{} is not an output root of Tidemill: it has no index of what was published. Give the directory that `output.root` names",
            root.display()
        );
        Failure::new(Code::Unavailable, message)
    })?;
    let mut is_partial = index.is_partial;
    // After a restart a path may be there twice.
    let mut known = BTreeSet::new();
    let directories = index.paths.iter().filter_map(|path| path.strip_suffix(SUCCESS_NAME)?.strip_suffix('/'));
    let directories: Vec<&str> = directories.filter(|path| known.insert(*path)).collect();
    let (mut revisions, mut stop_ms): (Vec<Revision>, _) = (Vec::new(), wanted.since_ms.map(|since| since - DAY_MS));
    for chunk in directories.chunks(AT_ONCE) {
        if revisions.len() >= limits.revisions {
            is_partial = true;
            break;
        }
        let read: Vec<_> = chunk.par_iter().map(|path| Revision::read(&root.join(path))).collect();
        let mut newest_ms = i64::MIN;
        for revision in read {
            match revision {
                Ok(Some(revision)) => {
                    newest_ms = newest_ms.max(revision.sealed_at_ms);
                    // Without a word, the newest hours are shown: those before them were sealed before.
                    let last_ms =
                        wanted.until_ms.map_or(revision.sealed_at_ms, |until_ms| until_ms.min(revision.sealed_at_ms));
                    stop_ms.get_or_insert(last_ms - HOURS * revision.manifest.hour.width_ms - DAY_MS);
                    let is_of_type = wanted.event_type.is_none_or(|wanted| revision.manifest.event_type == wanted);
                    let is_in_time = wanted.since_ms.is_none_or(|since_ms| revision.end_ms() > since_ms)
                        && wanted.until_ms.is_none_or(|until_ms| revision.start_ms < until_ms);
                    if is_of_type && (is_in_time || !limits.only_wanted) {
                        revisions.push(revision);
                    }
                }
                Ok(None) => {}
                Err(error) => fault(error),
            }
        }
        // An hour is sealed behind its end, and the index is in order of seals.
        if stop_ms.is_some_and(|stop_ms| newest_ms < stop_ms) {
            is_partial = false;
            break;
        }
    }
    Ok((revisions, is_partial))
}

/// The first and the last hour to be shown; the latter's end.
fn span(wanted: &Wanted<'_>, hour_ms: i64, state: &HourState, revisions: &[Revision]) -> Result<(i64, i64), Failure> {
    let is_of_type = |name: &str| wanted.event_type.is_some() || name != DEAD_LETTER_TYPE;
    let open = state.types.iter().filter(|(name, _)| is_of_type(name)).flat_map(|(_, hours)| &hours.open);
    let sealed = revisions.iter().filter(|revision| is_of_type(&revision.manifest.event_type));
    let ends = open.map(|start| start + hour_ms).chain(sealed.map(Revision::end_ms));
    let unpublished = state.types.values().filter_map(|hours| hours.published_before_ms.and(hours.sealed_before_ms));
    let newest_ms = ends.chain(unpublished).max().unwrap_or_default();
    let until_ms = wanted.until_ms.unwrap_or(newest_ms.max(wanted.since_ms.map_or(i64::MIN, |since| since + hour_ms)));
    let since_ms = wanted.since_ms.unwrap_or(until_ms - HOURS * hour_ms);
    if since_ms >= until_ms {
        return Err(Failure::new(
            Code::Usage,
            "no time lies between --since and --until: --since has to be the earlier",
        ));
    }
    let since_ms = Bucket::of(since_ms, hour_ms).start_ms;
    let count = (until_ms - since_ms + hour_ms - 1) / hour_ms;
    if count > HOURS_MAX {
        let message = format!(
            "{count} hours are too many to be shown: name a shorter time with --since and --until ({HOURS_MAX} hours at most)"
        );
        return Err(Failure::new(Code::Usage, message));
    }
    Ok((since_ms, since_ms + count * hour_ms))
}

struct Hours<'a> {
    hour_ms: i64,
    now_ms: i64,
    lateness_ms: i64,
    /// The sink takes the type.
    is_taken: bool,
    starts_ms: &'a [i64],
}

impl Hours<'_> {
    /// `open`: hours that are open where the type comes first.
    fn of(&self, event_type: &str, revisions: &[&Revision], of_type: &TypeHours, open: &[i64]) -> Vec<Hour> {
        let mut by_start: BTreeMap<i64, Vec<&Revision>> = BTreeMap::new();
        for revision in revisions {
            by_start.entry(revision.start_ms).or_default().push(revision);
        }
        // Every hour from the first one on is published when it is sealed, unless fields are in the path; those of dead letters only with letters.
        let is_whole =
            event_type != DEAD_LETTER_TYPE && revisions.iter().all(|revision| revision.manifest.path_values.is_empty());
        let is_sealed = |revision: &&&Revision| revision.manifest.revision == 0;
        let first_ms = revisions.iter().filter(is_sealed).map(|revision| revision.start_ms).min();
        let newest_ms = revisions.iter().filter(is_sealed).map(|revision| revision.end_ms()).max();
        let sealed_before_ms = of_type.sealed_before_ms.or(newest_ms).unwrap_or(i64::MIN);
        let hour = |start_ms: &i64| {
            let end_ms = start_ms + self.hour_ms;
            if let Some(revisions) = by_start.remove(start_ms) {
                let has_first = revisions.iter().any(|revision| revision.manifest.revision == 0);
                let hour = Hour::sealed(revisions)?;
                let is_gone = is_whole && !has_first && first_ms.is_some_and(|first| first < *start_ms);
                return Some(if is_gone { Hour { state: State::Missing, ..hour } } else { hour });
            }
            if open.contains(start_ms) || of_type.open.contains(start_ms) {
                let overdue_ms = self.now_ms - end_ms - self.lateness_ms;
                return Some(match overdue_ms > GRACE_MS {
                    true => Hour::unpublished(*start_ms, State::Overdue, Some(overdue_ms)),
                    false => Hour::unpublished(*start_ms, State::Open, None),
                });
            }
            // Of others it is not known that there is anything.
            let is_complete = self.is_taken && is_whole;
            let waits = of_type.published_before_ms.is_some_and(|before_ms| end_ms > before_ms);
            if is_complete && waits && end_ms <= sealed_before_ms {
                return Some(Hour::unpublished(*start_ms, State::Unpublished, None));
            }
            let should_be =
                is_complete && end_ms <= sealed_before_ms && first_ms.is_some_and(|first| first < *start_ms);
            should_be.then(|| Hour::unpublished(*start_ms, State::Missing, None))
        };
        let hours: Vec<Hour> = self.starts_ms.iter().filter_map(hour).collect();
        let is_missing = |hour: &Hour| hour.state == State::Missing;
        let runs = hours.chunk_by(|a, b| is_missing(a) == is_missing(b)).map(<[Hour]>::len).collect::<Vec<_>>();
        let mut hours = hours.into_iter();
        let mut kept = Vec::new();
        for length in runs {
            let run: Vec<Hour> = hours.by_ref().take(length).collect();
            if !(run.len() as i64 > GAP_HOURS_MAX && run.iter().all(is_missing)) {
                kept.extend(run);
            }
        }
        kept
    }
}
