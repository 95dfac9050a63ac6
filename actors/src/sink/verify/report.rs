//! What a verification found.

use serde::Serialize;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultCode {
    /// A file that the manifest or the index names is not there.
    MissingFile,
    /// A file is there that nothing names.
    ExtraFile,
    /// A directory that holds nothing.
    EmptyDirectory,
    /// A directory of an hour lacks its manifest or its `_SUCCESS`.
    Unfinished,
    /// `_SUCCESS` does not hold the SHA-256 of the manifest.
    WrongSuccess,
    /// The manifest is damaged, or of a version that is not known.
    BadManifest,
    /// `latest.json` does not say which revisions are the hour.
    WrongLatest,
    /// The manifest belongs to another place.
    WrongPlace,
    /// The name of a file is not the one that belongs to it.
    WrongName,
    /// A file's size or SHA-256 differs.
    WrongBytes,
    /// A file is not Avro, or not of the type, schema or codec that the manifest says.
    BadFile,
    /// An event is not of the hour.
    WrongHour,
    /// Rows, ids or times differ from the manifest.
    WrongContent,
    /// It can't be read.
    Unreadable,
    /// A line of the index of all that was published can't be trusted.
    DamagedIndex,
    /// The index of all that was published is gone.
    MissingIndex,
    /// Neither index nor claim: no output root of Tidemill.
    NotARoot,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Fault {
    /// Directory below the root.
    pub path: String,
    /// File in it.
    pub file: Option<String>,
    /// Type of the events, as far as it can be told.
    pub event_type: Option<String>,
    /// Start of the hour, as far as it can be told.
    pub hour: Option<String>,
    /// What is wrong.
    pub code: FaultCode,
    /// In words.
    pub message: String,
}

impl Fault {
    pub(super) fn new(code: FaultCode, path: &str, label: Option<&(String, String)>, message: String) -> Self {
        let (event_type, hour) = label.cloned().unzip();
        Self { path: path.to_owned(), file: None, event_type, hour, code, message }
    }

    pub(super) fn file(self, name: &str) -> Self {
        Self { file: Some(name.to_owned()), ..self }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.path.is_empty() { "." } else { &self.path })?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if let (Some(event_type), Some(hour)) = (&self.event_type, &self.hour) {
            write!(f, " (hour {hour} of `{event_type}`)")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Hours of types.
    pub hours: u64,
    /// Directories; an hour has several when the path holds values of fields.
    pub directories: u64,
    /// Avro files that the manifests name and that are there.
    pub files: u64,
    /// Events that were read.
    pub rows: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Events that limits refused: hours that are well lack them.
    pub refused: u64,
    /// All that is wrong, in order of place.
    pub faults: Vec<Fault>,
}

impl Report {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.extend(faults);
        self.faults.sort();
        self.faults.dedup();
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        let Self { hours, files, rows, bytes, refused, .. } = self;
        match self.faults.len() {
            0 if *refused > 0 => write!(
                f,
                "all is well, {refused} refused: {hours} hours, {files} files, {rows} events, {bytes} bytes. The \
                 refused events are dead letters"
            ),
            0 => write!(f, "all is well: {hours} hours, {files} files, {rows} events, {bytes} bytes"),
            1 => write!(f, "1 fault in {hours} hours, {files} files, {rows} events, {bytes} bytes"),
            many => write!(f, "{many} faults in {hours} hours, {files} files, {rows} events, {bytes} bytes"),
        }
    }
}
