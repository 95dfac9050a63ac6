//! A plan divided at its ponds.
//!
//! A region is what fails, waits and commits together. The first one, `main`, has all sources. A node begins another one when it has a
//! pond, or when it takes from more than one region; it gives the region its name. All other nodes are in the region of their inputs.
//! Between each region and each node of another region that takes from it there is one pond: in the first region it is a sink, in the other a
//! source, both named `NODE.REGION`. The source of replayed dead letters is added to the first region; all stages that parse take from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_core::{DEAD_LETTER_TYPE, EventType, Options, Role, Shape, State, dead_letter_type};

use crate::lineage::{Derived, Lineage, Origin};
use crate::plan::{Edge, Node, Plan, Port};
use crate::pond::{POND_IN, POND_OUT, PondOptions, WhenFull};
use crate::replay;

/// Name of the region that has the sources; no node may have it.
pub const MAIN: &str = "main";

/// What the parts of a divided plan are.
#[derive(Debug)]
pub struct Regions {
    /// In topological order; the first is [`MAIN`].
    pub regions: Vec<RegionPlan>,
    /// In order of the regions that they lead to.
    pub ponds: Vec<Pond>,
}

/// One region.
#[derive(Debug)]
pub struct RegionPlan {
    /// [`MAIN`], or the node that it begins with.
    pub name: Arc<str>,
    /// Its nodes, with the ends of ponds among them.
    pub plan: Plan,
    /// Where its types come from.
    pub lineage: Lineage,
}

/// A pond between two regions.
#[derive(Clone, Debug)]
pub struct Pond {
    /// Name of the nodes that are its ends.
    pub name: Arc<str>,
    /// The node that takes from it.
    pub node: Arc<str>,
    /// Index of the region that fills it.
    pub from: usize,
    /// Index of the region that empties it.
    pub to: usize,
    /// Its bounds.
    pub options: PondOptions,
    /// Types that are made behind it of what it holds: their horizons are decided where the sources are, and come
    /// through it.
    pub carries: Vec<Arc<str>>,
}

impl Plan {
    /// The region of each node, and those that the ponds in front of it come from.
    pub(crate) fn region_names(&self) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
        let homes = homes(&self.nodes);
        let names = names(&self.nodes, &homes);
        let name = |region: usize| names[region].clone();
        let fed_by = |home: &Home| home.begins.then(|| home.inputs.iter().copied().map(name).collect());
        homes.iter().map(|home| (name(home.region), fed_by(home).unwrap_or_default())).collect()
    }

    /// A region without nodes.
    fn empty_region(&self, name: &Arc<str>) -> RegionPlan {
        let plan = Self {
            name: self.name.clone(),
            base_dir: self.base_dir.clone(),
            limits: self.limits.clone(),
            caps: self.caps,
            types: self.types.clone(),
            comes_from: self.comes_from.clone(),
            seal_within: self.seal_within.clone(),
            nodes: Vec::new(),
        };
        RegionPlan { name: name.clone(), plan, lineage: Lineage::default() }
    }

    /// Divides the plan into its regions.
    #[must_use]
    pub fn regions(self) -> Regions {
        let homes = homes(&self.nodes);
        let names = names(&self.nodes, &homes);
        let (lineage, leads) = (self.lineage(), self.leads());
        let mut regions: Vec<RegionPlan> = names.iter().map(|name| self.empty_region(name)).collect();
        // Whatever is parsed may come again as a dead letter.
        regions[0].plan.nodes.push(replay::source());
        let letters = takers_of_letters(&self.nodes);
        let mut ponds: Vec<Pond> = Vec::new();
        // Where each node is in the plan of its region.
        let mut places: Vec<usize> = Vec::new();
        // Writers of ponds that may refuse events: region, place, and the node whose dead letters they are.
        let mut refusing: Vec<(usize, usize, usize)> = Vec::new();
        for (at, (mut node, home)) in self.nodes.into_iter().zip(&homes).enumerate() {
            let mut feeds: Vec<(usize, Vec<Edge>)> = Vec::new();
            for edge in std::mem::take(&mut node.inputs) {
                add(&mut feeds, homes[edge.from].region, Edge { from: places[edge.from], ..edge.clone() });
                // Who takes the letters of a node takes those of the ponds in front of it, too.
                let refusing = refusing.iter().filter(|(_, _, of)| edge.port == Port::DeadLetters && *of == edge.from);
                for (region, place, _) in refusing {
                    add(&mut feeds, *region, Edge { from: *place, ..edge.clone() });
                }
            }
            feeds.sort_by_key(|(region, _)| *region);
            if home.begins {
                let sources = feeds.into_iter().map(|(from, edges)| {
                    let mut options = node.pond.unwrap_or_default();
                    // What could take the dead letters of a pond of dead letters?
                    if letters[at] {
                        options.when_full = WhenFull::Block;
                    }
                    let name: Arc<str> = format!("{}.{}", node.name, names[from]).into();
                    let accepts = accepted(&node, &edges, &regions[from].plan.nodes);
                    regions[from].plan.nodes.push(end(name.clone(), &POND_IN, edges, accepts.clone()));
                    if options.when_full == WhenFull::DeadLetter {
                        refusing.push((from, regions[from].plan.nodes.len() - 1, at));
                    }
                    let carries = carried(&accepts, &leads[at], &lineage);
                    let node = node.name.clone();
                    ponds.push(Pond { name: name.clone(), node, from, to: home.region, options, carries });
                    let mut source = end(name, &POND_OUT, Vec::new(), Vec::new());
                    source.sends = accepts;
                    source
                });
                let sources: Vec<Node> = sources.collect();
                let nodes = &mut regions[home.region].plan.nodes;
                nodes.extend(sources);
                node.inputs = (0..nodes.len()).map(|from| Edge { from, port: Port::Data, types: None }).collect();
            } else {
                node.inputs = feeds.into_iter().flat_map(|(_, edges)| edges).collect();
                let is_parser = node.role == Role::Stage && node.kind.input != Shape::Rows;
                node.inputs.extend(is_parser.then(replay::edge));
            }
            let nodes = &mut regions[home.region].plan.nodes;
            places.push(nodes.len());
            nodes.push(node);
        }
        let mut divided = Regions { regions, ponds };
        divided.trace(lineage);
        divided
    }
}

/// The region of a node.
struct Home {
    region: usize,
    begins: bool,
    /// The regions of what it takes from, in order.
    inputs: Vec<usize>,
}

/// Names of the regions.
fn names(nodes: &[Node], homes: &[Home]) -> Vec<Arc<str>> {
    let begun = nodes.iter().zip(homes).filter(|(_, home)| home.begins).map(|(node, _)| node.name.clone());
    std::iter::once(MAIN.into()).chain(begun).collect()
}

fn homes(nodes: &[Node]) -> Vec<Home> {
    let mut homes: Vec<Home> = Vec::new();
    let mut last = 0;
    for node in nodes {
        let mut inputs: Vec<usize> = node.inputs.iter().map(|edge| homes[edge.from].region).collect();
        // A pond in another region may have letters of the node that it is in front of.
        let letters = node.inputs.iter().filter(|edge| edge.port == Port::DeadLetters);
        for edge in letters.filter(|edge| homes[edge.from].begins && refuses(&nodes[edge.from])) {
            inputs.extend(nodes[edge.from].inputs.iter().map(|edge| homes[edge.from].region));
        }
        inputs.sort_unstable();
        inputs.dedup();
        let begins = node.role != Role::Source && (node.pond.is_some() || inputs.len() > 1);
        last += usize::from(begins);
        let region = if begins { last } else { inputs.first().copied().unwrap_or(0) };
        homes.push(Home { region, begins, inputs });
    }
    homes
}

fn refuses(node: &Node) -> bool {
    node.pond.is_some_and(|pond| pond.when_full == WhenFull::DeadLetter)
}

/// Whether each node takes dead letters, or is behind one that does.
fn takers_of_letters(nodes: &[Node]) -> Vec<bool> {
    let mut takers: Vec<bool> = Vec::new();
    for node in nodes {
        let takes = node.inputs.iter().any(|edge| edge.port == Port::DeadLetters || takers[edge.from]);
        takers.push(takes);
    }
    takers
}

fn add(feeds: &mut Vec<(usize, Vec<Edge>)>, region: usize, edge: Edge) {
    match feeds.iter_mut().find(|(known, _)| *known == region) {
        Some((_, known)) => known.push(edge),
        None => feeds.push((region, vec![edge])),
    }
}

/// What of the types that a node accepts can come over these edges.
fn accepted(node: &Node, edges: &[Edge], nodes: &[Node]) -> Vec<Arc<tidemill_core::EventType>> {
    let comes = |name: &str| {
        edges.iter().any(|edge| match edge.port {
            Port::DeadLetters => name == DEAD_LETTER_TYPE,
            Port::Data => {
                edge.types.as_ref().is_none_or(|types| types.iter().any(|known| **known == *name))
                    && nodes[edge.from].sends.iter().any(|sent| *sent.name == *name)
            }
        })
    };
    let mut accepted: Vec<_> = node.accepts.iter().filter(|accepted| comes(&accepted.name)).cloned().collect();
    if comes(DEAD_LETTER_TYPE) && !accepted.iter().any(|accepted| *accepted.name == *DEAD_LETTER_TYPE) {
        accepted.push(dead_letter_type());
    }
    accepted
}

impl Regions {
    /// Says of each region where its types come from, as that is in the whole plan.
    fn trace(&mut self, whole: Lineage) {
        for region in &mut self.regions[1..] {
            region.lineage = behind_ponds(&region.plan, &self.ponds, &whole);
        }
        self.regions[0].lineage = behind_replay(whole);
    }
}

/// The derived types whose horizons come through a pond in front of a node. Those made of dead letters are sealed by
/// the clock, everywhere.
fn carried(
    accepts: &[Arc<EventType>],
    leads: &BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    lineage: &Lineage,
) -> Vec<Arc<str>> {
    let made: BTreeSet<&Arc<str>> = accepts.iter().filter_map(|accepted| leads.get(&accepted.name)).flatten().collect();
    let has_origins =
        |name: &&Arc<str>| lineage.derived.iter().any(|derived| derived.name == **name && !derived.origins.is_empty());
    made.into_iter().filter(has_origins).cloned().collect()
}

/// The source of replayed dead letters comes first in its region. Nothing waits for it.
fn behind_replay(mut lineage: Lineage) -> Lineage {
    let of_types = lineage.types.iter_mut().flat_map(|(_, origins)| origins);
    let of_derived = lineage.derived.iter_mut().flat_map(|derived| &mut derived.origins);
    of_types.chain(of_derived).for_each(|origin| origin.source += 1);
    lineage
}

/// Where the types of a region come from that has ponds for sources.
fn behind_ponds(plan: &Plan, ponds: &[Pond], whole: &Lineage) -> Lineage {
    let mut types: BTreeMap<Arc<str>, Vec<Origin>> = BTreeMap::new();
    for (source, node) in plan.nodes.iter().filter(|node| node.role == Role::Source).enumerate() {
        let sent = node.sends.iter().map(|sent| &sent.name).filter(|name| ***name != *DEAD_LETTER_TYPE);
        let carried = ponds.iter().filter(|pond| pond.name == node.name).flat_map(|pond| &pond.carries);
        for name in sent.chain(carried) {
            types.entry(name.clone()).or_default().push(Origin::all_of(source));
        }
    }
    let is_made = |name: &Arc<str>| plan.nodes.iter().any(|node| node.makes().any(|made| made == name));
    let made_here = whole.derived.iter().filter(|derived| is_made(&derived.name));
    let derived = made_here.map(|derived| Derived { origins: Vec::new(), ..derived.clone() });
    Lineage { types: types.into_iter().collect(), derived: derived.collect() }
}

fn end(
    name: Arc<str>,
    kind: &'static tidemill_core::KindSpec,
    inputs: Vec<Edge>,
    accepts: Vec<Arc<tidemill_core::EventType>>,
) -> Node {
    debug_assert_eq!(kind.state, State::Stateful, "an end of a pond has one worker");
    let options = Options::default();
    Node { name, role: kind.role, kind, options, workers: 1, pond: None, inputs, accepts, sends: Vec::new() }
}
