//! What is published of an hour, and can be read once more.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_actors::sink::{Manifest, Revision};
use tidemill_core::{DEAD_LETTER_TYPE, LatePolicy, format_time_ms};
use tidemill_topology::Plan;

use crate::exit::{Code, Failure};

/// The hour of a type in a sink.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) event_type: String,
    pub(crate) sink: String,
    pub(crate) hour_start_ms: i64,
    /// A stage makes it of other events.
    pub(crate) is_made: bool,
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
    fn of(manifests: Vec<Manifest>, is_made: bool, hour_start_ms: i64) -> Option<Self> {
        let last = manifests.iter().max_by_key(|manifest| manifest.revision)?.clone();
        let first = manifests
            .iter()
            .filter(|manifest| manifest.mode.is_whole())
            .map(|manifest| manifest.revision)
            .max()
            .unwrap_or(0);
        let paths = manifests.iter().map(|manifest| (hour_path(manifest).to_owned(), manifest.path_values.clone()));
        Some(Self {
            event_type: last.event_type.clone(),
            sink: last.sink.clone(),
            hour_start_ms,
            is_made,
            base: last.revision,
            paths: paths.collect(),
            read: manifests.into_iter().filter(|manifest| manifest.revision >= first).collect(),
            last,
        })
    }
}

/// What of an hour can be read once more, of what is published of it. What can't is told to `skip`; when nothing can, that is the failure.
pub(crate) fn targets(
    revisions: Vec<Revision>,
    plan: &Plan,
    hour_start_ms: i64,
    skip: &mut dyn FnMut(String),
) -> Result<Vec<Target>, Failure> {
    let mut by_sink: BTreeMap<(String, String), Vec<Manifest>> = BTreeMap::new();
    for Revision { manifest, .. } in revisions {
        by_sink.entry((manifest.event_type.clone(), manifest.sink.clone())).or_default().push(manifest);
    }
    // Their rows name cuts.
    let told = plan.nodes.iter().filter(|node| node.kind.name == "audit").flat_map(|node| &node.sends);
    let told: BTreeSet<&str> = told.map(|of| &*of.name).collect();
    by_sink.retain(|(name, _), _| *name != *DEAD_LETTER_TYPE);
    let mut targets = Vec::new();
    let mut refused = Vec::new();
    for ((name, sink), manifests) in by_sink {
        let takes = plan.nodes.iter().filter(|node| *node.name == *sink).flat_map(|node| &node.accepts);
        match takes.into_iter().find(|of| *of.name == *name) {
            _ if told.contains(&*name) => {
                refused.push(format!("type `{name}` tells what was counted then, which can't be made once more"));
            }
            None => refused.push(format!("type `{name}` does not come to a sink `{sink}` in this topology any more")),
            Some(of) => {
                let is_mixed = |manifest: &Manifest| manifest.late_of_earlier_hours > 0;
                if of.late.policy == LatePolicy::NextHour || manifests.iter().any(is_mixed) {
                    refused.push(format!(
                        "files of type `{name}` hold events of other hours (`late = \"next_hour\"`), so that no hour can be read again by itself"
                    ));
                } else {
                    let is_made = !plan.types.iter().any(|declared| *declared.name == *name);
                    targets.extend(Target::of(manifests, is_made, hour_start_ms));
                }
            }
        }
    }
    match (targets.is_empty(), refused.is_empty()) {
        (false, _) => refused.into_iter().for_each(skip),
        (true, false) => return Err(Failure::new(Code::Unavailable, refused.join("\ntidemill: "))),
        (true, true) => {
            let hour = format_time_ms(hour_start_ms);
            let message = format!(
                "nothing of the hour {hour} is published, of what is asked for, so there is nothing to be made once more"
            );
            return Err(Failure::new(Code::Unavailable, message));
        }
    }
    Ok(targets)
}
