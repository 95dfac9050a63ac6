//! The pointer to an hour as it is known now. The format is described in `docs/manifest.md`.

use serde::{Deserialize, Serialize};

/// Its file name, beside the directories of revisions.
pub const LATEST_NAME: &str = "latest.json";
/// What `format` holds.
const FORMAT: &str = "tidemill-latest";
/// What `version` holds.
const VERSION: u32 = 1;

/// Which revisions are the hour as it is known now: those from `first` to `revision`, as far as they are there. It is swapped in one step when a revision
/// is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latest {
    format: String,
    version: u32,
    /// The last revision.
    pub revision: u32,
    /// The first one to be read: the last that stands for itself (`complete` or `replace`).
    pub first: u32,
}

impl Latest {
    pub(super) fn new(revision: u32, first: u32) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, revision, first }
    }

    /// The text of the file.
    ///
    /// # Panics
    /// Never: it is two strings and two numbers.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("strings and numbers");
        text.push('\n');
        text
    }

    /// Reads the text of a file; what is wrong with it otherwise.
    ///
    /// # Errors
    /// When it is something else, or of a version that is not known.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let latest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if (latest.format.as_str(), latest.version) != (FORMAT, VERSION) {
            return Err(format!(
                "format {} version {} is not known to this version of the program",
                latest.format, latest.version
            ));
        }
        Ok(latest)
    }
}
