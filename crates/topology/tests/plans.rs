//! Well-formed topologies and what is made of them.

mod common;

use common::{TestKinds, good, load_text};
use expect_test::expect_file;
use serde_json::{Value, json};
use tidemill_core::Role;
use tidemill_topology::{GraphFormat, Plan, Port, describe, describe_kind, graph, json_schema};
use tidemill_topology::{Kinds, Node};

fn plan(text: &str) -> Plan {
    let loaded = load_text("good.toml", text);
    let said: Vec<String> = loaded.diagnostics.iter().map(|found| found.render(text, false)).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
    loaded.plan.expect("no error, so a plan")
}

fn node<'p>(plan: &'p Plan, name: &str) -> &'p Node {
    plan.nodes.iter().find(|node| &*node.name == name).unwrap_or_else(|| panic!("no node {name}"))
}

/// What a node takes from; dead letters with an exclamation mark.
fn inputs(plan: &Plan, name: &str) -> Vec<String> {
    let from = |edge: &tidemill_topology::Edge| match edge.port {
        Port::Data => plan.nodes[edge.from].name.to_string(),
        Port::DeadLetters => format!("{}!", plan.nodes[edge.from].name),
    };
    node(plan, name).inputs.iter().map(from).collect()
}

fn types(types: &[std::sync::Arc<tidemill_core::EventType>]) -> Vec<&str> {
    types.iter().map(|event_type| &*event_type.name).collect()
}

#[test]
fn nodes_come_after_what_they_take_from_and_dead_letters_are_last() {
    let plan = plan(&good(""));
    let names: Vec<&str> = plan.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["events", "parse", "dedup", "counts", "warehouse", "counts_out", "dead_letters"]);
    for (at, node) in plan.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|edge| edge.from < at), "{}", node.name);
    }
    assert_eq!(&*plan.name, "plays");
    assert_eq!(types(&plan.types), ["play", "skip"]);
}

#[test]
fn the_order_of_the_text_does_not_matter() {
    let text = good("");
    let (head, tail) = text.split_at(text.find("[stages.parse]").unwrap());
    let (stages, sinks) = tail.split_at(tail.find("[sinks.warehouse]").unwrap());
    let turned = format!("{sinks}\n{stages}\n{head}");
    let (one, other) = (plan(&text), plan(&turned));
    let mut names: Vec<_> = one.nodes.iter().map(|node| node.name.clone()).collect();
    let mut turned: Vec<_> = other.nodes.iter().map(|node| node.name.clone()).collect();
    names.sort();
    turned.sort();
    assert_eq!(names, turned);
    assert_eq!(one.fingerprint(), other.fingerprint());
}

#[test]
fn defaults_are_filled_in_with_durations_and_sizes_as_numbers() {
    let plan = plan(&good(""));
    assert_eq!(Value::Object(node(&plan, "dedup").options.0.clone()), json!({ "window": 86_400_000 }));
    let warehouse = &node(&plan, "warehouse").options.0;
    assert_eq!((&warehouse["codec"], &warehouse["roll"]), (&json!("zstd"), &json!(1 << 30)));
    assert_eq!(node(&plan, "parse").options.0["separator"], "\t");
    assert_eq!(node(&plan, "parse").workers, 2);
    assert!(node(&plan, "counts").options.0["measures"].as_object().unwrap().keys().eq(["users", "events"]));
    let limits = &plan.limits;
    assert_eq!((limits.bucket_ms, limits.allowed_lateness_ms, limits.max_ahead_ms), (3_600_000, 600_000, 3_600_000));
    assert_eq!((limits.max_open_hours, limits.max_groups, limits.max_path_values), (10_000, 100_000, 1_000));
    assert_eq!(limits.max_event_bytes, 1 << 20);
}

#[test]
fn limits_are_taken_from_the_text() {
    let text = good("").replace(
        "name = \"plays\"",
        "name = \"p\"\nbucket = \"15m\"\nallowed_lateness = \"0s\"\nmax_event = \"64MiB\"",
    );
    let limits = plan(&text).limits;
    assert_eq!((limits.bucket_ms, limits.allowed_lateness_ms, limits.max_event_bytes), (900_000, 0, 64 << 20));
}

#[test]
fn types_flow_from_the_parsing_stage_to_the_sinks() {
    let plan = plan(&good(""));
    assert_eq!(types(&node(&plan, "parse").accepts), ["play", "skip"]);
    assert_eq!(types(&node(&plan, "warehouse").accepts), ["play", "skip"]);
    assert_eq!(types(&node(&plan, "counts").sends), ["counts"]);
    assert_eq!(types(&node(&plan, "counts_out").accepts), ["counts"]);
    assert_eq!(types(&node(&plan, "dead_letters").accepts), ["dead_letter"]);
    assert!(node(&plan, "events").inputs.is_empty());
}

#[test]
fn a_narrowed_input_carries_its_types_on_the_edge() {
    let extra = "\n[sinks.skips]\nkind = \"console\"\nfrom = [\"parse\", \"dedup\"]\ntypes = [\"skip\"]\n";
    let plan = plan(&good(extra));
    let skips = node(&plan, "skips");
    assert_eq!(types(&skips.accepts), ["skip"]);
    assert!(skips.inputs.iter().all(|edge| edge.types.as_deref() == Some(&["skip".into()])));
    assert!(node(&plan, "dedup").inputs[0].types.is_none());
}

#[test]
fn a_tier_stands_for_its_types_and_says_how_soon_they_are_to_be_sealed() {
    let extra = "\n[sinks.first]\nkind = \"console\"\nfrom = [\"dedup\"]\ntypes = [\"tier:high\"]\n\
                 [sinks.others]\nkind = \"console\"\nfrom = [\"dedup\"]\ntypes = [\"tier:normal\"]\n";
    let text = good(extra).replace("[types.play]", "[types.play]\ntier = \"high\"");
    let plan = plan(&text);
    assert_eq!(types(&node(&plan, "first").accepts), ["play"]);
    assert_eq!(types(&node(&plan, "others").accepts), ["skip"]);
    assert_eq!((plan.seal_within_ms("play"), plan.seal_within_ms("skip")), (60_000, 300_000));
}

#[test]
fn a_parsing_stage_narrows_what_it_parses_not_the_raw_records() {
    let text = good("").replace("type_from = { column = 0 }", "type_from = { column = 0 }\ntypes = [\"play\"]");
    let loaded = load_text("good.toml", &text);
    let plan = loaded.plan.unwrap();
    assert_eq!(types(&node(&plan, "parse").accepts), ["play"]);
    assert!(node(&plan, "parse").inputs[0].types.is_none());
    assert_eq!(loaded.diagnostics.iter().map(|found| found.code).collect::<Vec<_>>(), ["unused-type"]);
}

#[test]
fn every_dead_letter_port_that_nobody_takes_goes_to_a_sink_of_its_own() {
    let plan = plan(&good(""));
    assert_eq!(inputs(&plan, "dead_letters"), ["parse!", "dedup!", "counts!", "warehouse!", "counts_out!"]);
    let sink = node(&plan, "dead_letters");
    assert_eq!((sink.role, sink.kind.name), (Role::Sink, "avro_files"));
    assert_eq!(sink.options.0["path"], "_dead_letters/year={year}/month={month}/day={day}/hour={hour}");
    assert_eq!(sink.options.0["codec"], "zstd");
}

#[test]
fn the_path_of_dead_letters_is_as_fine_as_the_bucket() {
    for (bucket, tail) in
        [("1d", ""), ("6h", "/hour={hour}"), ("1h", "/hour={hour}"), ("1m", "/hour={hour}/minute={minute}")]
    {
        let plan = plan(&good("").replace("name = \"plays\"", &format!("name = \"plays\"\nbucket = \"{bucket}\"")));
        let path = &node(&plan, "dead_letters").options.0["path"];
        assert_eq!(*path, format!("_dead_letters/year={{year}}/month={{month}}/day={{day}}{tail}"), "{bucket}");
    }
}

#[test]
fn what_a_kind_warns_of_is_a_warning_at_its_place() {
    let text = good("").replace("kind = \"dedup\"", "kind = \"dedup\"\nwindow = \"5m\"");
    let loaded = load_text("good.toml", &text);
    assert!(loaded.plan.is_some());
    let found: Vec<_> =
        loaded.diagnostics.iter().map(|found| (found.code, found.severity, &text[found.span.clone()])).collect();
    assert_eq!(found, [("short-window", tidemill_core::Severity::Warning, "\"5m\"")]);
}

#[test]
fn sinks_of_the_same_events_may_write_to_paths_of_their_own() {
    let sink = |path: &str| format!("\n[sinks.copy]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\n{path}");
    plan(&good(&sink("path = \"copy/{event_type}/year={year}/month={month}/day={day}/hour={hour}\"\n")));
    let loaded = load_text("good.toml", &good(&sink("")));
    assert_eq!(loaded.diagnostics.iter().map(|found| found.code).collect::<Vec<_>>(), ["same-path"]);
}

#[test]
fn taken_dead_letters_and_those_of_dead_letter_sinks_are_left_alone() {
    let extra = "\n[sinks.letters]\nkind = \"console\"\nfrom = [\"parse.dead_letters\", \"dedup.dead_letters\"]\n";
    let plan = plan(&good(extra));
    assert_eq!(inputs(&plan, "letters"), ["parse!", "dedup!"]);
    assert_eq!(inputs(&plan, "dead_letters"), ["counts!", "warehouse!", "counts_out!"]);
}

#[test]
fn a_sink_named_dead_letters_takes_what_nobody_else_takes() {
    let extra = "\n[sinks.dead_letters]\nkind = \"console\"\nfrom = [\"parse.dead_letters\"]\n";
    let plan = plan(&good(extra));
    assert_eq!(inputs(&plan, "dead_letters"), ["parse!", "dedup!", "counts!", "warehouse!", "counts_out!"]);
    assert_eq!(plan.nodes.iter().filter(|node| &*node.name == "dead_letters").count(), 1);
}

#[test]
fn what_takes_from_the_dead_letters_sink_does_not_feed_it() {
    let extra = "\n[sinks.dead_letters]\nkind = \"console\"\nfrom = [\"parse.dead_letters\"]\n\n[sinks.all]\nkind = \"console\"\nfrom = [\"dedup\", \"dead_letters.dead_letters\"]\n";
    let plan = plan(&good(extra));
    assert!(!inputs(&plan, "dead_letters").contains(&"all!".to_owned()));
}

#[test]
fn lines_and_blocks_have_parsers_of_their_own() {
    let extra = r#"
[sources.archive]
kind = "file"
paths = ["in/*.avro"]
framing = "avro"

[stages.blocks]
kind = "avro"
from = ["archive"]
type_from = { const = "play" }

[stages.swedish]
kind = "filter"
from = ["blocks", "parse"]
types = ["play"]
where = 'country = "SE"'

[sinks.out]
kind = "blackhole"
from = ["swedish"]
"#;
    let plan = plan(&good(extra));
    assert_eq!(types(&node(&plan, "blocks").sends), ["play"]);
    assert_eq!(inputs(&plan, "swedish"), ["blocks", "parse"]);
}

#[test]
fn the_mermaid_graph_shows_workers_types_and_dead_letters() {
    let extra = "\n[sinks.skips]\nkind = \"console\"\nfrom = [\"dedup\"]\ntypes = [\"skip\"]\n";
    let plan = plan(&good(extra));
    expect_file!["snapshots/graph.mmd"].assert_eq(&graph(&plan, GraphFormat::Mermaid));
}

#[test]
fn the_dot_graph_shows_the_same() {
    let plan = plan(&good(""));
    expect_file!["snapshots/graph.dot"].assert_eq(&graph(&plan, GraphFormat::Dot));
}

#[test]
fn a_diagnostic_is_json_for_editors() {
    let text = good("").replace("name = \"plays\"", "name = \"plays\"\nbukcet = 1");
    let found = load_text("good.toml", &text).diagnostics;
    let json = serde_json::to_string_pretty(&found).unwrap();
    expect_file!["snapshots/diagnostics.json"].assert_eq(&format!("{json}\n"));
}

#[test]
fn colour_marks_the_severity_and_nothing_else_changes() {
    let text = good("").replace("name = \"plays\"", "nmae = \"plays\"");
    let found = &load_text("good.toml", &text).diagnostics[0];
    let colored = found.render(&text, true);
    assert!(colored.starts_with("\u{1b}[1;31merror[unknown-key]\u{1b}[0m"), "{colored:?}");
    let mut plain = colored.clone();
    for code in ["1;31", "1;34", "1", "0"] {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, found.render(&text, false));
}

#[test]
fn the_json_schema_is_as_it_was() {
    let schema = serde_json::to_string_pretty(&json_schema(&TestKinds)).unwrap();
    expect_file!["snapshots/schema.json"].assert_eq(&format!("{schema}\n"));
}

#[test]
fn the_description_names_every_option_with_its_limits() {
    expect_file!["snapshots/kinds.md"].assert_eq(&describe(&TestKinds));
    for role in [Role::Source, Role::Stage, Role::Sink] {
        for spec in TestKinds.specs(role) {
            let text = describe_kind(spec);
            assert!(spec.options.iter().all(|option| text.contains(&format!("- `{}` (", option.name))), "{text}");
        }
    }
}

/// The kinds of the tests, but without `avro_files` and with a `filter` that refuses silently.
struct OddKinds;

impl Kinds for OddKinds {
    fn specs(&self, role: Role) -> Vec<&'static tidemill_core::KindSpec> {
        TestKinds.specs(role).into_iter().filter(|spec| spec.name != "avro_files").collect()
    }
    fn check_source(&self, kind: &str, options: &tidemill_core::Options) -> Vec<tidemill_core::Finding> {
        TestKinds.check_source(kind, options)
    }
    fn plan(
        &self,
        role: Role,
        kind: &str,
        input: &tidemill_core::StageInput,
    ) -> Result<Vec<std::sync::Arc<tidemill_core::EventType>>, Vec<tidemill_core::Finding>> {
        if kind == "filter" { Err(Vec::new()) } else { TestKinds.plan(role, kind, input) }
    }
}

fn load_odd(stage: &str) -> tidemill_topology::Loaded {
    let text = good("");
    let text = format!(
        "{}\n[sinks.out]\nkind = \"console\"\nfrom = [\"dedup\"]\n{stage}",
        &text[..text.find("[stages.counts]").unwrap()]
    );
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    tidemill_topology::load(&text, "odd.toml".as_ref(), &OddKinds, &|path| std::fs::read_to_string(folder.join(path)))
}

#[test]
fn without_a_kind_that_can_take_them_dead_letters_have_no_sink() {
    let loaded = load_odd("");
    let plan = loaded.plan.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    assert!(plan.nodes.iter().all(|node| &*node.name != "dead_letters"));
}

#[test]
fn a_kind_that_refuses_without_saying_why_is_an_error() {
    let loaded = load_odd(
        "\n[stages.some]\nkind = \"filter\"\nfrom = [\"dedup\"]\nwhere = \"x\"\n[sinks.more]\nkind = \"console\"\nfrom = [\"some\"]\n",
    );
    assert!(loaded.plan.is_none());
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["kind-at-fault"]);
}
