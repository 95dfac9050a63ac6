//! `tidemill dead-letters`

use std::collections::BTreeMap;
use std::io::{BufWriter, ErrorKind, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidemill_actors::sink::{DeadLetters, DeadLettersError, Letter};
use tidemill_core::format_time_ms;
use tidemill_runtime::index_path;

use crate::cli::WantedLetters;
use crate::display::count;
use crate::exit::{Code, Failure};
use crate::output::{print, print_json};
use crate::terminal::cut;

/// Where dead letters are when the topology does not say otherwise.
const DIRECTORY: &str = "_dead_letters";

/// What letters that are counted together have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Kind {
    stage: String,
    reason: String,
    event_type: Option<String>,
    source: String,
}

/// The letters of one kind.
#[derive(Serialize)]
struct Group {
    #[serde(flatten)]
    kind: Kind,
    count: u64,
    first_arrived_at: String,
    last_arrived_at: String,
}

/// A letter as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    arrived_at: String,
    stage: &'a str,
    reason: &'a str,
    event_type: Option<&'a str>,
    source: &'a str,
    partition: &'a str,
    position: i64,
    message: &'a str,
    payload: String,
    payload_encoding: &'static str,
    payload_length: i64,
}

pub(crate) fn list(root: &Path, wanted: &WantedLetters, json: bool) -> Result<(), Failure> {
    // Number, first and last arrival. Names of stages, types and sources are those of topologies, so there are not many kinds.
    let mut kinds: BTreeMap<Kind, (u64, i64, i64)> = BTreeMap::new();
    let faults = read(root, wanted, &mut |letter| {
        let time = letter.arrived_at_ms;
        let Letter { stage, reason, event_type, source, .. } = letter;
        let kind = kinds.entry(Kind { stage, reason, event_type, source }).or_insert((0, time, time));
        *kind = (kind.0 + 1, kind.1.min(time), kind.2.max(time));
        ControlFlow::Continue(())
    })?;
    let mut groups: Vec<Group> = (kinds.into_iter())
        .map(|(kind, (count, first, last))| {
            let (first_arrived_at, last_arrived_at) = (format_time_ms(first), format_time_ms(last));
            Group { kind, count, first_arrived_at, last_arrived_at }
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    if json {
        print_json(&groups)?;
    } else if groups.is_empty() {
        print("no dead letters\n")?;
    } else {
        print(table(&groups))?;
    }
    finish(faults)
}

pub(crate) fn show(root: &Path, wanted: &WantedLetters, limit: Option<u64>) -> Result<(), Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left = limit.unwrap_or(u64::MAX);
    let mut written = Ok(());
    let faults = read(root, wanted, &mut |letter| {
        left -= 1;
        written = write(&mut out, &letter);
        if left == 0 || written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Code::Unavailable, format!("can't write to standard output: {error}")))
        }
        _ => finish(faults),
    }
}

fn write(out: &mut impl Write, letter: &Letter) -> std::io::Result<()> {
    let (payload, payload_encoding) = match std::str::from_utf8(&letter.payload) {
        Ok(text) => (text.to_owned(), "utf-8"),
        Err(_) => (letter.payload.iter().map(|byte| format!("{byte:02x}")).collect(), "hex"),
    };
    let shown = Shown {
        arrived_at: format_time_ms(letter.arrived_at_ms),
        stage: &letter.stage,
        reason: &letter.reason,
        event_type: letter.event_type.as_deref(),
        source: &letter.source,
        partition: &letter.partition,
        position: letter.position,
        message: &letter.message,
        payload,
        payload_encoding,
        payload_length: letter.payload_bytes,
    };
    serde_json::to_writer(&mut *out, &shown)?;
    out.write_all(b"\n")
}

/// Hands the letters that are asked for to `each`, until it breaks off. Returns how many files or directories could not be read, which it
/// has named by then.
pub(crate) fn read(
    root: &Path,
    wanted: &WantedLetters,
    each: &mut dyn FnMut(Letter) -> ControlFlow<()>,
) -> Result<u64, Failure> {
    let arrived_ms = Range { start: wanted.since.unwrap_or(i64::MIN), end: wanted.until.unwrap_or(i64::MAX) };
    if arrived_ms.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "no time lies between --since and --until: --since has to be the earlier",
        ));
    }
    let Some(directory) = directory(root, wanted)? else { return Ok(0) };
    let mut faults = 0;
    let mut fault = |error: DeadLettersError| {
        faults += 1;
        eprintln!("tidemill: {error}");
    };
    let found = DeadLetters::find(&directory, arrived_ms, &mut fault)
        .map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
    if let Some(other) = found.other_types.first() {
        let message = format!(
            "{} holds hours of `{other}`: name the directory of dead letters only, with --directory",
            directory.display()
        );
        return Err(Failure::new(Code::Unavailable, message));
    }
    let is_wanted = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
    let _ = found.read(
        &mut |letter| {
            let all = is_wanted(&wanted.stage, Some(&letter.stage))
                && is_wanted(&wanted.reason, Some(&letter.reason))
                && is_wanted(&wanted.event_type, letter.event_type.as_deref());
            if all { each(letter) } else { ControlFlow::Continue(()) }
        },
        &mut fault,
    );
    Ok(faults)
}

/// The directory to look in; `None` when nothing became a dead letter.
fn directory(root: &Path, wanted: &WantedLetters) -> Result<Option<PathBuf>, Failure> {
    let unavailable = |message| Err(Failure::new(Code::Unavailable, message));
    if let Err(error) = std::fs::read_dir(root) {
        return unavailable(format!("can't list {}: {error}", root.display()));
    }
    let directory = root.join(wanted.directory.as_deref().unwrap_or(Path::new(DIRECTORY)));
    if directory.exists() {
        return Ok(Some(directory));
    }
    if wanted.directory.is_some() {
        return unavailable(format!("there is no {}: look up the `path` of the sink", directory.display()));
    }
    if !index_path(root).exists() {
        return unavailable(format!(
            "there is no {}, and {} is not an output root of Tidemill. Give the directory that `output.root` names",
            directory.display(),
            root.display()
        ));
    }
    eprintln!(
        "tidemill: there is no {}: no hour with dead letters is sealed, or the topology's sink has another path (--directory)",
        directory.display()
    );
    Ok(None)
}

pub(crate) fn finish(faults: u64) -> Result<(), Failure> {
    match faults {
        0 => Ok(()),
        _ => Err(Failure::new(
            Code::Fault,
            format!("letters are missing: {faults} of the places above could not be read to the end"),
        )),
    }
}

fn table(groups: &[Group]) -> String {
    let head = ["letters", "stage", "reason", "type", "source", "first", "last"].map(str::to_owned);
    let cells = |group: &Group| {
        let kind = &group.kind;
        [
            count(group.count),
            kind.stage.clone(),
            kind.reason.clone(),
            kind.event_type.clone().unwrap_or_else(|| "-".to_owned()),
            kind.source.clone(),
            group.first_arrived_at.clone(),
            group.last_arrived_at.clone(),
        ]
    };
    let rows: Vec<[String; 7]> = [head].into_iter().chain(groups.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let figure = format!("{:>width$}", row[0], width = widths[0]);
        let names = row.iter().zip(widths).skip(1).map(|(cell, width)| format!("{cell:<width$}"));
        let cells: Vec<String> = [figure].into_iter().chain(names).collect();
        // A damaged file may hold anything.
        format!("{}\n", cut(cells.join("  ").trim_end(), usize::MAX))
    };
    rows.iter().map(line).collect()
}
