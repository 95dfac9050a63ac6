//! Where a revision of an hour is published, and under which names.

use tidemill_core::{Effects, Home, LogName, Publication};

use super::directory::Owner;
use crate::sink::container::Identity;
use crate::sink::latest::{LATEST_NAME, Latest};
use crate::sink::manifest::{MANIFEST_NAME, Manifest, SUCCESS_NAME, success_text};

/// The directory of one revision.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) owner: &'a Owner,
    pub(super) event_type: &'a str,
    pub(super) hour_start_ms: i64,
    /// Below the output root, without the revision.
    pub(super) path: &'a str,
    pub(super) revision: u32,
}

impl<'a> Place<'a> {
    pub(super) fn identity(&self, part: u32, fingerprint: &'a str) -> Identity<'a> {
        Identity {
            topology: &self.owner.topology,
            sink: &self.owner.sink,
            event_type: self.event_type,
            hour_start_ms: self.hour_start_ms,
            path: self.path,
            revision: self.revision,
            part,
            fingerprint,
        }
    }

    /// A name within the sink that is never used again: it holds a hash of all that tells one file from another.
    pub(super) fn log_name(&self, identity: &Identity<'_>, ending: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let event_type: String = self.event_type.chars().take(100).map(plain).collect();
        format!("{event_type}-{}-{}-{ending}", self.hour_start_ms, identity.hex())
    }

    /// Of the revision, below the output root.
    pub(super) fn directory(&self) -> String {
        format!("{}/rev={}", self.path, self.revision)
    }

    /// Publishes what `parts` hold under the names of the manifest's files, the manifest, its mark, and the pointer to the hour as it is known now, which
    /// begins with revision `first`.
    pub(super) fn publish(
        &self,
        parts: impl Iterator<Item = LogName>,
        manifest: &Manifest,
        first: u32,
        effects: &mut Effects,
    ) {
        let directory = self.directory();
        for (log, file) in parts.zip(&manifest.files) {
            effects.publications.push(Publication { log, path: format!("{directory}/{}", file.name), replaces: false });
        }
        let manifest = manifest.to_text();
        let latest = Latest::new(self.revision, first).to_text();
        let identity = self.identity(u32::MAX, "");
        let success = success_text(&manifest);
        let mut publish = |ending: &str, path: String, text: String, replaces: bool| {
            let log = output_log(&self.log_name(&identity, ending));
            effects.publications.push(Publication { log: log.clone(), path, replaces });
            effects.appends.push((log, text.into_bytes()));
        };
        publish("manifest.json", format!("{directory}/{MANIFEST_NAME}"), manifest, false);
        publish("success", format!("{directory}/{SUCCESS_NAME}"), success, false);
        publish("latest.json", format!("{}/{LATEST_NAME}", self.path), latest, true);
    }
}

pub(super) fn output_log(name: &str) -> LogName {
    LogName { home: Home::Output, name: name.to_owned() }
}
