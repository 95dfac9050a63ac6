//! Manifests: what an hour's directory says about itself. The format is described in `docs/manifest.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tidemill_core::SealReason;

use super::json::hex;

/// What `format` holds.
pub const MANIFEST_FORMAT: &str = "tidemill-manifest";
/// What `version` holds.
pub const MANIFEST_VERSION: u32 = 1;
/// File name of a manifest.
pub const MANIFEST_NAME: &str = "_manifest.json";
/// File name of the mark of a finished directory; it holds the SHA-256 of the manifest in hex and a line feed.
pub const SUCCESS_NAME: &str = "_SUCCESS";

/// Where the member with the checksum begins.
const CHECKSUM_MEMBER: &str = ",\n  \"checksum\": \"";

/// A manifest without its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Name of the topology.
    pub topology: String,
    /// Name of the sink in it.
    pub sink: String,
    /// Identity of the state directory that the run belongs to.
    pub state_id: String,
    /// Type of the events.
    pub event_type: String,
    /// The types that its rows are made of, by a stage such as `hourly`; none for events that were received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<String>,
    /// Who answers for the type.
    pub owner: Option<String>,
    /// How much it matters: `high`, `normal` or `low`. Empty where older versions left it out.
    #[serde(default)]
    pub tier: String,
    /// The hour.
    pub hour: ManifestHour,
    /// The sink's `path` option.
    pub path_template: String,
    /// The values of fields in the path, as they stand in it.
    pub path_values: BTreeMap<String, String>,
    /// Where the directory is, below the output root.
    pub path: String,
    /// Revision of the hour.
    pub revision: u32,
    /// How the revision is read.
    pub mode: Mode,
    /// Number of events.
    pub count: u64,
    /// The order-free hash of the events' ids; `null` when the type has no id.
    pub ids: Option<Ids>,
    /// Least and greatest event time.
    pub event_time: EventTimes,
    /// Duplicates that were dropped in the whole hour of the type (all its directories), since the revision before.
    pub duplicates_dropped: u64,
    /// Events of the whole hour of the type that a limit refused, since the revision before: they are dead letters.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// What the stages before the sink counted in the whole hour of the type, since the revision before, by name; under the sink's own, what came to it.
    #[serde(default)]
    pub counted: BTreeMap<String, Counted>,
    /// What producers have sent in the whole hour of the type, and what is missing, since the revision before; `null` where nobody accounts for it.
    #[serde(default)]
    pub producers: Option<ManifestProducers>,
    /// Events that came after a later hour's event of the same partition, within the allowed lateness.
    pub late_within_allowed: u64,
    /// Events of earlier hours, which were sealed when they came (`late = "next_hour"`).
    #[serde(default)]
    pub late_of_earlier_hours: u64,
    /// The files with the events.
    pub files: Vec<FileEntry>,
    /// Positions of the sources at the seal: the directory holds what lies before them. Source, partition, position.
    pub positions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Partitions that the seal did not wait for, by source: events of theirs may be missing. Source, names.
    #[serde(default)]
    pub not_waited_for: BTreeMap<String, Vec<String>>,
    /// Number of the cut that published the directory.
    pub cut: u64,
    /// When the hour was sealed (wall clock).
    pub sealed_at: String,
    /// Why.
    pub reason: SealReason,
    /// Which request it answers; of hours that were read once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What wrote it.
    pub writer: WriterInfo,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a revision is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By itself: revision 0, with all of the hour that came before the seal.
    Complete,
    /// Beside the revisions before it.
    Append,
    /// Its rows are added to those of the same group in the revisions before it (aggregates).
    Delta,
    /// In place of the revisions before it.
    Replace,
}

impl Mode {
    /// Whether it stands for itself, without the revisions before it.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Complete | Self::Replace)
    }
}

/// The hour of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestHour {
    /// First instant, RFC 3339.
    pub start: String,
    /// First instant behind it.
    pub end: String,
    /// Width in milliseconds.
    pub width_ms: i64,
}

/// The order-free hash of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Name of the algorithm.
    pub algorithm: String,
    /// Fields that make the id, in order.
    pub fields: Vec<String>,
    /// 32 hex digits.
    pub sum: String,
}

/// What a stage counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Events.
    pub events: u64,
    /// The order-free hash of their ids, 32 hex digits; `null` when the type has no id.
    pub ids: Option<String>,
}

/// Producers that are named in a manifest; those of which most is missing first.
const PRODUCERS_MAX: usize = 1_000;

/// What producers have sent of an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestProducers {
    /// How many there are.
    pub count: u64,
    /// Events that they have sent by their numbers, and that did not come.
    pub missing: u64,
    /// Events of which it is not known whether they came: there were too many gaps at a time.
    pub unknown: u64,
    /// Events that came and had been told as missing.
    pub found: u64,
    /// By name; where there are more than 1,000, those of which most is missing.
    pub accounts: BTreeMap<String, ManifestAccount>,
}

/// What one producer has sent of an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestAccount {
    /// Events that came.
    pub events: u64,
    /// Events that did not.
    pub missing: u64,
    /// Events of which it is not known.
    pub unknown: u64,
    /// Events that came and had been told as missing.
    pub found: u64,
}

impl ManifestProducers {
    /// Of all accounts; `None` when there are none.
    pub(super) fn of(all: &BTreeMap<String, ManifestAccount>) -> Option<Self> {
        let sum = |of: fn(&ManifestAccount) -> u64| all.values().map(of).sum();
        let mut accounts: Vec<(&String, &ManifestAccount)> = all.iter().collect();
        accounts.sort_by_key(|(_, account)| std::cmp::Reverse(account.missing));
        let accounts =
            accounts.into_iter().take(PRODUCERS_MAX).map(|(name, account)| (name.clone(), *account)).collect();
        let (missing, unknown) = (sum(|account| account.missing), sum(|account| account.unknown));
        let found = sum(|account| account.found);
        (!all.is_empty()).then_some(Self { count: all.len() as u64, missing, unknown, found, accounts })
    }
}

/// Least and greatest event time, RFC 3339 to the millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTimes {
    /// Field that holds the time.
    pub field: String,
    /// Least; `null` when there are no events.
    pub min: Option<String>,
    /// Greatest.
    pub max: Option<String>,
}

/// A file of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name in the directory.
    pub name: String,
    /// Events in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of it, in hex.
    pub sha256: String,
    /// Rabin fingerprint of its schema, in hex.
    pub schema_fingerprint: String,
    /// Codec of its blocks.
    pub codec: String,
}

/// What wrote a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterInfo {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It has no checksum at its end.
    #[error("it does not end with a checksum")]
    NoChecksum,
    /// The checksum differs.
    #[error("its checksum is {stated}, its text has {actual}")]
    WrongChecksum {
        /// What it says.
        stated: String,
        /// What it should say.
        actual: String,
    },
    /// It is not what this version reads.
    #[error("format {format} version {version} is not known to this version of the program")]
    UnknownVersion {
        /// Its format.
        format: String,
        /// Its version.
        version: u32,
    },
    /// It is not JSON, or members are missing or wrong.
    #[error("it can't be read")]
    Json(#[from] serde_json::Error),
}

impl Manifest {
    /// The text of the file, with the checksum as its last member.
    ///
    /// # Panics
    /// Never: all members are plain JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings, numbers and maps with string keys");
        text.truncate(text.len() - "\n}".len());
        let checksum = sha256_hex(text.as_bytes());
        text.push_str(CHECKSUM_MEMBER);
        text.push_str(&checksum);
        text.push_str("\"\n}\n");
        text
    }

    /// Reads the text of a file and checks its checksum.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn from_text(text: &str) -> Result<Self, ManifestError> {
        let at = text.rfind(CHECKSUM_MEMBER).ok_or(ManifestError::NoChecksum)?;
        let stated = text[at + CHECKSUM_MEMBER.len()..].strip_suffix("\"\n}\n").ok_or(ManifestError::NoChecksum)?;
        let actual = sha256_hex(&text.as_bytes()[..at]);
        if stated != actual {
            return Err(ManifestError::WrongChecksum { stated: stated.to_owned(), actual });
        }
        let head: Head = serde_json::from_str(text)?;
        if head.format != MANIFEST_FORMAT || head.version != MANIFEST_VERSION {
            return Err(ManifestError::UnknownVersion { format: head.format, version: head.version });
        }
        Ok(serde_json::from_str(text)?)
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// The manifest of a directory, with its checksum checked; `None` when the directory has no mark, so that readers are not meant to see it yet. `read` and
/// `damaged` make the caller's errors.
pub(super) fn finished<E>(
    directory: &Path,
    read: impl Fn(PathBuf, io::Error) -> E,
    damaged: impl Fn(PathBuf, ManifestError) -> E,
) -> Result<Option<Manifest>, E> {
    let (success, path) = (directory.join(SUCCESS_NAME), directory.join(MANIFEST_NAME));
    match success.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) => return Err(read(success, error)),
    }
    let text = fs::read(&path).map_err(|error| read(path.clone(), error))?;
    Manifest::from_text(&String::from_utf8_lossy(&text)).map(Some).map_err(|error| damaged(path, error))
}

/// SHA-256 in hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What `_SUCCESS` holds for a manifest of this text.
pub(super) fn success_text(manifest: &str) -> String {
    format!("{}\n", sha256_hex(manifest.as_bytes()))
}
