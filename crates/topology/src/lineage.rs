//! Which sources, and which of their partitions, the events of each type come from, and which types are made of which.
//!
//! A type follows the edges that carry it. So two types wait for the same source only where both can come from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Role, Shape};

use crate::plan::{Edge, Node, Plan, Port};

/// A source that a type comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Its index among the plan's sources.
    pub source: usize,
    /// Partitions, or what their names begin with up to a `/`; all partitions when there are none.
    pub partitions: Vec<Arc<str>>,
}

impl Origin {
    /// All partitions of a source.
    pub(crate) fn all_of(source: usize) -> Self {
        Self { source, partitions: Vec::new() }
    }

    /// Those that are meant of all partitions. Costs a search for each name, not a look at each partition.
    pub fn among<'a, V>(&'a self, all: &'a BTreeMap<Arc<str>, V>) -> impl Iterator<Item = (&'a Arc<str>, &'a V)> {
        let named = self.partitions.iter().flat_map(|name| {
            let from = all.range::<str, _>((Bound::Included(&**name), Bound::Unbounded));
            let alike = from.take_while(|(partition, _)| partition.starts_with(&**name));
            alike.filter(|(partition, _)| matches!(partition.as_bytes().get(name.len()), None | Some(b'/')))
        });
        self.partitions.is_empty().then_some(all).into_iter().flatten().chain(named)
    }
}

/// Where the types of a region come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Types that come from sources or out of ponds, with these. Behind a pond derived types are among them, since
    /// their horizons come through it.
    pub types: Vec<(Arc<str>, Vec<Origin>)>,
    /// Types that stages make. In the region of the sources: all of the topology, since their horizons are decided
    /// there. Each comes behind those that it is made of.
    pub derived: Vec<Derived>,
}

/// A type that a stage makes of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Its name.
    pub name: Arc<str>,
    /// The types that it is made of.
    pub made_of: Vec<Arc<str>>,
    /// The union of their origins. Empty for what is made of dead letters, whose hours go by the clock, and behind
    /// ponds.
    pub origins: Vec<Origin>,
}

impl Lineage {
    /// For each type, the derived types that are made of it, at first or second hand.
    #[must_use]
    pub fn made_of(&self) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
        let mut made: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for derived in self.derived.iter().rev() {
            for input in &derived.made_of {
                let mut behind = vec![derived.name.clone()];
                behind.extend(made.get(&derived.name).into_iter().flatten().cloned());
                let known = made.entry(input.clone()).or_default();
                known.extend(behind);
                known.sort_unstable();
                known.dedup();
            }
        }
        made
    }

    /// The received types that a type is made of at last; itself when it is received.
    #[must_use]
    pub fn received<'a>(&'a self, name: &'a Arc<str>) -> BTreeSet<&'a Arc<str>> {
        match self.derived.iter().find(|derived| derived.name == *name) {
            Some(derived) => derived.made_of.iter().flat_map(|input| self.received(input)).collect(),
            None => BTreeSet::from([name]),
        }
    }
}

impl Edge {
    /// The types that it carries; none for records that are yet to be parsed.
    pub(crate) fn carries<'a>(&'a self, nodes: &'a [Node]) -> impl Iterator<Item = &'a Arc<str>> {
        let sent = nodes[self.from].sends.iter().filter(|_| self.port == Port::Data).map(|sent| &sent.name);
        let passes = |name: &&Arc<str>| self.types.as_ref().is_none_or(|types| types.contains(name));
        sent.filter(passes).filter(|name| ***name != *DEAD_LETTER_TYPE)
    }
}

impl Node {
    /// The types that it makes of those that it takes.
    pub(crate) fn makes(&self) -> impl Iterator<Item = &Arc<str>> {
        let is_taken = |name: &str| self.accepts.iter().any(|accepted| *accepted.name == *name);
        let sent = self.sends.iter().filter(|_| self.role != Role::Source && self.kind.input == Shape::Rows);
        sent.map(|sent| &sent.name).filter(move |name| !is_taken(name))
    }
}

impl Plan {
    /// Follows the edges of a plan that is not divided, and what types say of themselves (`comes_from`).
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        let types = self.received().into_iter().map(|(name, sources)| {
            let origins = self.origins(&name, &sources);
            (name, origins)
        });
        let types: Vec<(Arc<str>, Vec<Origin>)> = types.collect();
        let mut derived: Vec<Derived> = Vec::new();
        for node in &self.nodes {
            for name in node.makes() {
                let made_of: Vec<Arc<str>> = node.accepts.iter().map(|accepted| accepted.name.clone()).collect();
                let of_input = |input: &Arc<str>| {
                    let received = types.iter().find(|(name, _)| name == input).map(|(_, origins)| origins);
                    received.or_else(|| derived.iter().find(|of| of.name == *input).map(|of| &of.origins))
                };
                let of_inputs: Option<Vec<&Vec<Origin>>> = made_of.iter().map(of_input).collect();
                let has_letters = of_inputs.iter().flatten().any(|origins| origins.is_empty());
                let origins = of_inputs.filter(|_| !has_letters).into_iter().flatten().flatten();
                let origins = union(origins);
                match derived.iter_mut().find(|known| known.name == *name) {
                    Some(known) => {
                        known.made_of.extend(made_of);
                        known.made_of.sort_unstable();
                        known.made_of.dedup();
                        known.origins = union(known.origins.iter().chain(&origins));
                    }
                    None => derived.push(Derived { name: name.clone(), made_of, origins }),
                }
            }
        }
        Lineage { types, derived }
    }

    /// The types that are parsed, with the sources of those parsers that send them somewhere.
    fn received(&self) -> BTreeMap<Arc<str>, Vec<usize>> {
        let number = |at: usize| self.nodes[..at].iter().filter(|node| node.role == Role::Source).count();
        // Whether some edge carries it, and the source.
        let mut found: BTreeMap<Arc<str>, BTreeSet<(bool, usize)>> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if node.role == Role::Source || node.kind.input == Shape::Rows {
                continue;
            }
            let sources =
                node.inputs.iter().map(|edge| edge.from).filter(|from| self.nodes[*from].role == Role::Source);
            let sources: Vec<usize> = sources.map(number).collect();
            let behind = self.nodes.iter().flat_map(|taker| &taker.inputs).filter(|edge| edge.from == at);
            let carried: BTreeSet<&Arc<str>> = behind.flat_map(|edge| edge.carries(&self.nodes)).collect();
            for sent in node.sends.iter().filter(|sent| *sent.name != *DEAD_LETTER_TYPE) {
                let of_type = found.entry(sent.name.clone()).or_default();
                of_type.extend(sources.iter().map(|source| (carried.contains(&sent.name), *source)));
            }
        }
        let sources = |found: BTreeSet<(bool, usize)>| {
            let is_carried = found.iter().any(|(is_carried, _)| *is_carried);
            found.into_iter().filter(|(carried, _)| *carried == is_carried).map(|(_, source)| source).collect()
        };
        found.into_iter().map(|(name, found)| (name, sources(found))).collect()
    }

    /// Names of the sources, in the order of the plan.
    pub(crate) fn source_names(&self) -> Vec<&str> {
        self.nodes.iter().filter(|node| node.role == Role::Source).map(|node| &*node.name).collect()
    }

    /// The sources that a type says that it comes from; all that it can come from when it says nothing of these.
    fn origins(&self, name: &str, sources: &[usize]) -> Vec<Origin> {
        let names = self.source_names();
        let said = self.comes_from.get(name).map(Vec::as_slice).unwrap_or_default();
        let named = |source: &usize| {
            let of_it: Vec<&ComesFrom> = said.iter().filter(|said| *said.source == *names[*source]).collect();
            let partitions: Option<Vec<Arc<str>>> = of_it.iter().map(|said| said.partition.clone()).collect();
            // Who names the source without a partition means all of it.
            (!of_it.is_empty()).then(|| Origin { source: *source, partitions: partitions.unwrap_or_default() })
        };
        let origins: Vec<Origin> = sources.iter().filter_map(named).collect();
        if origins.is_empty() { sources.iter().copied().map(Origin::all_of).collect() } else { origins }
    }

    /// For each node and type that comes to it: the derived types that are made of it there or farther on.
    pub(crate) fn leads(&self) -> Vec<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>> {
        let mut leads: Vec<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>> = vec![BTreeMap::new(); self.nodes.len()];
        for at in (0..self.nodes.len()).rev() {
            let node = &self.nodes[at];
            let sent_to = self.nodes.iter().enumerate().skip(at + 1);
            let sent_to: Vec<(usize, &Edge)> = sent_to
                .flat_map(|(to, taker)| taker.inputs.iter().filter(|edge| edge.from == at).map(move |edge| (to, edge)))
                .collect();
            let behind = |name: &Arc<str>| {
                let takers =
                    sent_to.iter().filter(|(_, edge)| edge.carries(&self.nodes).any(|carried| carried == name));
                takers.filter_map(|(to, _)| leads[*to].get(name)).flatten().cloned().collect::<BTreeSet<_>>()
            };
            let mut made: BTreeSet<Arc<str>> = node.makes().cloned().collect();
            made.extend(node.makes().flat_map(behind).collect::<Vec<_>>());
            let of_input = |input: &Arc<str>| made.iter().cloned().chain(behind(input)).collect();
            let inputs = node.accepts.iter().map(|accepted| &accepted.name);
            leads[at] = inputs.map(|input| (input.clone(), of_input(input))).collect();
        }
        leads
    }
}

/// Each source once, with all partitions where one of the origins has all.
fn union<'a>(origins: impl Iterator<Item = &'a Origin>) -> Vec<Origin> {
    let mut by_source: BTreeMap<usize, Option<BTreeSet<Arc<str>>>> = BTreeMap::new();
    for origin in origins {
        let known = by_source.entry(origin.source).or_insert_with(|| Some(BTreeSet::new()));
        match known {
            Some(partitions) if !origin.partitions.is_empty() => partitions.extend(origin.partitions.iter().cloned()),
            _ => *known = None,
        }
    }
    let origin = |(source, partitions): (usize, Option<BTreeSet<Arc<str>>>)| Origin {
        source,
        partitions: partitions.into_iter().flatten().collect(),
    };
    by_source.into_iter().map(origin).collect()
}

/// `SOURCE`, or `SOURCE/PARTITION`: where a type says that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComesFrom {
    /// The source.
    pub source: Arc<str>,
    /// A partition, or what the names of some begin with up to a `/`, such as a topic. All of the source when there is none.
    pub partition: Option<Arc<str>>,
}

impl ComesFrom {
    /// What the text says.
    pub(crate) fn parse(text: &str) -> Self {
        let (source, partition) = text.split_once('/').unwrap_or((text, ""));
        let partition = Some(partition.trim_end_matches('/')).filter(|partition| !partition.is_empty());
        Self { source: source.into(), partition: partition.map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_partition_or_all_below_it_and_no_name_means_all() {
        let all: BTreeMap<Arc<str>, ()> =
            ["a", "a-b/0", "a/0", "a/1", "ab/0", "b/0"].into_iter().map(|name| (name.into(), ())).collect();
        let among = |names: &[&str]| {
            let origin = Origin { source: 0, partitions: names.iter().map(|name| Arc::from(*name)).collect() };
            origin.among(&all).map(|(name, ())| name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(among(&[]), "a a-b/0 a/0 a/1 ab/0 b/0");
        assert_eq!(among(&["a"]), "a a/0 a/1");
        assert_eq!(among(&["b/0", "a/1"]), "b/0 a/1");
        assert_eq!(among(&["c"]), "");
    }

    #[test]
    fn a_source_and_what_is_behind_the_first_slash() {
        let parse = |text| {
            let ComesFrom { source, partition } = ComesFrom::parse(text);
            (source.to_string(), partition.map(|partition| partition.to_string()))
        };
        assert_eq!(parse("s"), ("s".into(), None));
        assert_eq!(parse("s/"), ("s".into(), None));
        assert_eq!(parse("s/data/a.log"), ("s".into(), Some("data/a.log".into())));
        assert_eq!(parse("s/topic/"), ("s".into(), Some("topic".into())));
    }
}
