//! `tidemill audit`: what each stage counted of sealed hours, beside what is in their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use tidemill_actors::sink::{Counted, Manifest};
use tidemill_core::DEAD_LETTER_TYPE;

use crate::cli::Audit;
use crate::commands::hours;
use crate::display::count;
use crate::exit::{Code, Failure};
use crate::hours::Wanted;
use crate::output::{print, print_json};
use crate::settings::Settings;

/// A revision of an hour in a sink, over all its directories.
#[derive(Debug, Serialize)]
struct Entry {
    event_type: String,
    sink: String,
    owner: Option<String>,
    hour: String,
    revision: u32,
    verdict: Verdict,
    /// By stage; the sink's own is what came to it.
    counted: BTreeMap<String, Counted>,
    duplicates_dropped: u64,
    /// In its files, by its manifests.
    rows: u64,
    /// The order-free hash of their ids.
    ids: Option<String>,
    late_of_earlier_hours: u64,
    files: usize,
    directories: usize,
    /// At the seal every source stood here: source, partition, position.
    positions: BTreeMap<String, BTreeMap<String, u64>>,
    cut: u64,
}

/// Whether what is in the files is what came to the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As many, and the same ones.
    Agrees,
    /// Fewer: the sink made dead letters of the others.
    Refused(u64),
    /// As many without those of earlier hours, which are in it because theirs was sealed.
    AgreesInNumber,
    /// The manifest does not say what came: an earlier version wrote it, or they are dead letters, which may be in a later hour than theirs.
    NotCounted,
    Differs,
}

pub(crate) fn run(args: &Audit) -> Result<(), Failure> {
    let settings = Settings::load(&args.settings)?;
    let wanted = Wanted {
        since_ms: args.which.since,
        until_ms: args.which.until,
        event_type: args.which.event_type.as_deref(),
        manifests: true,
    };
    // Manifests say it all: nobody needs to be asked.
    let (report, faults) = hours::read(&settings, &wanted, &|_, _| None)?;
    let mut revisions: BTreeMap<(&str, &str, &str, u32), Vec<&Manifest>> = BTreeMap::new();
    for manifest in report.types.iter().flat_map(|row| &row.manifests) {
        let key = (&*manifest.event_type, &*manifest.sink, &*manifest.hour.start, manifest.revision);
        revisions.entry(key).or_default().push(manifest);
    }
    let entries: Vec<Entry> = revisions.into_values().filter_map(|directories| Entry::of(&directories)).collect();
    match args.json {
        true => print_json(&entries)?,
        false => print(lines(&entries))?,
    }
    let differ = entries.iter().filter(|entry| entry.verdict == Verdict::Differs).count();
    match (faults, differ) {
        (0, 0) => Ok(()),
        _ => Err(Failure::new(
            Code::Fault,
            format!("{differ} revisions do not hold what came to their sink; {faults} directories could not be read"),
        )),
    }
}

impl Entry {
    fn of(directories: &[&Manifest]) -> Option<Self> {
        let first = directories.first()?;
        let ids: Option<Vec<u128>> =
            directories.iter().map(|manifest| sum(manifest.ids.as_ref()?.sum.as_str())).collect();
        let mut entry = Self {
            event_type: first.event_type.clone(),
            sink: first.sink.clone(),
            owner: first.owner.clone(),
            hour: first.hour.start.clone(),
            revision: first.revision,
            verdict: Verdict::NotCounted,
            counted: first.counted.clone(),
            duplicates_dropped: first.duplicates_dropped,
            rows: directories.iter().map(|manifest| manifest.count).sum(),
            ids: ids.map(|ids| format!("{:032x}", ids.into_iter().fold(0, u128::wrapping_add))),
            late_of_earlier_hours: directories.iter().map(|manifest| manifest.late_of_earlier_hours).sum(),
            files: directories.iter().map(|manifest| manifest.files.len()).sum(),
            directories: directories.len(),
            positions: first.positions.clone(),
            cut: first.cut,
        };
        entry.verdict = entry.judged();
        Some(entry)
    }

    fn judged(&self) -> Verdict {
        let Some(came) = self.counted.get(&self.sink) else {
            let is_known = self.rows == 0 && self.counted.is_empty();
            return if is_known { Verdict::Agrees } else { Verdict::NotCounted };
        };
        if came.events == self.rows && came.ids == self.ids {
            return Verdict::Agrees;
        }
        if self.event_type == DEAD_LETTER_TYPE {
            return Verdict::NotCounted;
        }
        let own = self.rows.saturating_sub(self.late_of_earlier_hours);
        match own.cmp(&came.events) {
            std::cmp::Ordering::Less => Verdict::Refused(came.events - own),
            std::cmp::Ordering::Equal if self.late_of_earlier_hours > 0 => Verdict::AgreesInNumber,
            _ => Verdict::Differs,
        }
    }

    /// The way of its events: stages in order of what they counted, which never grows on it; the sink last.
    fn way(&self) -> String {
        let mut stages: Vec<(&str, u64)> = (self.counted.iter())
            .filter(|(stage, _)| **stage != self.sink)
            .map(|(stage, counted)| (stage.as_str(), counted.events))
            .collect();
        stages.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
        let came = self.counted.get(&self.sink).map(|came| (self.sink.as_str(), came.events));
        let told = stages.into_iter().chain(came).map(|(stage, events)| format!("{stage} {}", count(events)));
        told.chain([format!("files {}", count(self.rows))]).collect::<Vec<_>>().join(" > ")
    }
}

fn sum(hex: &str) -> Option<u128> {
    u128::from_str_radix(hex, 16).ok()
}

impl Verdict {
    fn text(self) -> String {
        match self {
            Self::Agrees => "agrees".to_owned(),
            Self::Refused(events) => format!("{} refused by the sink", count(events)),
            Self::AgreesInNumber => "agrees in number".to_owned(),
            Self::NotCounted => "not counted".to_owned(),
            Self::Differs => "DIFFERS".to_owned(),
        }
    }
}

fn lines(entries: &[Entry]) -> String {
    let head = ["type", "hour", "rev", "duplicates", "verdict"].map(str::to_owned);
    let sinks: BTreeSet<(&str, &str)> =
        entries.iter().map(|entry| (entry.event_type.as_str(), entry.sink.as_str())).collect();
    let has_several = |event_type: &str| sinks.iter().filter(|(known, _)| *known == event_type).count() > 1;
    let cells = |entry: &Entry| {
        let name = match has_several(&entry.event_type) {
            true => format!("{} ({})", entry.event_type, entry.sink),
            false => entry.event_type.clone(),
        };
        let (revision, duplicates) = (entry.revision.to_string(), count(entry.duplicates_dropped));
        [name, entry.hour.clone(), revision, duplicates, entry.verdict.text()]
    };
    let rows: Vec<_> = entries.iter().map(|entry| (cells(entry), entry.way())).collect();
    let widths = [0, 1, 2, 3, 4].map(|at| {
        let cells = rows.iter().map(|(cells, _)| cells[at].len());
        cells.chain([head[at].len()]).max().unwrap_or_default()
    });
    let mut text = String::new();
    for (cells, way) in [(&head, "way")].into_iter().chain(rows.iter().map(|(cells, way)| (cells, way.as_str()))) {
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{way}");
    }
    let agree = entries.iter().filter(|entry| entry.verdict == Verdict::Agrees).count();
    let _ =
        writeln!(text, "\n{} revisions of hours, {agree} of them hold exactly what came to their sink", entries.len());
    text
}
