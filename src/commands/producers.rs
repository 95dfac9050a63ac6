//! `tidemill producers`: what each producer has sent of sealed hours.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;
use tidemill_actors::sink::{Manifest, ManifestAccount};
use tidemill_core::PRODUCERS_OF;

use crate::cli::Producers;
use crate::commands::hours;
use crate::display::count;
use crate::exit::{Code, Failure};
use crate::hours::Wanted;
use crate::output::{print, print_json};
use crate::settings::Settings;

/// A producer in a revision of an hour.
#[derive(Debug, Serialize)]
struct Entry {
    event_type: String,
    hour: String,
    revision: u32,
    producer: String,
    /// Its hour was sealed when nothing had come from it for its lease.
    was_silent: bool,
    /// `None` where nobody accounts for its events.
    account: Option<ManifestAccount>,
}

pub(crate) fn run(args: &Producers) -> Result<(), Failure> {
    let settings = Settings::load(&args.settings)?;
    let wanted = Wanted {
        since_ms: args.hour,
        until_ms: args.hour.map(|hour| hour + 1),
        event_type: args.event_type.as_deref(),
        manifests: true,
    };
    // Manifests say it all: nobody needs to be asked.
    let (report, faults) = hours::read(&settings, &wanted, &|_, _| None)?;
    // All directories of a revision say the same, and so do the sinks that have the type.
    let mut seen = BTreeSet::new();
    let all = report.types.iter().flat_map(|row| &row.manifests);
    let manifests = all.filter(|manifest| {
        let says_any = manifest.producers.is_some() || !silent(manifest).is_empty();
        says_any && seen.insert((manifest.event_type.clone(), manifest.hour.start.clone(), manifest.revision))
    });
    let mut entries: Vec<Entry> = manifests.flat_map(entries_of).collect();
    entries.retain(|entry| {
        let is_well = |account: &ManifestAccount| account.missing + account.unknown + account.found == 0;
        args.all || entry.was_silent || !entry.account.as_ref().is_some_and(is_well)
    });
    entries.sort_by(|a, b| (&a.event_type, &a.hour, a.revision).cmp(&(&b.event_type, &b.hour, b.revision)));
    match args.json {
        true => print_json(&entries)?,
        false => print(lines(&entries, seen.len()))?,
    }
    match faults {
        0 => Ok(()),
        _ => Err(Failure::new(Code::Fault, format!("{faults} directories could not be read"))),
    }
}

fn silent(manifest: &Manifest) -> Vec<String> {
    manifest.not_waited_for.get(&format!("{PRODUCERS_OF}{}", manifest.event_type)).cloned().unwrap_or_default()
}

fn entries_of(manifest: &Manifest) -> Vec<Entry> {
    let silent = silent(manifest);
    let accounts = manifest.producers.iter().flat_map(|producers| &producers.accounts);
    let entry = |producer: &str, account: Option<ManifestAccount>| Entry {
        event_type: manifest.event_type.clone(),
        hour: manifest.hour.start.clone(),
        revision: manifest.revision,
        producer: producer.to_owned(),
        was_silent: silent.iter().any(|name| name == producer),
        account,
    };
    let mut entries: Vec<Entry> = accounts.map(|(producer, account)| entry(producer, Some(*account))).collect();
    let others = silent.iter().filter(|name| !entries.iter().any(|entry| entry.producer == **name));
    let others: Vec<Entry> = others.map(|name| entry(name, None)).collect();
    entries.extend(others);
    entries
}

fn lines(entries: &[Entry], revisions: usize) -> String {
    let head = ["type", "hour", "rev", "producer", "events", "missing", "unknown", "found", ""].map(str::to_owned);
    let cells = |entry: &Entry| {
        let number = |of: fn(&ManifestAccount) -> u64| {
            entry.account.as_ref().map_or("-".to_owned(), |account| count(of(account)))
        };
        [
            entry.event_type.clone(),
            entry.hour.clone(),
            entry.revision.to_string(),
            entry.producer.clone(),
            number(|account| account.events),
            number(|account| account.missing),
            number(|account| account.unknown),
            number(|account| account.found),
            if entry.was_silent { "silent, not waited for".to_owned() } else { String::new() },
        ]
    };
    let rows: Vec<_> = [head].into_iter().chain(entries.iter().map(cells)).collect();
    let mut text = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default();
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let missing: u64 = entries.iter().filter_map(|entry| entry.account).map(|account| account.missing).sum();
    let _ = writeln!(text, "\n{revisions} revisions of hours tell of producers; {} events are missing", count(missing));
    text
}
