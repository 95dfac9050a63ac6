//! Topological order, and the circles that stand in its way.

use std::collections::{BTreeMap, BTreeSet};

use super::cx::{Cx, Problem};
use super::nodes::Draft;
use crate::codes;

/// The drafts in topological order, otherwise as written; those in a circle or behind one are left out, and each circle is said.
pub(super) fn order(cx: &Cx<'_>, drafts: &[Draft<'_, '_>]) -> Vec<usize> {
    let mut waiting: BTreeMap<usize, BTreeSet<usize>> = drafts
        .iter()
        .enumerate()
        .map(|(at, draft)| (at, draft.inputs.iter().map(|input| input.from).collect()))
        .collect();
    let mut order = Vec::with_capacity(drafts.len());
    while let Some(next) = waiting.iter().find(|(_, from)| from.is_empty()).map(|(at, _)| *at) {
        waiting.remove(&next);
        waiting.values_mut().for_each(|from| {
            from.remove(&next);
        });
        order.push(next);
    }
    let mut said = BTreeSet::new();
    for start in waiting.keys().copied() {
        if said.contains(&start) {
            continue;
        }
        if let Some(circle) = circle(&waiting, start) {
            // One message for each group that is tied together, not for every way round it.
            said.extend(tied(&waiting, start));
            report(cx, drafts, &circle);
        }
    }
    order
}

/// The shortest way from `start` back to itself, against the flow.
fn circle(waiting: &BTreeMap<usize, BTreeSet<usize>>, start: usize) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for from in &waiting[&at] {
            if *from == start {
                let mut way = vec![at];
                while let Some(last) = way.last().copied().filter(|last| *last != start) {
                    way.push(came_from[&last]);
                }
                // `way` runs with the flow and ends at `start`.
                way.rotate_right(1);
                return Some(way);
            }
            if *from != start && !came_from.contains_key(from) {
                came_from.insert(*from, at);
                queue.push_back(*from);
            }
        }
    }
    None
}

/// All that `start` can reach and that can reach it.
fn tied(waiting: &BTreeMap<usize, BTreeSet<usize>>, start: usize) -> BTreeSet<usize> {
    let reach = |from: usize| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(at) = todo.pop() {
            todo.extend(waiting[&at].iter().filter(|next| seen.insert(**next)));
        }
        seen
    };
    reach(start).into_iter().filter(|at| reach(*at).contains(&start)).collect()
}

fn report(cx: &Cx<'_>, drafts: &[Draft<'_, '_>], circle: &[usize]) {
    let names = circle.iter().chain(&circle[..1]).map(|at| format!("`{}`", drafts[*at].name)).collect::<Vec<_>>();
    let message = match circle {
        [one] => format!("`{}` takes from itself", drafts[*one].name),
        _ => format!("events would go round in a circle: {}", names.join(" -> ")),
    };
    let edge = |position: usize| {
        let to = &drafts[circle[position]];
        let from = circle[(position + circle.len() - 1) % circle.len()];
        to.inputs.iter().find(|input| input.from == from).map(|input| (to, &drafts[from], input.span.clone()))
    };
    let Some((_, _, span)) = edge(0) else { return };
    let mut problem = Problem::error(codes::CYCLE, span, message).help("remove one of these from its `from`");
    for (to, from, span) in (1..circle.len()).filter_map(edge) {
        problem = problem.related(span, format!("`{}` takes from `{}` here", to.name, from.name));
    }
    cx.push(problem);
}
