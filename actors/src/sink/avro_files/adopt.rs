//! An hour that was read once more becomes a revision: the sink gives it its number, its names and its manifest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidemill_core::{Effects, Home, Hour, LogName, Request, SealReason, Seals, StageError, format_time_ms};

use super::hours::Revised;
use super::place::Place;
use super::stage::AvroFilesStage;
use crate::sink::manifest::{Manifest, Mode};

/// What a request to a sink `avro_files` asks for: an hour of a type, made elsewhere, that is to stand for all its revisions so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adoption {
    /// The type.
    pub event_type: String,
    /// Start of the hour, in milliseconds since 1970.
    pub hour_start_ms: i64,
    /// The hour's last revision when it was read once more: it holds what that one and those before it were made of. When there is another one by
    /// now, nothing is adopted.
    pub base: u32,
    /// Every directory that the hour had, and those that it has now.
    pub directories: Vec<AdoptedDirectory>,
}

/// A directory of an adopted hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdoptedDirectory {
    /// Below the output root, without the revision.
    pub path: String,
    /// What it is to say. Its place, its number, the names of its files, and what concerns the cut, are the sink's.
    pub manifest: Manifest,
    /// The names that its files were given to the request under, in the order of the manifest.
    pub given: Vec<String>,
}

impl Adoption {
    /// Number of the revision that it becomes.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.base.saturating_add(1)
    }

    /// Paths below the output root that have to be free for it.
    #[must_use]
    pub fn places(&self) -> Vec<String> {
        self.directories.iter().map(|directory| format!("{}/rev={}", directory.path, self.revision())).collect()
    }
}

impl AvroFilesStage {
    /// Does what a request asks for, once; what can't be done is told in the log, and whoever asked sees that nothing was published.
    pub(super) fn requested(
        &mut self,
        request: &Request,
        seals: &Seals,
        effects: &mut Effects,
    ) -> Result<(), StageError> {
        if self.answered.as_ref() == Some(&request.id) {
            return Ok(());
        }
        self.answered = Some(request.id.clone());
        let adopted = match serde_json::from_value::<Adoption>(request.body.clone()) {
            Ok(adoption) => match unknown_file(&adoption, request) {
                Some(name) => Err(format!("the file `{name}` did not come with the request, or is named twice")),
                None => self.adopt(&request.id, &adoption, seals, effects)?,
            },
            Err(error) => Err(error.to_string()),
        };
        match adopted {
            Ok(revision) => tracing::info!(id = request.id, revision, "an hour that was read once more is published"),
            Err(why) => tracing::error!(id = request.id, why, "an hour that was read once more is not published"),
        }
        Ok(())
    }

    /// What keeps a directory from being published here.
    fn misplaced(&self, adoption: &Adoption, directory: &AdoptedDirectory) -> Option<String> {
        let AdoptedDirectory { path, manifest, given } = directory;
        let hour = Hour { start_ms: adoption.hour_start_ms, width_ms: self.limits.bucket_ms };
        let value = |name: &str| manifest.path_values.get(name).map(String::as_str);
        let rightly = self.template.render(&adoption.event_type, hour, value);
        if manifest.hour.width_ms != hour.width_ms || Hour::of(hour.start_ms, hour.width_ms) != hour {
            return Some(format!("it is {} ms wide, and hours here are {} ms", manifest.hour.width_ms, hour.width_ms));
        }
        let is_below = !path.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains(['\0', '\n']));
        if rightly.as_ref() != Some(path) || !is_below {
            return Some(format!("`{path}` is not where the sink has it, which is {rightly:?}"));
        }
        let files = manifest.files.len();
        (given.len() != files).then(|| format!("{files} files are told of `{path}`, and {} are there", given.len()))
    }

    fn adopt(
        &mut self,
        id: &str,
        adoption: &Adoption,
        seals: &Seals,
        effects: &mut Effects,
    ) -> Result<Result<u32, String>, StageError> {
        let Adoption { event_type, hour_start_ms, base, directories } = adoption;
        let Some(index) = self.type_index(event_type) else {
            return Ok(Err(format!("the sink does not take type `{event_type}`")));
        };
        if let Some(wrong) = directories.iter().find_map(|directory| self.misplaced(adoption, directory)) {
            return Ok(Err(wrong));
        }
        let state = &self.types[index];
        let end_ms = hour_start_ms.saturating_add(self.limits.bucket_ms);
        if end_ms > state.sealed_before_ms {
            return Ok(Err("the hour is open".to_owned()));
        }
        // Of an hour that takes no late events any more nothing is kept: nobody but a request makes another revision of it, and they come one by one.
        let is_kept = end_ms > state.given_up_ms || state.hours.contains_key(hour_start_ms);
        let last = state.revised.get(*hour_start_ms).map_or(0, |revised| revised.last);
        if is_kept && last != *base {
            return Ok(Err(format!("the hour has revision {last} by now, and it was made of revision {base}")));
        }
        let revision = adoption.revision();
        // What is late and not published yet is not in it, and comes behind it.
        let open: Vec<usize> =
            state.hours.get(hour_start_ms).map_or_else(Vec::new, |open| open.by_path.values().copied().collect());
        for directory in &open {
            self.files.give(*directory, effects)?;
        }
        self.files.take_all(true, effects)?;
        for directory in &open {
            self.files.open(*directory).renumber(revision.saturating_add(1));
        }
        let state = &mut self.types[index];
        if let Some(open) = state.hours.get_mut(hour_start_ms) {
            open.revision = revision.saturating_add(1);
        }
        if is_kept {
            *state.revised.entry(*hour_start_ms) = Revised { last: revision, first: revision };
        }
        let owner = &self.files.owner;
        for directory in directories {
            let place = Place { owner, event_type, hour_start_ms: *hour_start_ms, path: &directory.path, revision };
            let mut manifest = Manifest {
                topology: owner.topology.clone(),
                sink: owner.sink.clone(),
                state_id: owner.state_id.clone(),
                path_template: owner.path_template.clone(),
                path: place.directory(),
                revision,
                mode: Mode::Replace,
                cut: seals.cut,
                sealed_at: format_time_ms(seals.at_ms),
                reason: SealReason::Reprocessed,
                request: Some(id.to_owned()),
                ..directory.manifest.clone()
            };
            for (number, file) in manifest.files.iter_mut().enumerate() {
                file.name = place.identity(number as u32, &file.schema_fingerprint.clone()).part_name(&file.sha256);
            }
            let given = directory.given.iter().map(|name| LogName { home: Home::Request, name: name.clone() });
            place.publish(given, &manifest, revision, effects);
        }
        Ok(Ok(revision))
    }
}

/// A file that can't be published: it is not in hand, or is wanted twice.
fn unknown_file<'a>(adoption: &'a Adoption, request: &Request) -> Option<&'a String> {
    let mut left: BTreeSet<&String> = request.files.iter().collect();
    adoption.directories.iter().flat_map(|directory| &directory.given).find(|name| !left.remove(*name))
}

/// Which of `counted` are of stages of the topology, and not of those that were added for reading an hour once more.
#[must_use]
pub fn own_counts<T>(counted: BTreeMap<String, T>) -> BTreeMap<String, T> {
    counted.into_iter().filter(|(stage, _)| !stage.starts_with('@')).collect()
}
