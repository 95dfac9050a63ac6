//! What is published of an hour, and can be read once more.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_actors::sink::{Manifest, Mode};
use tidemill_core::{DEAD_LETTER_TYPE, LatePolicy, format_time_ms};
use tidemill_topology::Plan;

use crate::exit::{Code, Failure};
use crate::hours::Report;

/// The hour of a type in a sink.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) event_type: String,
    pub(crate) sink: String,
    pub(crate) hour_start_ms: i64,
    /// Its last revision.
    pub(crate) base: u32,
    /// Manifests of the revisions that are the hour as it is known now.
    pub(crate) read: Vec<Manifest>,
    /// The last revision.
    pub(crate) last: Manifest,
    /// Directories of all revisions, below the output root and without the number; with the values of fields in each.
    pub(crate) paths: BTreeMap<String, BTreeMap<String, String>>,
}

/// The part of a manifest's path without the revision.
pub(crate) fn hour_path(manifest: &Manifest) -> &str {
    let revision = format!("/rev={}", manifest.revision);
    manifest.path.strip_suffix(&revision).unwrap_or(&manifest.path)
}

impl Target {
    fn of(manifests: Vec<Manifest>, hour_start_ms: i64) -> Option<Self> {
        let last = manifests.iter().max_by_key(|manifest| manifest.revision)?.clone();
        let is_whole = |manifest: &&Manifest| matches!(manifest.mode, Mode::Complete | Mode::Replace);
        let first = manifests.iter().filter(is_whole).map(|manifest| manifest.revision).max().unwrap_or(0);
        let paths = manifests.iter().map(|manifest| (hour_path(manifest).to_owned(), manifest.path_values.clone()));
        Some(Self {
            event_type: last.event_type.clone(),
            sink: last.sink.clone(),
            hour_start_ms,
            base: last.revision,
            paths: paths.collect(),
            read: manifests.into_iter().filter(|manifest| manifest.revision >= first).collect(),
            last,
        })
    }
}

/// What of an hour can be read once more: of one type, or of all. What can't is told to `skip`, unless it was asked for by name.
pub(crate) fn targets(
    report: Report,
    plan: &Plan,
    hour_start_ms: i64,
    event_type: Option<&str>,
    skip: &mut dyn FnMut(String),
) -> Result<Vec<Target>, Failure> {
    let hour = format_time_ms(hour_start_ms);
    let next_hour: BTreeSet<&str> = (plan.types.iter().chain(plan.nodes.iter().flat_map(|node| &node.sends)))
        .filter(|of| of.late.policy == LatePolicy::NextHour)
        .map(|of| &*of.name)
        .collect();
    let mut targets = Vec::new();
    let mut refused = Vec::new();
    for row in report.types {
        let Some(sink) = row.sink.filter(|_| row.event_type != *DEAD_LETTER_TYPE) else { continue };
        let name = &row.event_type;
        let takes = plan.nodes.iter().find(|node| *node.name == *sink);
        let takes = takes.is_some_and(|node| node.accepts.iter().any(|of| *of.name == **name));
        if next_hour.contains(name.as_str()) {
            refused.push(format!(
                "type `{name}` has `late = \"next_hour\"`: its files hold events of other hours, so that no hour can be read again by itself"
            ));
        } else if !takes {
            refused.push(format!("type `{name}` does not come to a sink `{sink}` in this topology any more"));
        } else if let Some(target) = Target::of(row.manifests, hour_start_ms) {
            targets.push(target);
        }
    }
    match (targets.is_empty(), event_type) {
        (false, _) => refused.into_iter().for_each(skip),
        (true, _) if !refused.is_empty() => return Err(Failure::new(Code::Unavailable, refused.join("\ntidemill: "))),
        (true, Some(event_type)) => {
            let message = format!(
                "no revision of the hour {hour} of `{event_type}` is published, so there is none to be made once more"
            );
            return Err(Failure::new(Code::Unavailable, message));
        }
        (true, None) => {
            let message = format!("nothing of the hour {hour} is published, so there is nothing to be made once more");
            return Err(Failure::new(Code::Unavailable, message));
        }
    }
    Ok(targets)
}
