//! Where types come from, and which horizons travel through which ponds.

mod common;

use std::collections::BTreeMap;

use common::load_text;
use tidemill_topology::{Lineage, Plan, Regions};

const HEAD: &str = r#"[topology]
name = "plays"
[types.play]
schema = "schemas/play.avsc"
time = "played_at"
id = ["event_id"]
[types.skip]
schema = "schemas/skip.avsc"
time = "skipped_at"
id = ["event_id"]
[sources.a]
kind = "file"
paths = ["a/*"]
[sources.b]
kind = "file"
paths = ["b/*"]
[stages.parse_a]
kind = "tsv"
from = ["a"]
type_from = { column = 0 }
[stages.parse_b]
kind = "tsv"
from = ["b"]
type_from = { column = 0 }
"#;

fn plan(tables: &str) -> Plan {
    let text = format!("{HEAD}{tables}");
    let loaded = load_text("good.toml", &text);
    let said: Vec<String> = loaded.diagnostics.iter().map(|found| found.render(&text, false)).collect();
    loaded.plan.unwrap_or_else(|| panic!("{}", said.join("\n")))
}

/// Types with the numbers of their sources, or of their ponds; derived ones with what they are made of in front.
fn shown(lineage: &Lineage) -> BTreeMap<String, String> {
    let numbers = |origins: &[tidemill_topology::Origin]| {
        origins.iter().map(|origin| origin.source.to_string()).collect::<Vec<_>>().join(" ")
    };
    let types = lineage.types.iter().map(|(name, origins)| (name.to_string(), numbers(origins)));
    let derived = lineage.derived.iter().map(|derived| {
        let made_of = derived.made_of.iter().map(|name| name.to_string()).collect::<Vec<_>>().join("+");
        (format!("={}", derived.name), format!("{made_of} {}", numbers(&derived.origins)))
    });
    types.chain(derived).collect()
}

#[track_caller]
fn assert_lineage(lineage: &Lineage, wanted: &[(&str, &str)]) {
    let wanted = wanted.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())).collect();
    assert_eq!(shown(lineage), wanted);
}

fn carries(regions: &Regions) -> Vec<(String, String)> {
    let names = |pond: &tidemill_topology::Pond| {
        (pond.name.to_string(), pond.carries.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" "))
    };
    regions.ponds.iter().map(names).collect()
}

const FILES: &str = "path = \"{event_type}/{year}-{month}-{day}T{hour}\"\nkind = \"avro_files\"\n";

fn counts(group: &str) -> String {
    format!("kind = \"hourly\"\ngroup_by = [\"{group}\"]\nmeasures = {{ events = \"count()\" }}\n")
}

#[test]
fn a_type_comes_from_those_sources_whose_edges_carry_it() {
    let dedup = |from: &str| {
        format!("[stages.dedup]\nkind = \"dedup\"\nfrom = {from}\n[sinks.files]\nfrom = [\"dedup\"]\n{FILES}")
    };
    let both = plan(&dedup("[\"parse_a\", \"parse_b\"]"));
    assert_lineage(&both.lineage(), &[("play", "0 1"), ("skip", "0 1")]);
    // What a parser could make besides is taken by nobody.
    let narrowed = "[stages.one]\nkind = \"dedup\"\nfrom = [\"parse_a\"]\ntypes = [\"play\"]\n\
                    [stages.two]\nkind = \"dedup\"\nfrom = [\"parse_b\"]\ntypes = [\"skip\"]\n";
    let counts = counts("event_id");
    let counts = format!("[stages.counts]\nfrom = [\"one\", \"two\"]\n{counts}");
    let files = format!("[sinks.files]\nfrom = [\"one\", \"two\", \"counts\"]\n{FILES}");
    let narrowed = plan(&format!("{narrowed}{counts}{files}"));
    assert_lineage(&narrowed.lineage(), &[("play", "0"), ("skip", "1"), ("=counts", "play+skip 0 1")]);
    // The source of replayed letters comes first, and holds nothing.
    let regions = narrowed.regions();
    assert_lineage(&regions.regions[0].lineage, &[("play", "1"), ("skip", "2"), ("=counts", "play+skip 1 2")]);
}

#[test]
fn horizons_of_what_is_made_behind_ponds_travel_through_those_that_bring_what_it_is_made_of() {
    let (counts, again) = (counts("event_id"), counts("event_type"));
    let tables = format!(
        "[stages.high]\nkind = \"dedup\"\nfrom = [\"parse_a\"]\ntypes = [\"play\"]\npond = {{}}\n\
         [stages.low]\nkind = \"dedup\"\nfrom = [\"parse_b\"]\ntypes = [\"skip\"]\npond = {{}}\n\
         [stages.both]\nkind = \"dedup\"\nfrom = [\"high\", \"low\"]\n\
         [stages.plays]\nfrom = [\"both\"]\ntypes = [\"play\"]\n{counts}pond = {{}}\n\
         [stages.counts]\nfrom = [\"both\"]\n{counts}\
         [stages.again]\nfrom = [\"counts\"]\n{again}pond = {{}}\n\
         [sinks.files]\nfrom = [\"plays\", \"counts\", \"again\"]\n{FILES}"
    );
    let regions = plan(&tables).regions();
    let of = |name: &str| &regions.regions.iter().find(|region| &*region.name == name).expect("a region").lineage;
    let derived = [("=again", "counts 1 2"), ("=counts", "play+skip 1 2"), ("=plays", "play 1")];
    assert_lineage(of("main"), &[&[("play", "1"), ("skip", "2")], &derived[..]].concat());
    assert_lineage(of("high"), &[("again", "0"), ("counts", "0"), ("play", "0"), ("plays", "0")]);
    assert_lineage(of("low"), &[("again", "0"), ("counts", "0"), ("skip", "0")]);
    let both = [("again", "0 1"), ("counts", "0 1"), ("play", "0"), ("plays", "0"), ("skip", "1")];
    assert_lineage(of("both"), &[&both[..], &[("=counts", "play+skip ")]].concat());
    assert_lineage(of("again"), &[("again", "0"), ("counts", "0"), ("=again", "counts ")]);
    assert_lineage(of("files"), &[("again", "2"), ("counts", "0"), ("plays", "1")]);
    let wanted = [
        ("high.main", "again counts plays"),
        ("low.main", "again counts"),
        ("both.high", "again counts plays"),
        ("both.low", "again counts"),
        ("plays.both", "plays"),
        ("again.both", "again"),
        ("files.both", ""),
    ];
    let found = carries(&regions);
    for (pond, names) in wanted {
        assert!(found.contains(&(pond.to_owned(), names.to_owned())), "{pond}: {found:?}");
    }
}

#[test]
fn what_is_made_of_dead_letters_goes_by_the_clock_where_it_is_made() {
    let letters = counts("reason");
    let tables = format!(
        "[stages.letters]\nfrom = [\"parse_a.dead_letters\"]\n{letters}pond = {{}}\n\
         [sinks.files]\nfrom = [\"parse_a\", \"parse_b\", \"letters\"]\n{FILES}"
    );
    let regions = plan(&tables).regions();
    let letters = regions.regions.iter().find(|region| &*region.name == "letters").expect("a region");
    assert_lineage(&letters.lineage, &[("=letters", "dead_letter ")]);
    assert!(carries(&regions).contains(&("letters.main".into(), String::new())), "{:?}", carries(&regions));
}
