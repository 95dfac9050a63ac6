//! Whether what the ledgers of all regions say fits together, and fits the topology. Nothing is touched.

use tidemill_topology::{Fingerprint, Regions};

use crate::error::RunError;
use crate::ledger::{Committed, Ledger};
use crate::pond::extent;
use crate::pond::reader::offset_in;
use crate::state_dir::StateDir;

/// Looks at all ledgers before anything is changed: whether the state can be used with the topology as it is now, and whether the regions
/// agree on their ponds. Returns what the ledgers say of each region.
pub(crate) fn consistent(
    state: &StateDir,
    divided: &Regions,
    fingerprint: &Fingerprint,
) -> Result<Vec<Option<Committed>>, RunError> {
    let mut ledgers: Vec<Option<Committed>> = Vec::new();
    for region in &divided.regions {
        let root = state.region_root(&region.name);
        let peeked = if state.host.exists(&root) { Ledger::peek(&*state.host, &root)? } else { None };
        ledgers.push(peeked.map(|(committed, _)| committed));
    }
    if let Some(main) = &ledgers[0] {
        follows(main, fingerprint)?;
    }
    for pond in &divided.ponds {
        let written = ledgers[pond.from].as_ref().and_then(|committed| committed.logs.get(&pond.name));
        let Some(written) = written.filter(|written| !written.is_empty()) else { continue };
        let (first, end) = extent(written);
        let (from, to) = (&divided.regions[pond.from].name, &divided.regions[pond.to].name);
        let path = state.region_root(to);
        let Some(read) = &ledgers[pond.to] else {
            let what =
                format!("the ledger of region `{to}` is gone: how far its pond `{}` was delivered is lost", pond.name);
            return Err(RunError::Corrupt { what, path });
        };
        let at = offset_in(&read.positions, &pond.name);
        if !(first..=end).contains(&at) {
            let what = format!(
                "region `{to}` has read the pond `{}` up to byte {at}, but region `{from}` has bytes {first} to {end} of it: one of their ledgers has lost records",
                pond.name
            );
            return Err(RunError::Corrupt { what, path });
        }
    }
    Ok(ledgers)
}

/// Whether the state can be used with the topology as it is now.
pub(crate) fn follows(committed: &Committed, fingerprint: &Fingerprint) -> Result<(), RunError> {
    let Some(old) = &committed.fingerprint else { return Ok(()) };
    let refused = old.compare(fingerprint).into_iter().filter(|change| !change.compatible);
    let changes: Vec<String> = refused.map(|change| format!("  - {}; {}", change.what, change.help)).collect();
    if changes.is_empty() { Ok(()) } else { Err(RunError::Incompatible { changes }) }
}
