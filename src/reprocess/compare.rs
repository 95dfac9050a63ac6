//! An hour as it is published beside the same hour as it is made today.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidemill_actors::sink::{Manifest, Mode};
use tidemill_core::format_time_ms;

use super::rows::{Differing, ROWS_MAX, differing};
use super::target::Target;
use crate::display::count;
use crate::exit::{Code, Failure};

/// Both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    event_type: String,
    sink: String,
    hour: String,
    /// The last revision that is published.
    base: u32,
    pub(crate) before: Side,
    pub(crate) after: Side,
    verdict: Verdict,
    /// A stage makes it of other events.
    is_made: bool,
    /// A part of the input is gone, or may be.
    is_input_gone: bool,
    /// Row by row, where the two differ.
    differing: Option<Differing>,
    /// The revision that it has become.
    pub(crate) published_as: Option<u32>,
}

/// The rows of an hour.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Side {
    pub(crate) events: u64,
    /// The order-free hash of their ids; `None` when the type has no id.
    ids: Option<String>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The same rows.
    Same,
    /// As many events, with the same ids; there are too many of them to be compared one by one.
    SameIds,
    Differs,
    /// Revisions of aggregates that are to be added up can't be compared.
    NotComparable,
}

impl Side {
    fn of<'a>(manifests: impl Iterator<Item = &'a Manifest> + Clone) -> Self {
        let ids: Option<Vec<u128>> =
            manifests.clone().map(|manifest| u128::from_str_radix(&manifest.ids.as_ref()?.sum, 16).ok()).collect();
        Self {
            events: manifests.clone().map(|manifest| manifest.count).sum(),
            ids: ids
                .filter(|ids| !ids.is_empty())
                .map(|ids| format!("{:032x}", ids.into_iter().fold(0, u128::wrapping_add))),
        }
    }
}

impl Comparison {
    /// Compares what is published below `root` with what was made below `made_root`, row by row: some 2 µs each.
    pub(crate) fn of(
        target: &Target,
        root: &Path,
        made: &[Manifest],
        made_root: &Path,
        is_input_gone: bool,
    ) -> Result<Self, Failure> {
        let (before, mut after) = (Side::of(target.read.iter()), Side::of(made.iter()));
        let has_ids = target.last.ids.is_some();
        if has_ids && made.is_empty() {
            after.ids = Some(format!("{:032x}", 0));
        }
        let is_delta = target.read.iter().any(|manifest| manifest.mode == Mode::Delta);
        let files = |root: &Path, manifests: &[Manifest]| -> Vec<PathBuf> {
            let of = |manifest: &Manifest| {
                let directory = root.join(&manifest.path);
                manifest.files.iter().map(|file| directory.join(&file.name)).collect::<Vec<_>>()
            };
            manifests.iter().flat_map(of).collect()
        };
        let mut found = None;
        let verdict = if is_delta {
            Verdict::NotComparable
        } else if before.events.max(after.events) > ROWS_MAX {
            if has_ids && before == after { Verdict::SameIds } else { Verdict::Differs }
        } else {
            let id = target.last.ids.as_ref().map(|ids| ids.fields.clone()).unwrap_or_default();
            let rows = differing(&files(root, &target.read), &files(made_root, made), &id);
            let rows = rows.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
            let differs = rows != Differing::default();
            found = differs.then_some(rows);
            if differs { Verdict::Differs } else { Verdict::Same }
        };
        Ok(Self {
            event_type: target.event_type.clone(),
            sink: target.sink.clone(),
            hour: format_time_ms(target.hour_start_ms),
            base: target.base,
            before,
            after,
            verdict,
            is_made: target.is_made,
            is_input_gone,
            differing: found,
            published_as: None,
        })
    }

    /// Why somebody has to say that this is meant, before it takes the place of what is published.
    pub(crate) fn doubt(&self) -> Option<&'static str> {
        let Differing { removed, changed, .. } = self.differing.clone().unwrap_or_default();
        match self.verdict {
            Verdict::Same | Verdict::SameIds => None,
            Verdict::NotComparable => Some("its rows can't be compared with those that are to be added up"),
            Verdict::Differs if self.differing.is_none() => {
                Some("there are too many rows to be compared one by one, and they differ")
            }
            Verdict::Differs if removed > 0 || self.after.events < self.before.events => {
                Some("events that are published are not there any more")
            }
            // Where input is gone, that is how it shows.
            Verdict::Differs if self.is_made && changed > 0 => Some("rows that a stage makes have other values"),
            Verdict::Differs if self.is_input_gone => {
                Some("a part of the input is gone, and what was a repeat may be taken for new")
            }
            Verdict::Differs => None,
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self { event_type, sink, hour, base, before, after, .. } = self;
        let mut text = format!("{event_type} {hour}, sink {sink}: ");
        let _ = match self.verdict {
            Verdict::Same => writeln!(text, "{} events, the same as revision {base}", count(after.events)),
            Verdict::SameIds => {
                writeln!(text, "{} events, by their ids the same as revision {base}", count(after.events))
            }
            Verdict::NotComparable => writeln!(
                text,
                "{} rows; revisions up to {base} are to be added up, and are not compared",
                count(after.events)
            ),
            Verdict::Differs => writeln!(
                text,
                "{} events, where the revisions up to {base} have {}",
                count(after.events),
                count(before.events)
            ),
        };
        if let Some(Differing { added, removed, changed, examples }) = &self.differing {
            let _ = writeln!(
                text,
                "  {} added, {} removed, {} with other values",
                count(*added),
                count(*removed),
                count(*changed)
            );
            for example in examples {
                let _ = writeln!(text, "  {example}");
            }
        }
        if let Some(revision) = self.published_as {
            let _ = writeln!(text, "  published as revision {revision}, in place of those before it");
        }
        text
    }
}
