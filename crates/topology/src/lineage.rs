//! Which sources, and which of their partitions, the events of each type come from.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, Role, Shape};

use crate::plan::Plan;

/// A source that a type comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// Its index among the plan's sources.
    pub source: usize,
    /// Partitions, or what their names begin with up to a `/`; all partitions when there are none.
    pub partitions: Vec<Arc<str>>,
}

impl Origin {
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

/// Where the types of a plan come from.
#[derive(Debug)]
pub struct Lineage {
    /// Types that are received, with their sources.
    pub types: Vec<(Arc<str>, Vec<Origin>)>,
    /// Types that a stage makes, with the types that they are made of, which come before it.
    pub derived: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

impl Plan {
    /// Follows the edges of the plan, and what types say of themselves (`comes_from`).
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        let mut sources_of: Vec<Vec<usize>> = Vec::new();
        let mut types: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        let mut derived: BTreeMap<Arc<str>, Vec<Arc<str>>> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let mut sources: Vec<usize> = match node.role {
                Role::Source => vec![self.nodes[..at].iter().filter(|node| node.role == Role::Source).count()],
                _ => node.inputs.iter().flat_map(|edge| sources_of[edge.from].clone()).collect(),
            };
            sources.sort_unstable();
            sources.dedup();
            for sent in &node.sends {
                let is_made =
                    node.kind.input == Shape::Rows && !node.accepts.iter().any(|accepted| accepted.name == sent.name);
                if is_made {
                    let inputs = node.accepts.iter().map(|accepted| accepted.name.clone());
                    derived.entry(sent.name.clone()).or_default().extend(inputs);
                } else if *sent.name != *DEAD_LETTER_TYPE {
                    let of_type = types.entry(sent.name.clone()).or_default();
                    of_type.extend(&sources);
                    of_type.sort_unstable();
                    of_type.dedup();
                }
            }
            sources_of.push(sources);
        }
        types.retain(|name, _| !derived.contains_key(name));
        let order =
            |name: &Arc<str>| self.nodes.iter().position(|node| node.sends.iter().any(|sent| sent.name == *name));
        let mut derived: Vec<_> = derived.into_iter().collect();
        derived.sort_by_key(|(name, _)| order(name));
        let names = self.source_names();
        let types = types.into_iter().map(|(name, sources)| {
            let origins = self.origins(&name, &sources, &names);
            (name, origins)
        });
        Lineage { types: types.collect(), derived }
    }

    /// Names of the sources, in the order of the plan.
    pub(crate) fn source_names(&self) -> Vec<&str> {
        self.nodes.iter().filter(|node| node.role == Role::Source).map(|node| &*node.name).collect()
    }

    /// The sources that a type says that it comes from; all that it can come from when it says nothing of these. Behind a
    /// pond that is so: what comes through it has been waited for.
    fn origins(&self, name: &str, sources: &[usize], names: &[&str]) -> Vec<Origin> {
        let said = self.comes_from.get(name).map(Vec::as_slice).unwrap_or_default();
        let named = |source: &usize| {
            let of_it: Vec<&ComesFrom> = said.iter().filter(|said| *said.source == *names[*source]).collect();
            let partitions: Option<Vec<Arc<str>>> = of_it.iter().map(|said| said.partition.clone()).collect();
            // Who names the source without a partition means all of it.
            (!of_it.is_empty()).then(|| Origin { source: *source, partitions: partitions.unwrap_or_default() })
        };
        let origins: Vec<Origin> = sources.iter().filter_map(named).collect();
        if origins.is_empty() {
            return sources.iter().map(|source| Origin { source: *source, partitions: Vec::new() }).collect();
        }
        origins
    }
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
