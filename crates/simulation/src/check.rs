//! What must hold when a simulation is over: every event once, in its hour or among the dead letters, and the same everywhere.
//!
//! The files are read by `apache-avro` and `serde_json`, which did not write them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use apache_avro::types::Value;
use serde_json::Value as Json;
use tidemill_core::GAP_HOURS_MAX;

use crate::disk::Disk;
use crate::input::{Event, FAR_MS, HOUR_MS};
use crate::outside::is_refused;
use crate::shape::Late;
use crate::world::{World, public_paths};

/// A revision of an hour of a type as one sink wrote it.
struct Sealed {
    /// With the hour that an event says it belongs to, where it is in another one.
    ids: Vec<(String, Option<i64>)>,
    /// Of `counts`.
    events: i64,
    manifest: Json,
}

/// By type and hour, then by revision.
type Hours = BTreeMap<(String, i64), BTreeMap<u64, Sealed>>;

#[derive(Debug)]
struct Letter {
    stage: String,
    reason: String,
    partition: usize,
    position: u64,
    /// Of the event in it, where there is one.
    id: String,
}

struct Checking<'a> {
    world: &'a World,
    violations: &'a mut Vec<String>,
    letters: Vec<Letter>,
}

/// See the module. What does not hold is added to `violations`.
pub(crate) fn check(world: &World, disk: &Disk, violations: &mut Vec<String>) {
    let mut sinks: BTreeMap<String, Hours> = BTreeMap::new();
    let mut letters = Vec::new();
    let mut dirs: BTreeSet<&Path> = BTreeSet::new();
    // Of each sink, the hours of types that one cut has sealed.
    let mut steps: BTreeMap<(String, u64), BTreeSet<(i64, String)>> = BTreeMap::new();
    let (pointers, files): (Vec<&Path>, Vec<&Path>) =
        public_paths(world, disk).map(PathBuf::as_path).partition(|path| path.ends_with("latest.json"));
    for path in files {
        dirs.insert(path.parent().expect("it is in a directory"));
    }
    violations.extend(pointers.into_iter().filter_map(|path| points_wrongly(disk, path, &dirs)));
    for dir in dirs {
        match read(disk, dir) {
            Ok((manifest, rows)) => {
                let event_type = text(&manifest, "/event_type");
                let start_ms = hour_ms(&manifest);
                if event_type == "dead_letter" {
                    letters.extend(rows.iter().map(letter));
                    continue;
                }
                violations.extend(believes_one(world, &manifest, dir));
                let sink = text(&manifest, "/sink");
                let revision = manifest.pointer("/revision").and_then(Json::as_u64).unwrap_or(u64::MAX);
                if revision == 0 {
                    let cut = manifest.pointer("/cut").and_then(Json::as_u64).unwrap_or_default();
                    steps.entry((sink.clone(), cut)).or_default().insert((start_ms, event_type.clone()));
                }
                let ids = rows.iter().filter_map(|row| Some((string(field(row, "id")?), true_hour(row)))).collect();
                let mut add = |sink: String, event_type: String, sealed: Sealed| {
                    let hour = sinks.entry(sink).or_default().entry((event_type, start_ms)).or_default();
                    if hour.insert(revision, sealed).is_some() {
                        violations.push(format!("{}: the same type and hour is there twice", dir.display()));
                    }
                };
                if sink == "count_files" {
                    for row in &rows {
                        let Some(Value::Long(events)) = field(row, "events") else { continue };
                        let counted = string(field(row, "event_type").unwrap_or(&Value::Null));
                        let sealed = Sealed { ids: Vec::new(), events: *events, manifest: manifest.clone() };
                        add(sink.clone(), counted, sealed);
                    }
                    continue;
                }
                add(sink, event_type, Sealed { ids, events: 0, manifest });
            }
            Err(what) => violations.push(format!("{}: {what}", dir.display())),
        }
    }
    violations.extend(steps.iter().filter_map(|(cut, hours)| too_many(world, cut, hours)));
    let mut checking = Checking { world, violations, letters };
    let empty = Hours::new();
    let hours = |name: &str| sinks.get(name).unwrap_or(&empty);
    checking.broken_and_poisoned();
    checking.files("files", hours("files"));
    if world.shape.again {
        checking.files("again", hours("again"));
        checking.same(hours("files"), hours("again"));
    }
    if world.shape.counts {
        checking.counts(hours("files"), hours("count_files"));
    }
    let outside = world.outside.lock().expect("nobody panicked");
    if world.shape.atomic {
        checking.delivered("atomic", outside.shown.iter().flat_map(|(_, rows)| rows));
    }
    if world.shape.keyed {
        checking.delivered("keyed", outside.kept.values().flatten());
    }
}

/// Whether an hour was sealed because of one event far ahead.
fn believes_one(world: &World, manifest: &Json, dir: &Path) -> Option<String> {
    let is_sealed_by_it = hour_ms(manifest) >= FAR_MS && text(manifest, "/reason") != "end_of_input";
    let what = || format!("{}: one event far ahead was believed", dir.display());
    (world.shape.is_patient && is_sealed_by_it).then(what)
}

/// Whether a cut has sealed more hours of a sink than a step.
fn too_many(world: &World, (sink, cut): &(String, u64), hours: &BTreeSet<(i64, String)>) -> Option<String> {
    // Those that end first end in any case.
    let is_one = hours.first().map(|(start_ms, _)| start_ms) == hours.last().map(|(start_ms, _)| start_ms);
    // What comes out of several ponds may have a step of each at one barrier.
    let ponds = if world.shape.graph.is_some() { 4 } else { 1 };
    let (count, most) = (hours.len(), ponds * world.step_hours);
    let what = || format!("I12: cut {cut} of `{sink}` seals {count} hours, and {most} are a step");
    (count as u64 > most && !is_one).then(what)
}

/// What is wrong with a pointer to the latest revision of an hour: it names the last one, and the first one that is to be read.
fn points_wrongly(disk: &Disk, path: &Path, dirs: &BTreeSet<&Path>) -> Option<String> {
    let of_hour = dirs.iter().filter(|dir| dir.parent() == path.parent());
    let manifests = of_hour.filter_map(|dir| Some(read(disk, dir).ok()?.0));
    let revision = |manifest: &Json| manifest.pointer("/revision").and_then(Json::as_u64).unwrap_or(u64::MAX);
    let is_whole = |manifest: &Json| matches!(&*text(manifest, "/mode"), "complete" | "replace");
    let (mut last, mut first) = (None, 0);
    for manifest in manifests {
        last = last.max(Some(revision(&manifest)));
        first = if is_whole(&manifest) { first.max(revision(&manifest)) } else { first };
    }
    let said: Json = disk.read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let is_right = said["revision"].as_u64() == last && said["first"] == first;
    (!is_right).then(|| format!("{}: {said}, but it is {first} to {last:?}", path.display()))
}

fn true_hour(row: &Value) -> Option<i64> {
    let Value::Union(_, hour) = field(row, "true_hour")? else { return None };
    if let Value::TimestampMillis(hour) = **hour { Some(hour) } else { None }
}

fn text(json: &Json, pointer: &str) -> String {
    json.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// Start of the hour. Times of a manifest are RFC 3339; those of simulations are all within some days of 2025.
fn hour_ms(manifest: &Json) -> i64 {
    let start = text(manifest, "/hour/start");
    let number =
        |range: std::ops::Range<usize>| start.get(range).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let days = number(8..10) - 1;
    crate::machine::EPOCH_MS + ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60_000
}

/// Manifest and rows of a directory; what is in it must be what the manifest says.
fn read(disk: &Disk, dir: &Path) -> Result<(Json, Vec<Value>), String> {
    let get = |name: &str| disk.read(&dir.join(name)).map_err(|error| format!("{name}: {error}"));
    get("_SUCCESS")?;
    let manifest: Json = serde_json::from_slice(&get("_manifest.json")?).map_err(|error| error.to_string())?;
    let mut rows = Vec::new();
    let named = manifest.pointer("/files").and_then(Json::as_array).ok_or("the manifest names no files")?;
    for file in named {
        let bytes = get(&text(file, "/name"))?;
        let reader = apache_avro::Reader::new(&bytes[..]).map_err(|error| error.to_string())?;
        for row in reader {
            rows.push(row.map_err(|error| error.to_string())?);
        }
    }
    let files = disk.list(dir).map_err(|error| error.to_string())?.len();
    if files != named.len() + 2 {
        return Err(format!("{files} files, of which the manifest names {}", named.len()));
    }
    let count = manifest.pointer("/count").and_then(Json::as_u64);
    if count != Some(rows.len() as u64) {
        return Err(format!("{} rows, but the manifest says {count:?}", rows.len()));
    }
    Ok((manifest, rows))
}

fn field<'a>(row: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Record(fields) = row else { return None };
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Union(_, inner) => string(inner),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

fn letter(row: &Value) -> Letter {
    let text = |name: &str| field(row, name).map(string).unwrap_or_default();
    let position = if let Some(Value::Long(position)) = field(row, "position") { *position as u64 } else { u64::MAX };
    Letter {
        stage: text("stage"),
        reason: text("reason"),
        partition: text("partition").trim_start_matches('p').parse().unwrap_or(usize::MAX),
        position,
        id: text("payload").split('\t').nth(1).unwrap_or_default().to_owned(),
    }
}

impl Checking<'_> {
    fn wrong(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Whether an event never gets to a stage of this name: it is late, or poison to this or an earlier stage.
    fn is_gone_before(&self, stage: &str, id: &str) -> bool {
        // A late event gets no further than the deduplication, each time that it comes.
        let is_late = self.late(id) == self.world.input.events[id].comes.len();
        is_late || self.is_poison_to(stage, id)
    }

    /// Whether an event is poison to a stage of this name, or an earlier one.
    fn is_poison_to(&self, stage: &str, id: &str) -> bool {
        let is_file = matches!(stage, "files" | "again");
        self.world.input.poison.contains(id)
            && match self.world.shape.poisons {
                Some("tsv" | "dedup") => true,
                Some("avro_files") => is_file,
                _ => false,
            }
    }

    /// How often an event was refused where events are deduplicated.
    fn late(&self, id: &str) -> usize {
        let is_late = |letter: &Letter| letter.reason == "late" || letter.reason == "too_old_to_judge";
        let is = |letter: &&Letter| letter.stage.starts_with("dedup") && is_late(letter) && letter.id == id;
        self.letters.iter().filter(is).count()
    }

    fn count(&self, stage: &str, reason: &str, id: &str) -> usize {
        let is = |letter: &&Letter| letter.stage == stage && letter.reason == reason && letter.id == id;
        self.letters.iter().filter(is).count()
    }

    fn broken_and_poisoned(&mut self) {
        let world = self.world;
        let parsed = |letter: &&Letter| letter.stage.starts_with("parse") && letter.reason != "stage_failed";
        let mut found: Vec<(usize, u64)> =
            self.letters.iter().filter(parsed).map(|letter| (letter.partition, letter.position)).collect();
        found.sort_unstable();
        if !found.iter().eq(&world.input.broken) {
            self.wrong(format!("broken lines {:?}, their letters {found:?}", world.input.broken));
        }
        for id in &world.input.poison {
            let comes = world.input.events[id].comes.len();
            let stages: &[(&str, usize)] = match world.shape.poisons {
                None => &[],
                Some("tsv") => &[("parse", comes)],
                Some("dedup") => &[("dedup", comes)],
                Some(_) => &[("files", 1), ("again", world.shape.again as usize)],
            };
            if self.late(id) > 0 {
                continue;
            }
            for (stage, wanted) in stages {
                let is = |letter: &&Letter| {
                    letter.stage.starts_with(stage) && letter.reason == "stage_failed" && letter.id == *id
                };
                let found = self.letters.iter().filter(is).count();
                if found != *wanted {
                    self.wrong(format!("{found} letters of the poisonous event from `{stage}`, not {wanted}"));
                }
            }
        }
        let known = ["dedup", "dedup_0", "dedup_1", "dedup_2", "joined", "files", "again", "counts", "atomic", "keyed"];
        // When what is far ahead is believed after a while, all others are older than windows are wide.
        let is_given_up = world.shape.outlier && !world.shape.is_patient;
        let is_known = |reason: &str| match reason {
            "late" | "stage_failed" | "refused" => true,
            _ => is_given_up && reason == "too_old_to_judge",
        };
        let strange: Vec<String> = (self.letters.iter())
            .filter(|letter| !letter.stage.starts_with("parse"))
            .filter(|letter| !known.contains(&&*letter.stage) || !is_known(&letter.reason))
            .map(|letter| format!("a letter of `{}`: {}", letter.stage, letter.reason))
            .collect();
        self.violations.extend(strange);
    }

    /// Every event is in its hour or late, once; and a revision of an hour has exactly the events before the positions of its manifest that
    /// no earlier one has. Between the first and the last hour of a type there is every one, also those without events.
    fn files(&mut self, sink: &str, hours: &Hours) {
        let world = self.world;
        let sealed: Vec<_> = hours.iter().filter(|(_, hour)| hour.contains_key(&0)).map(|(key, _)| key).collect();
        for ((event_type, start_ms), next) in sealed.iter().zip(sealed.iter().skip(1)) {
            let gap = (next.1 - start_ms) / HOUR_MS - 1;
            // One before what is far ahead gets no manifests.
            if next.0 == *event_type && gap != 0 && gap <= GAP_HOURS_MAX {
                self.wrong(format!("`{sink}`: no hour of `{event_type}` between {start_ms} and {}", next.1));
            }
        }
        // Revisions that an event is in, and whether in its own hour.
        let mut found: BTreeMap<&str, Vec<(u64, bool)>> = BTreeMap::new();
        for ((event_type, start_ms), revisions) in hours {
            if revisions
                .keys()
                .rev()
                .zip((0..=*revisions.keys().last().unwrap_or(&0)).rev())
                .any(|(is, wanted)| *is != wanted)
            {
                self.wrong(format!("`{sink}`: revisions of `{event_type}` {start_ms} are {:?}", revisions.keys()));
            }
            for (revision, sealed) in revisions {
                for (id, true_hour) in &sealed.ids {
                    found.entry(id).or_default().push((*revision, true_hour.is_none()));
                    let fits = |event: &&Event| {
                        event.event_type == event_type
                            && hour_of(event) == true_hour.unwrap_or(*start_ms)
                            && true_hour.is_none_or(|hour| hour < *start_ms)
                    };
                    if world.input.events.get(id).filter(fits).is_none() {
                        self.wrong(format!("`{sink}`: {id} is in the wrong hour or type, {event_type} {start_ms}"));
                    }
                }
            }
        }
        for (id, event) in &world.input.events {
            let wanted = usize::from(!self.is_gone_before(sink, id));
            let there = found.get(&**id).map_or(&[][..], |there| there);
            let late = self.count(sink, "late", id);
            if there.len() + late != wanted {
                let letters: Vec<&Letter> = self.letters.iter().filter(|letter| letter.id == *id).collect();
                self.wrong(format!(
                    "`{sink}`: {id} is there {there:?} and late {late} times, not {wanted} in all: {event:?}, {letters:?}"
                ));
            }
            let takes_all = matches!(world.shape.late, Late::Revisions { bounded: false } | Late::NextHour);
            if late > 0 && takes_all && !world.shape.is_strict(event.event_type) {
                self.wrong(format!("`{sink}`: {id} was refused as late, but late events are taken"));
            }
            let Some(revisions) = hours.get(&(event.event_type.to_owned(), hour_of(event))) else { continue };
            let is_before = |sealed: &Sealed, (partition, position): &(usize, u64)| {
                let source = world.shape.source(*partition);
                let at = sealed.manifest.pointer(&format!("/positions/{source}/p{partition}"));
                at.and_then(Json::as_u64).is_some_and(|at| *position < at)
            };
            let covers = |sealed: &Sealed| event.comes.iter().any(|comes| is_before(sealed, comes));
            let own = there.first().filter(|(_, is_own)| *is_own).map(|(revision, _)| *revision);
            let first = revisions.iter().find(|(_, sealed)| covers(sealed)).map(|(revision, _)| *revision);
            let fits = match (own, first) {
                (Some(own), first) => Some(own) == first,
                // What is late came behind the seal, each time, and so did what is too late for a revision.
                (None, first) => first != Some(0),
            };
            if !self.is_poison_to(sink, id) && !fits {
                self.wrong(format!("`{sink}`: whether {id} is in its hour does not fit the positions of the manifests: {own:?}, {first:?}"));
            }
        }
    }

    fn same(&mut self, files: &Hours, again: &Hours) {
        type Revisions = BTreeMap<u64, BTreeSet<(String, Option<i64>)>>;
        let sets = |hours: &Hours| -> BTreeMap<(String, i64), Revisions> {
            let ids = |(revision, sealed): (&u64, &Sealed)| (*revision, sealed.ids.iter().cloned().collect());
            hours.iter().map(|(key, revisions)| (key.clone(), revisions.iter().map(ids).collect())).collect()
        };
        if sets(files) != sets(again) {
            self.wrong("hours behind a pond are not the same as before it".to_owned());
        }
    }

    /// Counts of all revisions together are those of the files.
    fn counts(&mut self, files: &Hours, counts: &Hours) {
        let world = self.world;
        let of_hour = |revisions: &BTreeMap<u64, Sealed>| {
            Some(revisions.values().map(|sealed| sealed.ids.len() as i64).sum()).filter(|events| *events > 0)
        };
        let mut wanted: BTreeMap<(String, i64), i64> =
            files.iter().filter_map(|(key, revisions)| Some((key.clone(), of_hour(revisions)?))).collect();
        // What is poison to files only is counted.
        for id in world.input.poison.iter().filter(|_| world.shape.poisons == Some("avro_files")) {
            let event = &world.input.events[id];
            if !self.is_gone_before("counts", id) {
                *wanted.entry((event.event_type.to_owned(), hour_of(event))).or_default() += 1;
            }
        }
        // A revision that replaces stands for all types of its hour, and all revisions before it.
        let mut replaced: BTreeMap<i64, u64> = BTreeMap::new();
        for ((_, start_ms), revisions) in counts {
            let is_replacing = |(_, sealed): &(&u64, &Sealed)| text(&sealed.manifest, "/mode") == "replace";
            let last = revisions.iter().filter(is_replacing).map(|(revision, _)| *revision).max().unwrap_or(0);
            let known = replaced.entry(*start_ms).or_default();
            *known = (*known).max(last);
        }
        let total = |start_ms: i64, revisions: &BTreeMap<u64, Sealed>| {
            revisions.range(replaced[&start_ms]..).map(|(_, sealed)| sealed.events).sum()
        };
        let mut found: BTreeMap<(String, i64), i64> =
            counts.iter().map(|(key, revisions)| (key.clone(), total(key.1, revisions))).collect();
        if world.shape.late == Late::NextHour {
            // What was poison to the files may be in any later hour.
            let by_type = |hours: BTreeMap<(String, i64), i64>| {
                let mut sums = BTreeMap::new();
                hours.into_iter().for_each(|((name, _), events)| *sums.entry((name, 0)).or_default() += events);
                sums
            };
            (wanted, found) = (by_type(wanted), by_type(found));
        }
        if found != wanted {
            let differ = wanted.keys().chain(found.keys()).filter(|key| wanted.get(*key) != found.get(*key));
            let differ: BTreeSet<&(String, i64)> = differ.collect();
            let of = |hours: &Hours, key: &(String, i64)| -> Vec<String> {
                let revisions = hours.get(key).into_iter().flatten();
                revisions
                    .map(|(number, of)| {
                        format!(
                            "rev {number} {} at cut {}: {} rows, {} events",
                            text(&of.manifest, "/mode"),
                            of.manifest["cut"],
                            of.ids.len(),
                            of.events
                        )
                    })
                    .collect()
            };
            for key in differ {
                let (count, file) = (found.get(key), wanted.get(key));
                let (counts, files) = (of(counts, key), of(files, key));
                let letters: Vec<&Letter> =
                    self.letters.iter().filter(|letter| letter.stage.contains("count")).collect();
                self.wrong(format!(
                    "{key:?}: {count:?} counted, {file:?} in files: {counts:?}, {files:?}; {letters:?}"
                ));
            }
        }
    }

    /// Every event once.
    fn delivered<'i>(&mut self, sink: &str, ids: impl Iterator<Item = &'i String>) {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for id in ids {
            *found.entry(id).or_default() += 1;
        }
        for id in self.world.input.events.keys() {
            let gone = self.is_gone_before(sink, id);
            let (there, refused) = (found.get(&**id).copied().unwrap_or(0), self.count(sink, "refused", id));
            let wanted = match (gone, is_refused(id)) {
                (true, _) => (0, 0),
                (false, true) => (0, 1),
                (false, false) => (1, 0),
            };
            if (there, refused) != wanted {
                self.wrong(format!(
                    "`{sink}`: {id} is there {there} times and refused {refused} times, not {wanted:?}"
                ));
            }
        }
    }
}

fn hour_of(event: &Event) -> i64 {
    event.at_ms.div_euclid(HOUR_MS) * HOUR_MS
}
