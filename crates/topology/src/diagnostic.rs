//! What is wrong with a topology, and where.

use std::ops::Range;
use std::path::PathBuf;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use tidemill_core::Severity;

/// Something that is wrong at a place of a topology file.
///
/// Serialized (`check --json`) it is an object of `file`, `line`, `column`, `end_line`, `end_column`, `severity`
/// (`"error"` or `"warning"`), `code`, `message` and `help` (a text or null).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name, such as `unknown-key`; see [`crate::CODES`] for those of this crate. Kinds add their own.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The topology file, as it was named when it was loaded.
    pub file: PathBuf,
    /// Bytes of the file that are at fault.
    pub span: Range<usize>,
    /// Line of the first of them, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column behind the last character.
    pub end_column: usize,
    /// What to do.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
}

/// Another place of the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// What is there.
    pub message: String,
    /// Where, in bytes.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// `error` or `warning`.
pub(crate) fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

impl Diagnostic {
    /// Whether it keeps the topology from running.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostic", 9)?;
        object.serialize_field("file", &self.file.to_string_lossy())?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("column", &self.column)?;
        object.serialize_field("end_line", &self.end_line)?;
        object.serialize_field("end_column", &self.end_column)?;
        object.serialize_field("severity", severity_name(self.severity))?;
        object.serialize_field("code", self.code)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.end()
    }
}
