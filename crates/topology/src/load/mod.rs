//! From text to plan.

mod cx;
mod dead_letters;
mod findings;
mod flow;
mod late;
mod nodes;
mod options;
mod order;
mod producers;
mod same_path;
mod syntax;
mod tiers;
mod types;
mod values;
mod wiring;

use std::path::Path;
use std::sync::Arc;

use tidemill_core::{Late, Limits, Role, Tier};
use toml::de::DeTable;

use crate::common::{self, DAY_MS};
use crate::diagnostic::Diagnostic;
use crate::plan::{DeadLetterCaps, Edge, Kinds, Node, Plan, Port, SealWithin};
use crate::{codes, suggest, units};
use cx::{Cx, Key, Problem, Span, entries};
use flow::{Flow, Planner};
use nodes::Draft;
use options::{Owner, Verdict, check};

/// What came of a topology's text.
#[derive(Debug)]
pub struct Loaded {
    /// The plan, if and only if no diagnostic is an error.
    pub plan: Option<Plan>,
    /// All that is wrong, errors and warnings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks a topology and makes a plan of it. `path` is the file's name for diagnostics, and its folder is where the paths of
/// schemas start; they are read through `read`, nothing else is touched. Every error is found at once; one that only follows
/// from another is not said. Cost: that of parsing the text and the schemas; the checks are quadratic in the number of
/// stages at worst.
pub fn load(text: &str, path: &Path, kinds: &dyn Kinds, read: &dyn Fn(&Path) -> std::io::Result<String>) -> Loaded {
    let cx = Cx::new(text, path);
    let (document, errors) = DeTable::parse_recoverable(text);
    let holes = syntax::report(&cx, &document, &errors);
    let sections = sections(&cx, document.get_ref());
    let Topology { name, limits, caps, asks_once, late, seal_within_ms } =
        topology(&cx, sections.topology, &sections.header);
    let types = types::declare(&cx, &sections.types, late, read);
    let mut drafts: Vec<Draft<'_, '_>> =
        sections.nodes.iter().map(|(role, key, table)| nodes::draft(&cx, *role, key, table, kinds)).collect();
    drafts.sort_by_key(|draft| draft.span.start);
    tiers::expand(&cx, &types, &mut drafts);
    nodes::check_duplicates(&cx, &drafts);
    wiring::resolve(&cx, &mut drafts, sections.holes);
    wiring::check_shapes(&cx, &mut drafts, kinds);
    if !sections.holes {
        wiring::check_ends(&cx, &drafts, &sections.header);
    }
    let limits = Arc::new(limits);
    dead_letters::connect(&cx, &mut drafts, &sections.header, kinds, &limits);
    let order = order::order(&cx, &drafts);
    let planner =
        Planner { cx: &cx, drafts: &drafts, types: &types, limits: &limits, kinds, asks_once, holes: sections.holes };
    let flows = planner.run(&order);
    planner.check_unused_types(&flows);
    same_path::check(&cx, &drafts, &flows, &limits);
    let nodes = plan_nodes(&drafts, &order, flows);
    let comes_from = types.iter().map(|(name, declared)| {
        let said = declared.comes_from.iter().map(|(said, _)| said.clone()).collect();
        (Arc::from(name.as_str()), said)
    });
    let comes_from = comes_from.collect();
    let seal_within = types.iter().map(|(name, declared)| {
        let said_ms = declared.seal_within_ms.or(seal_within_ms);
        (name.as_str().into(), said_ms.unwrap_or_else(|| tiers::seal_within_ms(declared.tier)))
    });
    let default_ms = seal_within_ms.unwrap_or_else(|| tiers::seal_within_ms(Tier::default()));
    let plan = name.zip(nodes).map(|(name, nodes)| Plan {
        name: name.into(),
        base_dir: path.parent().unwrap_or(Path::new("")).to_owned(),
        limits,
        caps,
        types: types.values().filter_map(|declared| declared.event_type.clone()).collect(),
        comes_from,
        seal_within: SealWithin { default_ms, by_type: seal_within.collect() },
        nodes,
    });
    if !sections.holes {
        wiring::check_origins(&cx, &drafts, &types, plan.as_ref());
        wiring::check_shared(&cx, &drafts, &types);
    }
    let mut diagnostics = cx.finish();
    syntax::keep_certain(&holes, &mut diagnostics);
    let right = !diagnostics.iter().any(Diagnostic::is_error);
    Loaded { plan: plan.filter(|_| right), diagnostics }
}

type Named<'t, 'i> = (&'t Key<'i>, &'t DeTable<'i>);

struct Sections<'t, 'i> {
    topology: Option<&'t DeTable<'i>>,
    /// Where `[topology]` is, or would be.
    header: Span,
    types: Vec<Named<'t, 'i>>,
    nodes: Vec<(Role, &'t Key<'i>, &'t DeTable<'i>)>,
    /// Some of the types or nodes could not be made out, so that names may be missing.
    holes: bool,
}

const SECTIONS: [&str; 5] = ["topology", "types", "sources", "stages", "sinks"];

/// The tables at the top. One whose name is misspelt counts as what was meant, so that nothing else is said about it.
fn sections<'t, 'i>(cx: &Cx<'_>, document: &'t DeTable<'i>) -> Sections<'t, 'i> {
    let mut found = Sections { topology: None, header: 0..0, types: Vec::new(), nodes: Vec::new(), holes: false };
    for (key, value) in entries(document) {
        let written = key.get_ref().as_ref();
        let meant = SECTIONS.iter().copied().find(|section| *section == written);
        let section = meant.or_else(|| {
            let known = if value.get_ref().is_table() { "table" } else { "key" };
            let message = format!("a topology has no {known} `{written}`");
            let form = |section| if section == "topology" { "[topology]".into() } else { format!("[{section}.NAME]") };
            let nearest = suggest::nearest(written, &SECTIONS).filter(|_| value.get_ref().is_table());
            let help = match nearest {
                Some(section) => format!("did you mean `{}`?", form(section)),
                None => {
                    let forms: Vec<String> = SECTIONS.iter().map(|section| form(section)).collect();
                    format!("the tables there are: {}", suggest::list(&forms))
                }
            };
            cx.push(Problem::error(codes::UNKNOWN_TABLE, key.span(), message).help(help));
            nearest
        });
        let role = match section {
            None => continue,
            Some("topology") => {
                found.header = key.span();
                match value.get_ref().as_table() {
                    Some(table) => found.topology = Some(table),
                    None => {
                        let message = format!("`topology` must be a table, not {}", cx::type_name(value.get_ref()));
                        let problem = Problem::error(codes::WRONG_TYPE, key.span(), message);
                        cx.push(problem.help("write `[topology]` on a line of its own"));
                    }
                }
                continue;
            }
            Some("types") => {
                found.types.extend(types::tables(cx, "types", value, key, &mut found.holes));
                continue;
            }
            Some("sources") => Role::Source,
            Some("stages") => Role::Stage,
            Some(_) => Role::Sink,
        };
        let (_, section) = common::role_names(role);
        let tables = types::tables(cx, section, value, key, &mut found.holes);
        found.nodes.extend(tables.into_iter().map(|(key, table)| (role, key, table)));
    }
    if found.topology.is_none() && found.header == (0..0) {
        let problem = Problem::error(codes::MISSING_TABLE, 0..0, "there is no `[topology]`");
        cx.push(problem.help("begin with `[topology]` and `name = \"...\"`"));
    }
    found
}

/// Widths to offer in place of one that does not divide a day.
const USUAL_MINUTES: [u64; 17] = [1, 2, 3, 5, 6, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1_440];

/// What `[topology]` says.
struct Topology {
    name: Option<String>,
    limits: Limits,
    caps: DeadLetterCaps,
    /// Sinks have to deliver exactly once.
    asks_once: bool,
    /// For types that do not say it themselves.
    late: Late,
    seal_within_ms: Option<i64>,
}

/// Limits that are wrong are replaced by their defaults, so that the rest can be checked.
fn topology(cx: &Cx<'_>, table: Option<&DeTable<'_>>, header: &Span) -> Topology {
    let owner = Owner { name: "`[topology]`".to_owned(), span: header.clone(), kind: None };
    let specs: Vec<_> = common::TOPOLOGY_KEYS.iter().collect();
    let checked = table.map(|table| check(cx, &owner, table, &specs, &|_, _| Verdict::Unknown));
    let number = |key: &str, default: u64| checked.as_ref().and_then(|checked| checked.number(key)).unwrap_or(default);
    let span = |key: &str| table.and_then(|table| table.get(key)).map_or(header.clone(), |value| value.span());
    let name = checked.as_ref().and_then(|checked| checked.text("name"));
    if let Some(name) = name.filter(|name| !common::is_name(name)) {
        let message = format!("`{name}` can't be the name of a topology");
        cx.push(Problem::error(codes::BAD_NAME, span("name"), message).help("use letters, digits, `_` and `-`"));
    }
    let bucket = number("bucket", 3_600_000);
    if !DAY_MS.is_multiple_of(bucket) {
        let above = USUAL_MINUTES.partition_point(|minutes| minutes * 60_000 < bucket);
        let near = USUAL_MINUTES[above.saturating_sub(1)..].iter().take(2);
        let near: Vec<String> = near.map(|minutes| format!("\"{}\"", units::duration(minutes * 60_000))).collect();
        let message = format!("a day can't be divided into hours of {}", units::duration(bucket));
        let help = format!("usual widths near it are {}", near.join(" and "));
        cx.push(Problem::error(codes::BAD_BUCKET, span("bucket"), message).help(help));
    }
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let limits = Limits {
        bucket_ms: signed(bucket),
        allowed_lateness_ms: signed(number("allowed_lateness", 600_000)),
        hold_at_most_ms: signed(number("hold_at_most", 21_600_000)),
        max_ahead_ms: signed(number("max_ahead", 3_600_000)),
        max_open_hours: size(number("max_open_hours", 10_000)),
        max_groups: size(number("max_groups", 100_000)),
        max_path_values: size(number("max_path_values", 1_000)),
        max_event_bytes: size(number("max_event", 1 << 20)),
    };
    let cap = |key: &str| checked.as_ref().and_then(|checked| checked.number(key));
    let caps = DeadLetterCaps { in_a_row: cap("max_dead_in_a_row"), percent: cap("max_dead_percent") };
    let asks_once = checked.as_ref().and_then(|checked| checked.text("delivery")) == Some("exactly_once");
    let late = late::said(checked.as_ref(), late::DEFAULT);
    let seal_within_ms = cap("seal_within").map(signed);
    Topology { name: name.map(str::to_owned), limits, caps, asks_once, late, seal_within_ms }
}

/// The drafts as nodes of a plan; `None` when one of them is wrong.
fn plan_nodes(drafts: &[Draft<'_, '_>], order: &[usize], mut flows: Vec<Flow>) -> Option<Vec<Node>> {
    if order.len() != drafts.len() {
        return None;
    }
    let mut index = vec![0; drafts.len()];
    order.iter().enumerate().for_each(|(new, old)| index[*old] = new);
    let mut nodes: Vec<Node> = Vec::with_capacity(order.len());
    for old in order {
        let (draft, flow) = (&drafts[*old], std::mem::take(&mut flows[*old]));
        let edge = |input: &nodes::Input| {
            let passing = || match input.port {
                Port::DeadLetters => vec![Arc::from(tidemill_core::DEAD_LETTER_TYPE)],
                Port::Data => nodes[index[input.from]].sends.iter().map(|sent| sent.name.clone()).collect(),
            };
            let narrow = |all: Vec<Arc<str>>| all.into_iter().filter(|name| draft.lets_pass(name)).collect();
            // Records that are yet to be parsed have no type: the stage that parses them does the narrowing.
            let types = draft.types.as_ref().filter(|_| !draft.parses()).map(|_| narrow(passing()));
            Edge { from: index[input.from], port: input.port, types }
        };
        let inputs = draft.inputs.iter().map(edge).collect();
        nodes.push(Node {
            name: draft.name.as_str().into(),
            role: draft.role,
            kind: draft.kind?,
            options: draft.options.clone()?,
            workers: draft.workers,
            pond: draft.pond,
            inputs,
            accepts: flow.accepts,
            sends: flow.sends,
        });
    }
    Some(nodes)
}
