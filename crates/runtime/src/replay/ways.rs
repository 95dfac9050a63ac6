//! The way that a replayed letter takes: which stage parses it, and which of the stages behind that one hand it on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tidemill_core::{Role, Shape};
use tidemill_topology::{Node, Plan, Port};

/// What of a message is known of a letter, too.
const KNOWN_OF_MESSAGE: [&str; 3] = ["topic", "partition", "offset"];

/// For each source and each stage or sink behind it, the stage that parses for it.
pub struct Ways(BTreeMap<Pair, Way>);

/// A source, and a stage or sink.
type Pair = (Arc<str>, Arc<str>);
/// The parser, or why there is none.
type Way = Result<Arc<str>, String>;

impl Ways {
    /// Those of a plan that is not divided.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut ways = BTreeMap::new();
        for (at, source) in plan.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Source) {
            let mut behind: BTreeMap<Arc<str>, Vec<&Node>> = BTreeMap::new();
            for (first, parser) in plan.nodes.iter().enumerate().filter(|(_, node)| takes_from(node, at)) {
                for node in reached(plan, first) {
                    behind.entry(plan.nodes[node].name.clone()).or_default().push(parser);
                }
            }
            ways.extend(behind.into_iter().map(|(stage, parsers)| ((source.name.clone(), stage), way(&parsers))));
        }
        Self(ways)
    }

    /// The stage that a letter has to be parsed by, which what refused it gets it from, and the stage or sink where it enters.
    ///
    /// # Errors
    /// Why such letters can't be replayed.
    pub fn find(&self, source: &str, stage: &str) -> Result<(Arc<str>, Arc<str>), String> {
        // A pond that is full is in front of what could not take the event.
        let stage: Arc<str> = stage.split('.').next().unwrap_or(stage).into();
        match self.0.get(&(source.into(), stage.clone())) {
            Some(Ok(parser)) => Ok((parser.clone(), stage)),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("the topology has no way from a source `{source}` to `{stage}`")),
        }
    }
}

#[cfg(test)]
impl Ways {
    pub(crate) fn from_pairs(pairs: impl IntoIterator<Item = (Pair, Way)>) -> Self {
        Self(pairs.into_iter().collect())
    }
}

fn takes_from(node: &Node, from: usize) -> bool {
    node.inputs.iter().any(|edge| edge.port == Port::Data && edge.from == from)
}

/// The node itself and all that are behind it.
fn reached(plan: &Plan, first: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::from([first]);
    for (at, node) in plan.nodes.iter().enumerate().skip(first) {
        if reached.iter().any(|from| takes_from(node, *from)) {
            reached.insert(at);
        }
    }
    reached
}

/// The parser, if there is one, and if a letter holds all that it needs.
fn way(parsers: &[&Node]) -> Way {
    let [parser] = parsers else {
        let names: Vec<String> = parsers.iter().map(|parser| format!("`{}`", parser.name)).collect();
        return Err(format!("each of {} has parsed the event, and it can't be told whose it is", names.join(" and ")));
    };
    let name = &parser.name;
    if parser.kind.input == Shape::AvroBlocks {
        return Err(format!(
            "`{name}` needs the schema that an event was written with, which a dead letter does not hold"
        ));
    }
    let options = &parser.options.0;
    let part = |value: &Value| value.as_str().is_none_or(|part| !KNOWN_OF_MESSAGE.contains(&part));
    let of_message = options.get("from_message").and_then(Value::as_object).into_iter().flatten();
    if let Some((field, _)) = { of_message }.find(|(_, value)| part(value)) {
        return Err(format!(
            "`{name}` takes `{field}` from the message around an event, which a dead letter does not hold"
        ));
    }
    if options.get("type_from").and_then(|from| from.get("header")).is_some() {
        return Err(format!("`{name}` takes the type from a header, which a dead letter does not hold"));
    }
    Ok(name.clone())
}

/// For each node of a divided plan, itself and all that are behind it; the two ends of a pond are one node.
pub(crate) fn leads<'a>(plans: impl Iterator<Item = &'a Plan>) -> BTreeMap<Arc<str>, Arc<BTreeSet<Arc<str>>>> {
    let mut next: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for plan in plans {
        for node in &plan.nodes {
            next.entry(node.name.clone()).or_default();
            for edge in node.inputs.iter().filter(|edge| edge.port == Port::Data) {
                next.entry(plan.nodes[edge.from].name.clone()).or_default().insert(node.name.clone());
            }
        }
    }
    let all_behind = |first: &Arc<str>| {
        let (mut found, mut open) = (BTreeSet::new(), vec![first.clone()]);
        while let Some(name) = open.pop() {
            open.extend(next.get(&name).into_iter().flatten().filter(|name| !found.contains(*name)).cloned());
            found.insert(name);
        }
        Arc::new(found)
    };
    next.keys().map(|name| (name.clone(), all_behind(name))).collect()
}
