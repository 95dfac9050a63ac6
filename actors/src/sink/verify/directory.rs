//! One directory of an hour against its manifest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tidemill_core::{Hour, IdSum, format_time_ms, ids_algorithm};

use super::content::{Content, Expected, read_content};
use super::report::{Fault, FaultCode};
use super::walk::RevisionDirectory;
use crate::sink::container::Identity;
use crate::sink::json::hex;
use crate::sink::manifest::{FileEntry, MANIFEST_NAME, Manifest, Mode, SUCCESS_NAME, success_text};
use crate::sink::template::Template;

/// What was found in a directory.
pub(super) struct Checked {
    /// Type and start of the hour; the path, when there is no manifest to tell.
    pub(super) hour: (String, String),
    /// Number and mode of the revision, by its manifest.
    pub(super) revision: Option<(u32, Mode)>,
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// The sink, and how many events of the revision a limit refused.
    pub(super) refused: (String, u64),
    pub(super) faults: Vec<Fault>,
}

struct Checker<'a> {
    directory: &'a RevisionDirectory,
    label: Option<(String, String)>,
    revision: Option<(u32, Mode)>,
    refused: (String, u64),
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, code: FaultCode, file: Option<&str>, message: String) {
        let fault = Fault::new(code, &self.directory.path, self.label.as_ref(), message);
        self.faults.push(match file {
            Some(name) => fault.file(name),
            None => fault,
        });
    }

    fn finish(self, files: u64, rows: u64, bytes: u64) -> Checked {
        let hour = self.label.unwrap_or_else(|| (self.directory.path.clone(), String::new()));
        Checked { hour, revision: self.revision, refused: self.refused, files, rows, bytes, faults: self.faults }
    }
}

/// Checks a directory.
pub(super) fn check(root: &Path, directory: &RevisionDirectory) -> Checked {
    let place = root.join(&directory.path);
    let mut checker =
        Checker { directory, label: None, revision: None, refused: Default::default(), faults: Vec::new() };
    let manifest = match read_text(&place.join(MANIFEST_NAME)) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            checker.fault(FaultCode::Unreadable, Some(MANIFEST_NAME), format!("can't read it: {error}"));
            return checker.finish(0, 0, 0);
        }
    };
    checker.label = manifest.as_deref().and_then(label_of);
    let success = read_text(&place.join(SUCCESS_NAME));
    match (&manifest, success) {
        (None, _) => {
            let message = "there is no manifest: the hour was not finished, or its manifest is lost";
            checker.fault(FaultCode::Unfinished, Some(MANIFEST_NAME), message.to_owned());
        }
        (Some(text), Ok(success)) if success != success_text(text) => {
            let message = "it does not hold the SHA-256 of the manifest: one of the two was changed";
            checker.fault(FaultCode::WrongSuccess, Some(SUCCESS_NAME), message.to_owned());
        }
        (Some(_), Err(error)) => {
            let message = format!("the mark of a finished hour can't be read: {error}");
            checker.fault(FaultCode::Unfinished, Some(SUCCESS_NAME), message);
        }
        (Some(_), Ok(_)) => {}
    }
    let manifest = match manifest.as_deref().map(Manifest::from_text) {
        Some(Ok(manifest)) => manifest,
        Some(Err(error)) => {
            checker.fault(FaultCode::BadManifest, Some(MANIFEST_NAME), error.to_string());
            return checker.finish(0, 0, 0);
        }
        None => {
            let (known, bytes) = (BTreeSet::from([MANIFEST_NAME, SUCCESS_NAME]), 0);
            extra_files(&mut checker, &known);
            return checker.finish(0, 0, bytes);
        }
    };
    check_files(&place, &manifest, checker)
}

fn check_files(place: &Path, manifest: &Manifest, mut checker: Checker<'_>) -> Checked {
    checker.revision = Some((manifest.revision, manifest.mode));
    checker.refused = (manifest.sink.clone(), manifest.refused);
    let hour = check_place(manifest, &mut checker);
    let mut known = BTreeSet::from([MANIFEST_NAME, SUCCESS_NAME]);
    known.extend(manifest.files.iter().map(|entry| entry.name.as_str()));
    extra_files(&mut checker, &known);
    let (mut files, mut bytes) = (0, 0);
    let mut content = Content::default();
    let mut whole = true;
    for (number, entry) in manifest.files.iter().enumerate() {
        if let Some(hour) = hour {
            check_name(manifest, hour, number, entry, &mut checker);
        }
        let name = Some(entry.name.as_str());
        if !checker.directory.files.contains(&entry.name) {
            checker.fault(FaultCode::MissingFile, name, "the manifest names it, but it is not there".to_owned());
            whole = false;
            continue;
        }
        files += 1;
        let path = place.join(&entry.name);
        match hash_file(&path) {
            Ok((size, sha256)) => {
                bytes += size;
                if (size, &sha256) != (entry.bytes, &entry.sha256) {
                    let message = format!(
                        "it has {size} bytes and SHA-256 {sha256}; the manifest says {} bytes and {}",
                        entry.bytes, entry.sha256
                    );
                    checker.fault(FaultCode::WrongBytes, name, message);
                    whole = false;
                    continue;
                }
            }
            Err(error) => {
                checker.fault(FaultCode::Unreadable, name, format!("can't read it: {error}"));
                whole = false;
                continue;
            }
        }
        let Some(hour) = hour else { continue };
        let mut wrong = Vec::new();
        let rows_before = content.rows;
        read_content(&path, &Expected { manifest, entry, hour }, &mut content, &mut |code, message| {
            wrong.push((code, message));
        });
        if content.rows - rows_before != entry.rows {
            let message = format!("it holds {} events, the manifest says {}", content.rows - rows_before, entry.rows);
            wrong.push((FaultCode::WrongContent, message));
        }
        for (code, message) in wrong {
            checker.fault(code, name, message);
        }
    }
    if whole && hour.is_some() {
        check_totals(manifest, &content, &mut checker);
    }
    checker.finish(files, content.rows, bytes)
}

fn extra_files(checker: &mut Checker<'_>, known: &BTreeSet<&str>) {
    for name in checker.directory.files.iter().filter(|name| !known.contains(name.as_str())) {
        let message = "it is there, but no manifest names it".to_owned();
        checker.fault(FaultCode::ExtraFile, Some(name), message);
    }
}

/// Whether the manifest belongs where it is, and agrees with itself. Returns its hour.
fn check_place(manifest: &Manifest, checker: &mut Checker<'_>) -> Option<Hour> {
    let place = checker.directory.path.clone();
    let mut wrong = |message: String| checker.fault(FaultCode::WrongPlace, Some(MANIFEST_NAME), message);
    if manifest.path != place {
        wrong(format!("the manifest belongs to `{}`", manifest.path));
    }
    let width_ms = manifest.hour.width_ms;
    let start: Option<Timestamp> = manifest.hour.start.parse().ok();
    let hour = start.map(|start| Hour { start_ms: start.as_millisecond(), width_ms });
    let Some(hour) = hour.filter(|hour| width_ms > 0 && hour.start_ms.rem_euclid(width_ms) == 0) else {
        wrong(format!("`{}` is not the start of an hour of {width_ms} ms", manifest.hour.start));
        return None;
    };
    if manifest.hour.start != format_time_ms(hour.start_ms) || manifest.hour.end != format_time_ms(hour.end_ms()) {
        wrong(format!("the hour {} to {} is not {width_ms} ms wide", manifest.hour.start, manifest.hour.end));
    }
    let value = |name: &str| manifest.path_values.get(name).map(String::as_str);
    let rendered = Template::parse(&manifest.path_template)
        .ok()
        .and_then(|template| template.render(&manifest.event_type, hour, value))
        .map(|path| format!("{path}/rev={}", manifest.revision));
    if rendered.as_deref() != Some(place.as_str()) {
        let right = rendered.unwrap_or_else(|| "no path at all".to_owned());
        wrong(format!("type, hour and values make `{right}` by the template `{}`", manifest.path_template));
    }
    if (manifest.revision == 0) != (manifest.mode == Mode::Complete) {
        wrong(format!("revision {} with mode {:?}", manifest.revision, manifest.mode));
    }
    Some(hour)
}

/// Whether a file's name is the one that its identity gives.
fn check_name(manifest: &Manifest, hour: Hour, number: usize, entry: &FileEntry, checker: &mut Checker<'_>) {
    let revision = format!("/rev={}", manifest.revision);
    let identity = Identity {
        topology: &manifest.topology,
        sink: &manifest.sink,
        event_type: &manifest.event_type,
        hour_start_ms: hour.start_ms,
        path: manifest.path.strip_suffix(&revision).unwrap_or(&manifest.path),
        revision: manifest.revision,
        part: number as u32,
        fingerprint: &entry.schema_fingerprint,
    };
    let name = identity.part_name(&entry.sha256);
    if name != entry.name {
        let message = format!("by its identity and its content its name is `{name}`");
        checker.fault(FaultCode::WrongName, Some(&entry.name), message);
    }
}

fn check_totals(manifest: &Manifest, content: &Content, checker: &mut Checker<'_>) {
    let mut compare = |what: &str, found: String, stated: String| {
        if found != stated {
            let message = format!("the files give {what} {found}, the manifest says {stated}");
            checker.fault(FaultCode::WrongContent, Some(MANIFEST_NAME), message);
        }
    };
    compare("a count of", content.rows.to_string(), manifest.count.to_string());
    let (earlier, stated) = (content.earlier.to_string(), manifest.late_of_earlier_hours.to_string());
    compare("late events of earlier hours,", earlier, stated);
    let time = |time: Option<i64>| time.map_or_else(|| "none".to_owned(), format_time_ms);
    let stated = |time: &Option<String>| time.clone().unwrap_or_else(|| "none".to_owned());
    compare("the first event time", time(content.min_ms), stated(&manifest.event_time.min));
    compare("the last event time", time(content.max_ms), stated(&manifest.event_time.max));
    if let Some(ids) = &manifest.ids {
        compare("ids by", ids_algorithm().to_owned(), ids.algorithm.clone());
        compare("the id hash", IdSum(content.id_sum).to_string(), ids.sum.clone());
    }
}

/// Type and start of the hour, even of a manifest that is damaged elsewhere.
fn label_of(text: &str) -> Option<(String, String)> {
    let json: Value = serde_json::from_str(text).ok()?;
    Some((json.get("event_type")?.as_str()?.to_owned(), json.get("hour")?.get("start")?.as_str()?.to_owned()))
}

fn read_text(path: &Path) -> io::Result<String> {
    // A file that is no UTF-8 is damaged like any other: its checksums will tell.
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Size and SHA-256 of a file.
fn hash_file(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(&hash.finalize()))),
            Ok(read) => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
