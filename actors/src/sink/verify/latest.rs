//! Pointers to the latest revisions of hours against the revisions that there are.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::{Fault, FaultCode};
use crate::sink::latest::{LATEST_NAME, Latest};
use crate::sink::manifest::Mode;

/// The revisions of each hour, by its directory.
#[derive(Default)]
pub(super) struct Revisions<'a>(BTreeMap<&'a str, BTreeMap<u32, Mode>>);

impl<'a> Revisions<'a> {
    /// Adds the directory of a revision.
    pub(super) fn add(&mut self, path: &'a str, revision: Option<(u32, Mode)>) {
        if let (Some((hour, _)), Some((number, mode))) = (path.rsplit_once('/'), revision) {
            self.0.entry(hour).or_default().insert(number, mode);
        }
    }

    /// What is wrong with the pointer of an hour.
    pub(super) fn check(&self, root: &Path, hour: &str) -> Option<Fault> {
        let message = self.wrong(root, hour)?;
        Some(Fault::new(FaultCode::WrongLatest, hour, None, message).file(LATEST_NAME))
    }

    fn wrong(&self, root: &Path, hour: &str) -> Option<String> {
        let said = std::fs::read_to_string(root.join(hour).join(LATEST_NAME)).map_err(|error| error.to_string());
        let latest = match said.and_then(|text| Latest::from_text(&text)) {
            Ok(latest) => latest,
            Err(error) => return Some(format!("it can't be read: {error}")),
        };
        // A manifest that can't be read is a fault of its own.
        let revisions = self.0.get(hour)?;
        let last = *revisions.keys().next_back()?;
        if latest.revision != last {
            return Some(format!("it says that revision {} is the last one, and there is {last}", latest.revision));
        }
        let first = revisions.iter().rev().find(|(_, mode)| mode.is_whole()).map(|(number, _)| *number);
        let is_right = match first {
            Some(first) => latest.first == first,
            // Nothing of the hour had come when it was sealed.
            None => revisions.keys().next().is_some_and(|least| latest.first <= *least),
        };
        let rightly = first.map_or_else(|| "an earlier one".to_owned(), |first| first.to_string());
        (!is_right).then(|| format!("it says that the hour begins with revision {}, and it is {rightly}", latest.first))
    }
}
