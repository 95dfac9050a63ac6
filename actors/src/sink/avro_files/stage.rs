//! The worker: which directory a row belongs to, when blocks are cut, what a seal closes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{
    Batch, Counts, DEAD_LETTER_TYPE, DeadLetter, Effects, EventType, Hour, HourTotals, Input, KeyColumns, LatePolicy,
    Limits, PieceChanges, PieceReader, Reason, RevisionMode, SealReason, Seals, Stage, StageContext, StageError,
    TimeColumn, Totals,
};
use xxhash_rust::xxh3::xxh3_64;

use super::Config;
use super::directory::Owner;
use super::files::{Files, Group};
use super::hours::{Noted, OpenHour, TypeState};
use super::state::{Head, damaged, name_of, read, value};
use super::true_hour;
use crate::by_hour::{ByHour, hour_and_type};
use crate::sink::container::Format;
use crate::sink::encode::RowEncoder;
use crate::sink::json::scalar_text;
use crate::sink::template::{Template, encode_value};

/// The worker of `avro_files`.
pub(super) struct AvroFilesStage {
    pub(super) files: Files,
    pub(super) template: Template,
    pub(super) limits: Arc<Limits>,
    pub(super) types: Vec<TypeState>,
    /// The request that was answered last.
    pub(super) answered: Option<String>,
    /// Greatest event time by source and partition, and whether it is newer than what was written of it.
    seen: BTreeMap<(Arc<str>, Arc<str>), (i64, bool)>,
    memory_bytes: u64,
    /// Hours, by type, whose totals have changed since they were asked for.
    touched: BTreeSet<(usize, i64)>,
    /// Pieces of what does not arrive any more.
    strangers: PieceChanges,
    groups: Vec<Group>,
    /// Bytes of the path's fields: of the row in hand, and of the row before it.
    key: Vec<u8>,
    last_key: Vec<u8>,
}

impl AvroFilesStage {
    pub(super) fn new(context: &StageContext<'_>) -> Result<Self, StageError> {
        let input = &context.input;
        let config: Config = input
            .options
            .parse()
            .map_err(|error| StageError { message: format!("sink `{}`", input.name), source: Some(error.into()) })?;
        let path = config.path(&input.limits);
        let template =
            Template::parse(&path).map_err(|_| StageError::new(format!("sink `{}`: bad path `{path}`", input.name)))?;
        let owner = Owner {
            topology: context.topology.to_string(),
            state_id: context.state_id.to_string(),
            sink: input.name.to_string(),
            path_template: template.text().to_owned(),
        };
        let state_of = |event_type: &Arc<EventType>| {
            let column = |name: &str| {
                event_type.field(name).map(|(at, _)| at).ok_or_else(|| {
                    StageError::new(format!("type `{}` has no field `{name}` for the path", event_type.name))
                })
            };
            let sealed_before_ms = context.sealed_before_ms.get(&event_type.name).copied().unwrap_or(i64::MIN);
            let has_true_hour = event_type.late.policy == LatePolicy::NextHour;
            let (schema_json, fingerprint) = match has_true_hour {
                true => true_hour::schema(event_type)?,
                false => (event_type.schema_json.clone(), event_type.fingerprint.clone()),
            };
            Ok(TypeState {
                event_type: event_type.clone(),
                format: Arc::new(Format {
                    event_type: event_type.name.to_string(),
                    schema_json,
                    fingerprint,
                    has_true_hour,
                    codec: config.codec,
                }),
                path_fields: template.fields().into_iter().map(column).collect::<Result<_, _>>()?,
                sealed_before_ms,
                given_up_ms: sealed_before_ms,
                has_begun: false,
                hours: BTreeMap::new(),
                revised: ByHour::default(),
                noted: ByHour::default(),
            })
        };
        let types = input.types.iter().map(state_of).collect::<Result<_, StageError>>()?;
        let mut stage = Self {
            files: Files::new(owner, config, context.gives_way, context.pieces.clone()),
            template,
            limits: input.limits.clone(),
            types,
            answered: None,
            seen: BTreeMap::new(),
            memory_bytes: context.memory_bytes,
            touched: BTreeSet::new(),
            strangers: PieceChanges::new(),
            groups: Vec::new(),
            key: Vec::new(),
            last_key: Vec::new(),
        };
        if let Some(snapshot) = context.snapshot {
            stage.restore(snapshot, &*context.pieces)?;
        }
        Ok(stage)
    }

    fn restore(&mut self, snapshot: &[u8], pieces: &dyn PieceReader) -> Result<(), StageError> {
        let head = Head::read(snapshot, self.limits.bucket_ms)?;
        self.answered = head.answered;
        self.files.next_directory = head.next_directory;
        for (name, horizon) in head.sealed {
            if let Some(state) = self.type_named(&name) {
                state.sealed_before_ms = state.sealed_before_ms.max(horizon);
                state.has_begun = true;
            }
        }
        for (name, given_up_ms) in head.given_up {
            if let Some(state) = self.type_named(&name) {
                state.given_up_ms = given_up_ms;
            }
        }
        for (name, bytes) in read(pieces, "s/")? {
            let (source, partition) = name.split_once('/').unwrap_or((&name, ""));
            self.seen.insert((source.into(), partition.into()), (value(&bytes)?, false));
        }
        for (name, bytes) in read(pieces, "n/")? {
            let (start_ms, event_type) = hour_and_type(&name).ok_or_else(damaged)?;
            match self.type_named(event_type) {
                Some(state) => state.noted.restore(start_ms, value(&bytes)?),
                None => self.strangers.push((format!("n/{name}"), None)),
            }
        }
        for (name, bytes) in read(pieces, "v/")? {
            let (start_ms, event_type) = hour_and_type(&name).ok_or_else(damaged)?;
            match self.type_named(event_type) {
                Some(state) => state.revised.restore(start_ms, value(&bytes)?),
                None => self.strangers.push((format!("v/{name}"), None)),
            }
        }
        let types = self.types.iter().map(|state| (state.event_type.name.clone(), state.event_type.clone())).collect();
        for directory in self.files.restored(self.limits.bucket_ms, &types)? {
            let number = self.files.directories.len();
            let start_ms = directory.hour.start_ms;
            self.touched.extend(self.type_index(&directory.event_type.name).map(|index| (index, start_ms)));
            if let Some(state) = self.type_named(&directory.event_type.name) {
                let hours = state.hours.entry(directory.hour.start_ms);
                let paths = &mut hours.or_insert_with(|| OpenHour::new(directory.revision)).by_path;
                paths.insert(directory.path.clone(), number);
                self.files.directories.push(Some(directory));
            }
        }
        Ok(())
    }

    fn type_named(&mut self, name: &str) -> Option<&mut TypeState> {
        self.types.iter_mut().find(|state| *state.event_type.name == *name)
    }

    pub(super) fn type_index(&self, name: &str) -> Option<usize> {
        self.types.iter().position(|state| *state.event_type.name == *name)
    }

    fn write(&mut self, batch: &Batch, effects: &mut Effects) -> Result<(), StageError> {
        let name = &batch.event_type.name;
        let index = self
            .type_index(name)
            .ok_or_else(|| StageError::new(format!("type `{name}` arrives, which the sink was not planned for")))?;
        let event_type = self.types[index].event_type.clone();
        let records = &batch.records;
        if records.num_columns() != event_type.fields.len() {
            let columns = records.num_columns();
            return Err(StageError::new(format!("{columns} columns for {} fields", event_type.fields.len())));
        }
        let encoder = RowEncoder::new(&event_type.fields, 0..event_type.fields.len(), records)?;
        let times = TimeColumn::of(records, event_type.time)
            .ok_or_else(|| StageError::new(format!("the time column of type `{name}` is no timestamp")))?;
        effects.tally.received += batch.len() as u64;
        let groups = self.group(index, batch, &times, effects)?;
        let counts = Counts::of(batch, self.limits.bucket_ms);
        // For the encoder: what is next to the id in the received bytes comes into the cache with it.
        KeyColumns::new(&event_type, &event_type.id, records).touch(batch.indexes());
        let format = self.types[index].format.clone();
        for group in &mut self.groups[..groups] {
            self.touched.insert((index, group.hour_start_ms));
            self.files.write(group, &encoder, &counts, &times, &format, effects)?;
            effects.tally.sent += group.rows.len() as u64;
        }
        Ok(())
    }

    /// Puts the rows into groups by directory; refuses those that have none. Returns the number of groups.
    fn group(
        &mut self,
        index: usize,
        batch: &Batch,
        times: &TimeColumn<'_>,
        effects: &mut Effects,
    ) -> Result<usize, StageError> {
        let path_fields = self.types[index].path_fields.clone();
        let fields = &self.types[index].event_type.clone().fields;
        let path = RowEncoder::new(fields, path_fields.iter().copied(), &batch.records)?;
        let partition = (batch.origin.source.clone(), batch.origin.partition.clone());
        let was_seen = self.seen.get(&partition).copied().unwrap_or((i64::MIN, false));
        let mut seen = was_seen.0;
        let is_letter = *batch.event_type.name == *DEAD_LETTER_TYPE;
        let mut used = 0;
        // The row's own hour, and the group of the row before.
        let mut hour = Hour { start_ms: i64::MAX, width_ms: 0 };
        let mut current = None;
        for row in batch.indexes() {
            let time = times.ms(row);
            let same_hour = hour.start_ms <= time && time < hour.end_ms();
            if !same_hour {
                hour = Hour::of(time, self.limits.bucket_ms);
            }
            let mut same = same_hour;
            if !path_fields.is_empty() {
                self.key.clear();
                path.put(row, &mut self.key);
                if self.key != self.last_key {
                    same = false;
                    std::mem::swap(&mut self.key, &mut self.last_key);
                }
            }
            let late = hour.end_ms() <= seen;
            seen = seen.max(time);
            let group = match current {
                Some(group) if same => group,
                _ => match self.find(index, hour, &path_fields, batch, row) {
                    Ok(directory) => {
                        let directory_state = self.files.open(directory);
                        let group = *directory_state.group.get_or_insert_with(|| {
                            if used == self.groups.len() {
                                self.groups.push(Group::default());
                            }
                            let group = &mut self.groups[used];
                            (group.directory, group.revision) = (directory, directory_state.revision);
                            group.hour_start_ms = directory_state.hour.start_ms;
                            group.rows.clear();
                            used += 1;
                            used - 1
                        });
                        current = Some(group);
                        group
                    }
                    Err((reason, message)) => {
                        current = None;
                        self.types[index].refuse(hour, reason, &mut effects.tally);
                        effects.dead.push(DeadLetter::of_row(batch, row, reason, message));
                        continue;
                    }
                },
            };
            let group = &mut self.groups[group];
            group.rows.push(row as u32);
            if group.revision > 0 {
                effects.tally.taken_late += 1;
            } else if hour.start_ms < group.hour_start_ms && !is_letter {
                effects.tally.taken_late += 1;
                self.files.open(group.directory).counts.earlier += 1;
            } else if late {
                self.files.open(group.directory).counts.late += 1;
            }
        }
        self.seen.insert(partition, (seen, was_seen.1 || seen != was_seen.0));
        Ok(used)
    }

    /// The directory of a row; opens it if need be and if it may be.
    fn find(
        &mut self,
        index: usize,
        mut hour: Hour,
        path_fields: &[usize],
        batch: &Batch,
        row: usize,
    ) -> Result<usize, (Reason, String)> {
        let state = &self.types[index];
        let name = &state.event_type.name;
        if hour.end_ms() <= state.sealed_before_ms {
            let is_letter = **name == *DEAD_LETTER_TYPE;
            if !is_letter && hour.end_ms() <= state.given_up_ms {
                return Err((Reason::Late, format!("hour {hour} of type `{name}` is sealed")));
            }
            // A dead letter must not get lost, whatever its type says.
            if is_letter || state.event_type.late.policy == LatePolicy::NextHour {
                hour = Hour::of(state.sealed_before_ms, hour.width_ms);
            }
        }
        let key = &self.last_key[..if path_fields.is_empty() { 0 } else { self.last_key.len() }];
        let hash = xxh3_64(key);
        let there = state.hours.get(&hour.start_ms);
        if let Some((_, directory)) = there.and_then(|open| open.by_key.find(hash, |(other, _)| **other == *key)) {
            return Ok(*directory);
        }
        let mut values = BTreeMap::new();
        for at in path_fields {
            let field = &state.event_type.fields[*at];
            let text = scalar_text(field, batch.records.column(*at).as_ref(), row);
            values.insert(field.name.clone(), encode_value(text.as_deref()));
        }
        let value = |name: &str| values.get(name).map(String::as_str);
        let Some(path) = self.template.render(name, hour, value) else {
            return Err((Reason::TimeOutOfRange, format!("hour {hour} is outside the years 1 to 9999")));
        };
        let limit = self.limits.max_path_values;
        let by_path = there.map(|open| &open.by_path);
        let directory = match by_path.and_then(|paths| paths.get(&path)) {
            Some(directory) => *directory,
            None => {
                if !path_fields.is_empty() && by_path.is_some_and(|paths| paths.len() >= limit) {
                    let message = format!(
                        "hour {hour} of type `{name}` has {limit} different paths, which is the limit (`max_path_values`), \
                         so `{path}` can't be opened"
                    );
                    return Err((Reason::TooManyPathValues, message));
                }
                self.types[index].open(&mut self.files, hour, path, values)
            }
        };
        let open = self.types[index].hours.get_mut(&hour.start_ms);
        // Some values have many forms of bytes (not-a-number), so the short cut is bounded on its own.
        if let Some(open) = open.filter(|open| open.by_key.len() < limit.max(1)) {
            open.by_key.insert_unique(hash, (key.into(), directory), |(key, _)| xxh3_64(key));
        }
        Ok(directory)
    }
}

impl Stage for AvroFilesStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        self.files.take_all(false, effects)?;
        match input {
            Input::Rows(batch) => self.write(batch, effects),
            Input::Note(note) => {
                if let Some(index) = self.type_index(&note.event_type) {
                    self.types[index].note(note);
                }
                Ok(())
            }
            Input::Raw(_) => Err(StageError::new("records that are not parsed arrive at a sink of files")),
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        // Directory, what was said of its hour, why it ends, and the revision that its hour begins with now.
        let mut closing: Vec<(usize, Arc<Noted>, SealReason, u32)> = Vec::new();
        let width_ms = self.limits.bucket_ms;
        for horizon in &seals.horizons {
            let Some(index) = self.type_index(&horizon.event_type) else { continue };
            self.open_empty(index, horizon.sealed_before_ms);
            let state = &mut self.types[index];
            let was_ms = state.sealed_before_ms;
            state.sealed_before_ms = was_ms.max(horizon.sealed_before_ms);
            // Hours that end behind the old horizon, and not behind the new one: all are of one width.
            let first_ms = was_ms.saturating_sub(width_ms).saturating_add(1);
            let behind_ms = state.sealed_before_ms.saturating_sub(width_ms).saturating_add(1).max(first_ms);
            let open = state.hours.range(first_ms..behind_ms).filter(|(_, open)| open.revision == 0);
            for start_ms in open.map(|(start_ms, _)| *start_ms).collect::<Vec<_>>() {
                let Some(open) = state.hours.remove(&start_ms) else { continue };
                self.touched.insert((index, start_ms));
                let noted = Arc::new(state.noted.remove(start_ms).unwrap_or_default());
                let of_hour = open.by_path.values().map(|directory| (*directory, noted.clone(), horizon.reason, 0));
                closing.extend(of_hour);
                state.has_begun = true;
            }
            state.noted.remove_range(first_ms..behind_ms);
            state.given_up_ms = state.given_up_ms.max(state.event_type.late.given_up_by_ms(horizon));
            state.forget(width_ms);
        }
        for name in &seals.revised {
            let Some(index) = self.type_index(name) else { continue };
            let state = &mut self.types[index];
            state.hours.retain(|start_ms, open| {
                if open.revision > 0 {
                    self.touched.insert((index, *start_ms));
                    let noted = Arc::new(state.noted.remove(*start_ms).unwrap_or_default());
                    let revised = state.revised.entry(*start_ms);
                    revised.last = open.revision;
                    if state.event_type.late.mode == RevisionMode::Replace {
                        revised.first = open.revision;
                    }
                    let directories = open.by_path.values();
                    closing.extend(
                        directories.map(|directory| (*directory, noted.clone(), SealReason::Late, revised.first)),
                    );
                }
                open.revision == 0
            });
            state.forget(width_ms);
        }
        for (directory, ..) in &closing {
            self.files.give(*directory, effects)?;
        }
        if !closing.is_empty() {
            self.files.take_all(true, effects)?;
        }
        for (index, noted, reason, first) in closing {
            if let Some(directory) = self.files.remove(index) {
                directory.close(&self.files.owner, seals, reason, &noted, first, effects);
            }
        }
        match &seals.request {
            Some(request) if *request.stage == *self.files.owner.sink => self.requested(request, seals, effects),
            _ => Ok(()),
        }
    }

    fn snapshot(&mut self, effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        self.files.take_all(true, effects)?;
        let mut changes = std::mem::take(&mut self.strangers);
        self.files.save(self.memory_bytes, &mut changes)?;
        for ((source, partition), (time_ms, is_new)) in &mut self.seen {
            if std::mem::take(is_new) {
                changes.push((format!("s/{source}/{partition}"), Some(super::state::bytes(time_ms)?)));
            }
        }
        let mut head = Head {
            width_ms: self.limits.bucket_ms,
            answered: self.answered.clone(),
            next_directory: self.files.next_directory,
            ..Head::default()
        };
        for state in &mut self.types {
            let name = state.event_type.name.clone();
            if state.has_begun {
                head.sealed.push((name.to_string(), state.sealed_before_ms));
            }
            head.given_up.push((name.to_string(), state.given_up_ms));
            state.noted.save(|start_ms| name_of("n/", start_ms, &name), &mut changes)?;
            state.revised.save(|start_ms| name_of("v/", start_ms, &name), &mut changes)?;
        }
        effects.pieces.append(&mut changes);
        head.write()
    }

    fn holds(&mut self) -> Option<Vec<HourTotals>> {
        let of_hour = |(index, start_ms): (usize, i64)| {
            let state = &self.types[index];
            let hour = Hour { start_ms, width_ms: self.limits.bucket_ms };
            let mut held = HourTotals { event_type: state.event_type.name.clone(), hour, totals: Totals::default() };
            let open = state.hours.get(&start_ms).into_iter().flat_map(|open| open.by_path.values());
            for directory in open.filter_map(|index| self.files.directories[*index].as_ref()) {
                held.totals += directory.holds().totals;
            }
            held
        };
        Some(std::mem::take(&mut self.touched).into_iter().map(of_hour).collect())
    }

    fn open_hours(&self) -> BTreeMap<Arc<str>, usize> {
        let open = self.types.iter().filter(|state| !state.hours.is_empty());
        open.map(|state| (state.event_type.name.clone(), state.hours.len())).collect()
    }
}
