//! Whether the books of all stages and sources of a region agree.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use tidemill_core::{Hour, LatePolicy, Role, Totals};
use tidemill_topology::{Node, Plan, Port};

use super::books::{Books, ByHour, take_away, without_hours};

/// Two counts that should be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Where: an edge, a sink, a pond.
    pub(crate) place: String,
    /// The type; empty for what is not parsed yet.
    pub(crate) event_type: Arc<str>,
    /// The hour, where it is known.
    pub(crate) hour: Option<Hour>,
    pub(crate) expected: Totals,
    pub(crate) found: Totals,
}

impl Mismatch {
    /// What has happened, in a word that serves as a label.
    pub(crate) fn kind(&self) -> &'static str {
        match self.found.events.cmp(&self.expected.events) {
            std::cmp::Ordering::Less => "lost",
            std::cmp::Ordering::Greater => "repeated",
            std::cmp::Ordering::Equal => "exchanged",
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, found) = (self.expected.events, self.found.events);
        f.write_str(&self.place)?;
        if !self.event_type.is_empty() {
            write!(f, ", type `{}`", self.event_type)?;
        }
        if let Some(hour) = self.hour {
            write!(f, ", hour {hour}")?;
        }
        match self.kind() {
            "exchanged" => write!(f, ": {found}, but not the same ones (some lost, as many repeated or changed)"),
            "lost" => write!(f, ": {expected} expected, {found} found ({} lost)", expected - found),
            _ => write!(f, ": {expected} expected, {found} found ({} too many)", found - expected),
        }
    }
}

/// The two sides of a place, entry by entry.
pub(crate) fn compare(place: &str, expected: &ByHour, found: &ByHour, bucket_ms: i64) -> Vec<Mismatch> {
    let keys = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let mismatch = |key: &(Arc<str>, i64)| {
        let [expected, found] = [expected, found].map(|side| side.get(key).copied().unwrap_or_default());
        (expected != found).then(|| Mismatch {
            place: place.to_owned(),
            event_type: key.0.clone(),
            hour: (key.1 != i64::MIN).then_some(Hour { start_ms: key.1, width_ms: bucket_ms }),
            expected,
            found,
        })
    };
    keys.filter_map(mismatch).collect()
}

/// See the module.
pub(crate) struct Audit {
    plan: Arc<Plan>,
}

impl Audit {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self { plan }
    }

    /// Compares the books of all nodes, by their indexes, of the time between two barriers.
    pub(crate) fn check(&self, books: &BTreeMap<usize, Books>) -> Vec<Mismatch> {
        let mut found = Vec::new();
        for (index, node) in self.plan.nodes.iter().enumerate() {
            let Some(mine) = books.get(&index).filter(|_| !node.inputs.is_empty()) else { continue };
            let givers: Vec<&str> = node.inputs.iter().map(|edge| &*self.plan.nodes[edge.from].name).collect();
            let place = format!("between `{}` and `{}`", givers.join("`, `"), node.name);
            let bucket_ms = self.plan.limits.bucket_ms;
            found.extend(compare(&place, &self.expected(index, books), &mine.taken, bucket_ms));
            found.extend(self.chunks(index, &place, mine, books));
            if let Some(written) = &mine.written {
                let mut came = mine.came();
                take_away(&mut came, &mine.refused);
                let (came, written) = (by_type(node, &came), by_type(node, written));
                found.extend(compare(&format!("written by `{}`", node.name), &came, &written, bucket_ms));
            }
        }
        found
    }

    /// What should have come to a node, by what those before it have given.
    fn expected(&self, index: usize, books: &BTreeMap<usize, Books>) -> ByHour {
        let mut expected = ByHour::new();
        for edge in &self.plan.nodes[index].inputs {
            let Some(theirs) = books.get(&edge.from) else { continue };
            let side = match edge.port {
                Port::Data => &theirs.given,
                Port::DeadLetters => &theirs.letters,
            };
            let passes = |name: &Arc<str>| edge.types.as_ref().is_none_or(|types| types.contains(name));
            for (key, totals) in side.iter().filter(|((name, _), _)| edge.port == Port::DeadLetters || passes(name)) {
                *expected.entry(key.clone()).or_default() += *totals;
            }
        }
        expected
    }

    fn chunks(&self, index: usize, place: &str, mine: &Books, books: &BTreeMap<usize, Books>) -> Vec<Mismatch> {
        let from = self.plan.nodes[index].inputs.iter().map(|edge| edge.from);
        let sources = from.filter(|from| self.plan.nodes[*from].role == Role::Source);
        let mut expected: BTreeMap<&(Arc<str>, Arc<str>), Totals> = BTreeMap::new();
        for (key, totals) in sources.filter_map(|from| books.get(&from)).flat_map(|theirs| &theirs.chunks) {
            *expected.entry(key).or_default() += *totals;
        }
        let keys = expected.keys().copied().chain(mine.chunks.keys().filter(|key| !expected.contains_key(key)));
        let mismatch = |key: &(Arc<str>, Arc<str>)| {
            let expected = expected.get(key).copied().unwrap_or_default();
            let found = mine.chunks.get(key).copied().unwrap_or_default();
            (expected != found).then(|| Mismatch {
                place: format!("{place}, positions of partition `{}:{}`", key.0, key.1),
                event_type: "".into(),
                hour: None,
                expected,
                found,
            })
        };
        keys.filter_map(mismatch).collect()
    }
}

/// With one entry for all hours of a type whose events may go into another hour than their own.
fn by_type(node: &Node, totals: &ByHour) -> ByHour {
    let of_type = |name: &str| node.accepts.iter().find(|event_type| *event_type.name == *name);
    without_hours(totals, |name| of_type(name).is_some_and(|found| found.late.policy == LatePolicy::NextHour))
}
