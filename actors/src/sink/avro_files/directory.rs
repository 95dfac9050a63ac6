//! One open directory: an hour of a type, for one list of values in its path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidemill_core::{
    Effects, EventType, Hour, HourTotals, IdSum, PRODUCERS_OF, Partitions, RevisionMode, SealReason, Seals, Totals,
    format_time_ms, ids_algorithm,
};

use super::blocks::Finished;
use super::hours::Noted;
use super::pending::Pending;
use super::place::{Place, output_log};
use crate::sink::container::{Format, SYNC_LEN, header};
use crate::sink::json::hex;
use crate::sink::manifest::{
    Counted, EventTimes, FileEntry, Ids, MANIFEST_FORMAT, MANIFEST_VERSION, Manifest, ManifestHour, ManifestProducers,
    Mode, WriterInfo,
};

/// What all directories of a sink have in common.
pub(super) struct Owner {
    pub(super) topology: String,
    pub(super) state_id: String,
    pub(super) sink: String,
    pub(super) path_template: String,
}

/// What is counted of a directory's events.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) rows: u64,
    pub(super) id_sum: u128,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) late: u64,
    /// Late events of earlier hours.
    pub(super) earlier: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { rows: 0, id_sum: 0, min_ms: i64::MAX, max_ms: i64::MIN, late: 0, earlier: 0 }
    }
}

/// A file that is being written.
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) format: Arc<Format>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: Sha256,
    sync: [u8; SYNC_LEN],
    log: String,
}

/// A file that is finished.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FinishedPart {
    entry: FileEntry,
    log: String,
}

pub(super) struct Directory {
    /// Tells it from all others that the sink ever has.
    pub(super) id: u64,
    /// Since it was written to its piece.
    pub(super) is_changed: bool,
    pub(super) event_type: Arc<EventType>,
    pub(super) hour: Hour,
    /// 0 until the hour is sealed; the number of a further one for late events.
    pub(super) revision: u32,
    /// Below the output root, without the revision.
    pub(super) path: String,
    pub(super) path_values: BTreeMap<String, String>,
    pub(super) counts: Counts,
    /// Rows that are not yet in a block.
    pub(super) pending: Pending,
    pub(super) next_part: u32,
    pub(super) part: Option<Part>,
    pub(super) finished: Vec<FinishedPart>,
    /// Its place among the groups of the batch in hand.
    pub(super) group: Option<usize>,
}

impl Directory {
    pub(super) fn new(
        id: u64,
        event_type: Arc<EventType>,
        hour: Hour,
        revision: u32,
        path: String,
        path_values: BTreeMap<String, String>,
        pending: Pending,
    ) -> Self {
        Self {
            id,
            is_changed: true,
            event_type,
            hour,
            revision,
            path,
            path_values,
            counts: Counts::default(),
            pending,
            next_part: 0,
            part: None,
            finished: Vec::new(),
            group: None,
        }
    }

    fn place<'a>(&'a self, owner: &'a Owner) -> Place<'a> {
        let event_type = &self.event_type.name;
        Place { owner, event_type, hour_start_ms: self.hour.start_ms, path: &self.path, revision: self.revision }
    }

    /// A part as it begins, or as it was when `rows`, `bytes` and `sha256` were saved.
    pub(super) fn make_part(&self, owner: &Owner, number: u32, format: Arc<Format>) -> Part {
        let place = self.place(owner);
        let identity = place.identity(number, &format.fingerprint);
        Part {
            number,
            rows: 0,
            bytes: 0,
            sha256: Sha256::new(),
            sync: identity.sync(),
            log: place.log_name(&identity, &format!("p{number:05}.avro")),
            format,
        }
    }

    /// Appends a block to the open part; begins one if there is none, or if the open one has another format; ends it when it
    /// has reached `roll_size`. Which part a block is in depends on the blocks before it only, not on when it was compressed.
    pub(super) fn append(&mut self, owner: &Owner, block: Finished, roll_size: u64, effects: &mut Effects) {
        if self.part.as_ref().is_some_and(|part| part.format != block.format) {
            self.finish_part();
        }
        let mut part = match self.part.take() {
            Some(part) => part,
            None => {
                let mut part = self.make_part(owner, self.next_part, block.format);
                self.next_part += 1;
                let sync = part.sync;
                let header = header(&part.format, sync);
                part.push(header, effects);
                part
            }
        };
        let mut bytes = block.bytes;
        bytes.extend_from_slice(&part.sync);
        part.rows += block.rows;
        part.push(bytes, effects);
        let full = part.bytes >= roll_size;
        self.part = Some(part);
        self.is_changed = true;
        if full {
            self.finish_part();
        }
    }

    fn finish_part(&mut self) {
        let Some(part) = self.part.take() else { return };
        let entry = FileEntry {
            // It is named when it is published.
            name: String::new(),
            rows: part.rows,
            bytes: part.bytes,
            sha256: hex(&part.sha256.finalize()),
            schema_fingerprint: part.format.fingerprint.clone(),
            codec: part.format.codec.name().to_owned(),
        };
        self.finished.push(FinishedPart { entry, log: part.log });
    }

    /// It becomes a later revision than it was to be. No block may be on its way.
    pub(super) fn renumber(&mut self, revision: u32) {
        // The file that is open has the name of the revision before.
        self.finish_part();
        self.revision = revision;
        self.is_changed = true;
    }

    /// What was written of it: rows in parts, and those that are not in a block yet. No block may be on its way.
    pub(super) fn holds(&self) -> HourTotals {
        let finished = self.finished.iter().map(|part| part.entry.rows);
        let events = finished.chain(self.part.as_ref().map(|part| part.rows)).sum::<u64>() + self.pending.rows();
        let totals = Totals { events, ids: IdSum(self.counts.id_sum) };
        HourTotals { event_type: self.event_type.name.clone(), hour: self.hour, totals }
    }

    /// Ends the directory: publishes its parts, its manifest and its mark. All blocks must have been appended. `first`: the revision that the hour as it is
    /// known now begins with.
    pub(super) fn close(
        mut self,
        owner: &Owner,
        seals: &Seals,
        reason: SealReason,
        noted: &Noted,
        first: u32,
        effects: &mut Effects,
    ) {
        self.finish_part();
        effects.closed.push(self.holds());
        let place = self.place(owner);
        let manifest = self.manifest(&place, seals, reason, noted);
        place.publish(self.finished.iter().map(|part| output_log(&part.log)), &manifest, first, effects);
    }

    /// What its seal did not wait for: of producers, those of its own type. A type that a stage makes has none of its own, and may lack events of any.
    fn not_waited_for(&self, without: &Partitions) -> BTreeMap<String, Vec<String>> {
        let own = format!("{PRODUCERS_OF}{}", self.event_type.name);
        let is_made = self.event_type.producers.is_none();
        let concerns = |source: &str| is_made || !source.starts_with(PRODUCERS_OF) || *source == *own;
        let of_source = |names: &BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
        let concerned = without.iter().filter(|(source, _)| concerns(source));
        concerned.map(|(source, names)| (source.to_string(), of_source(names))).collect()
    }

    fn mode(&self) -> Mode {
        match (self.revision, self.event_type.late.mode) {
            (0, _) => Mode::Complete,
            (_, RevisionMode::Append) => Mode::Append,
            (_, RevisionMode::Delta) => Mode::Delta,
            (_, RevisionMode::Replace) => Mode::Replace,
        }
    }

    fn manifest(&self, place: &Place<'_>, seals: &Seals, reason: SealReason, noted: &Noted) -> Manifest {
        let (event_type, owner) = (&self.event_type, place.owner);
        let some = self.counts.rows > 0;
        let ids = (!event_type.id.is_empty()).then(|| Ids {
            algorithm: ids_algorithm().to_owned(),
            fields: event_type.id.iter().map(|at| event_type.fields[*at].name.clone()).collect(),
            sum: IdSum(self.counts.id_sum).to_string(),
        });
        let counted =
            |totals: &Totals| Counted { events: totals.events, ids: ids.as_ref().map(|_| totals.ids.to_string()) };
        let positions = seals.positions_for(&event_type.name);
        let positions = positions.iter().map(|(source, partitions)| {
            let next = partitions.iter().map(|(partition, position)| (partition.to_string(), position.next));
            (source.to_string(), next.collect())
        });
        Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            version: MANIFEST_VERSION,
            topology: owner.topology.clone(),
            sink: owner.sink.clone(),
            state_id: owner.state_id.clone(),
            event_type: event_type.name.to_string(),
            made_of: event_type.made_of.iter().map(ToString::to_string).collect(),
            owner: event_type.owner.clone(),
            tier: event_type.tier.as_str().to_owned(),
            hour: ManifestHour {
                start: format_time_ms(self.hour.start_ms),
                end: format_time_ms(self.hour.end_ms()),
                width_ms: self.hour.width_ms,
            },
            path_template: owner.path_template.clone(),
            path_values: self.path_values.clone(),
            path: place.directory(),
            revision: self.revision,
            mode: self.mode(),
            count: self.counts.rows,
            ids: ids.clone(),
            event_time: EventTimes {
                field: event_type.fields[event_type.time].name.clone(),
                min: some.then(|| format_time_ms(self.counts.min_ms)),
                max: some.then(|| format_time_ms(self.counts.max_ms)),
            },
            duplicates_dropped: noted.duplicates,
            refused: noted.refused,
            counted: noted.counted.iter().map(|(stage, (_, totals))| (stage.clone(), counted(totals))).collect(),
            producers: ManifestProducers::of(&noted.producers),
            late_within_allowed: self.counts.late,
            late_of_earlier_hours: self.counts.earlier,
            files: (self.finished.iter().enumerate())
                .map(|(number, part)| FileEntry {
                    name: place.identity(number as u32, &part.entry.schema_fingerprint).part_name(&part.entry.sha256),
                    ..part.entry.clone()
                })
                .collect(),
            positions: positions.collect(),
            not_waited_for: if reason == SealReason::Silent {
                self.not_waited_for(&seals.without)
            } else {
                BTreeMap::new()
            },
            cut: seals.cut,
            sealed_at: format_time_ms(seals.at_ms),
            reason,
            request: None,
            writer: WriterInfo { name: "tidemill".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        }
    }
}

impl Part {
    fn push(&mut self, bytes: Vec<u8>, effects: &mut Effects) {
        self.sha256.update(&bytes);
        self.bytes += bytes.len() as u64;
        effects.appends.push((output_log(&self.log), bytes));
    }
}
