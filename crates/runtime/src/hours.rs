//! What state directories say of hours, for those who look at them from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_topology::MAIN;

use crate::error::RunError;
use crate::host::System;
use crate::ledger::{Committed, Ledger};
use crate::state_dir::{REGIONS, claimed_by};

/// What the last cuts of a topology say of its hours.
#[derive(Clone, Debug, Default)]
pub struct HourState {
    /// Name of the topology.
    pub topology: String,
    /// The state directory.
    pub state_root: PathBuf,
    /// Wall clock of the last cut of the region that has the sources, in milliseconds since 1970.
    pub at_ms: i64,
    /// Width of an hour, in milliseconds.
    pub bucket_ms: i64,
    /// How long an hour is left open behind its end, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// By type, where it comes first.
    pub types: BTreeMap<Arc<str>, TypeHours>,
    /// Sinks, with the types that they take now, as far as their regions are: behind a pond hours are sealed later.
    pub sinks: BTreeMap<String, BTreeMap<Arc<str>, TypeHours>>,
}

/// The hours of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeHours {
    /// Hours that end at or before it are sealed, in milliseconds since 1970.
    pub sealed_before_ms: Option<i64>,
    /// Where not all of them are published yet: those are that end at or before this.
    pub published_before_ms: Option<i64>,
    /// Starts of hours with events that are not sealed.
    pub open: Vec<i64>,
    /// Since when late events wait for a revision (wall clock, milliseconds since 1970).
    pub revising_since_ms: Option<i64>,
}

/// What the state directory that an output root belongs to says of hours; `None` when it is not on this machine, or has no cut yet. Reads its ledgers, each of 16 MiB
/// at most, and changes nothing; a run may go on meanwhile.
///
/// # Errors
/// When the claim or a ledger can't be read.
pub fn hour_state(output: &Path) -> Result<Option<HourState>, RunError> {
    let Some(state_root) = claimed_by(output)? else { return Ok(None) };
    let Some((main, _)) = Ledger::peek(&System, &state_root)? else { return Ok(None) };
    let mut state = HourState { state_root: state_root.clone(), at_ms: main.last.at_ms, ..HourState::default() };
    if let Some(fingerprint) = &main.fingerprint {
        state.topology = fingerprint.topology().to_owned();
        state.bucket_ms = fingerprint.bucket_ms();
        state.allowed_lateness_ms = fingerprint.allowed_lateness_ms();
    }
    let mut regions: BTreeMap<String, BTreeMap<Arc<str>, TypeHours>> = BTreeMap::new();
    for region in std::fs::read_dir(state_root.join(REGIONS)).into_iter().flatten().flatten() {
        if let Some((committed, _)) = Ledger::peek(&System, &region.path())? {
            regions.insert(region.file_name().to_string_lossy().into_owned(), types(&committed));
        }
    }
    let of_main = types(&main);
    // A type that is made behind a pond is known there only.
    let behind_ponds = regions.values().flatten().map(|(name, hours)| (name.clone(), hours.clone()));
    state.types = behind_ponds.chain(of_main.clone()).collect();
    regions.insert(MAIN.to_owned(), of_main);
    for (sink, region, accepts) in main.fingerprint.iter().flat_map(|fingerprint| fingerprint.sinks()) {
        let known = regions.get(region);
        let of_type = |name: &String| {
            let hours = known.and_then(|known| known.get(name.as_str())).cloned().unwrap_or_default();
            (name.as_str().into(), hours)
        };
        state.sinks.insert(sink.to_owned(), accepts.iter().map(of_type).collect());
    }
    Ok(Some(state))
}

fn types(committed: &Committed) -> BTreeMap<Arc<str>, TypeHours> {
    let mut types: BTreeMap<Arc<str>, TypeHours> = BTreeMap::new();
    for (name, before_ms) in &committed.sealed_before_ms {
        types.entry(name.clone()).or_default().sealed_before_ms = Some(*before_ms);
    }
    for (name, before_ms) in committed.outbox.values().flat_map(|batch| &batch.published_before_ms) {
        types.entry(name.clone()).or_default().published_before_ms.get_or_insert(*before_ms);
    }
    for (name, open) in committed.open.iter().filter(|(_, open)| !open.is_empty()) {
        types.entry(name.clone()).or_default().open = open.iter().copied().collect();
    }
    for (name, since_ms) in &committed.last.revising {
        types.entry(name.clone()).or_default().revising_since_ms = Some(*since_ms);
    }
    types
}
