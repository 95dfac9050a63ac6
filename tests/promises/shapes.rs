//! Hours in topologies of other shapes than one parser, one deduplication and types that all come from one source: a
//! type waits for those sources alone that can bring it, and nothing waits for a type that does not come.

use std::sync::Arc;

use serde_json::Value;
use tidemill_testkit::{Fault, Faulty, Trigger};

use tidemill_harness::minutes::sealed;
use tidemill_harness::{HOUR, Place, assert_exit, finish, manifests};

const MINUTE: i64 = 60_000;

/// A topology of minutes with these tables, and types `play` and `skip` with more of their own.
fn topology(place: &Place, play: &str, skip: &str, tables: &str) {
    place.plays("");
    let types = [("play", play), ("skip", skip)]
        .map(|(name, more)| format!("[types.{name}]\nschema = \"play.avsc\"\ntime = \"at\"\nid = [\"id\"]\n{more}\n"));
    let head = "[topology]\nname = \"plays\"\nbucket = \"1m\"\nallowed_lateness = \"0ms\"\nmax_ahead = \"36500d\"\n";
    let letters = "[sinks.dead_letters]\nkind = \"avro_files\"\npath = \"_dead_letters/{year}-{month}-{day}T{hour}\"\n";
    let letters = format!("{letters}from = [\"parse.dead_letters\"]\n").replace("{hour}", "{hour}{minute}");
    place.write("plays.toml", format!("{head}{}{tables}{letters}", types.concat()));
}

/// A source of the files in a folder, and a parser that reads the type from the first column.
fn source(name: &str, idle_timeout: &str, parser: &str, more: &str) -> String {
    format!(
        "[sources.{name}]\nkind = \"file\"\npaths = [\"data/{name}/*\"]\nrescan = \"20ms\"\n\
         idle_timeout = \"{idle_timeout}\"\n\
         [stages.{parser}]\nkind = \"tsv\"\nfrom = [\"{name}\"]\ntype_from = {{ column = 0 }}\n\
         time = \"epoch_ms\"\n{more}\n"
    )
}

fn files(name: &str, from: &str, path: &str) -> String {
    let hour = "{year}-{month}-{day}T{hour}{minute}";
    format!("[sinks.{name}]\nkind = \"avro_files\"\nfrom = {from}\npath = \"{path}/{hour}\"\n")
}

/// An event a minute, just before its end, so that a quiet one closes soon.
fn lines(kind: &str, minutes: std::ops::Range<i64>) -> String {
    minutes.map(|minute| format!("{kind}\t{kind}{minute}\t{}\t\n", HOUR + minute * MINUTE + 59_900)).collect()
}

fn sealed_hours(place: &Place, event_type: &str) -> usize {
    manifests(&place.out(), event_type).iter().filter(|manifest| manifest["revision"] == 0).count()
}

/// Rows of all revisions.
fn rows(place: &Place, event_type: &str) -> u64 {
    manifests(&place.out(), event_type).iter().filter_map(|manifest| manifest["count"].as_u64()).sum()
}

const COUNTS: &str = "kind = \"hourly\"\nmeasures = { events = \"count()\" }\n";

/// Stages for each tier behind ponds, one that takes from all of them, and one that counts behind it.
fn tiers(place: &Place, tiers: &[(&str, &str)]) {
    let stages = tiers.iter().map(|(stage, types)| {
        format!(
            "[stages.{stage}]\nkind = \"dedup\"\nfrom = [\"parse\"]\ntypes = {types}\nwindow = \"1d\"\npond = {{}}\n"
        )
    });
    let names: Vec<&str> = tiers.iter().map(|(stage, _)| *stage).collect();
    let both = format!("[stages.both]\nkind = \"filter\"\nfrom = {names:?}\nwhere = \"id != 'x'\"\n");
    let counts = format!("[stages.counts]\nfrom = [\"both\"]\n{COUNTS}pond = {{}}\n");
    let ends = files("files", "[\"both\"]", "{event_type}") + &files("count_files", "[\"counts\"]", "{event_type}");
    let tables = source("a", "1d", "parse", "") + &stages.collect::<String>() + &both + &counts + &ends;
    topology(place, "tier = \"high\"", "tier = \"low\"", &tables);
}

#[test]
fn a_stage_behind_the_ponds_of_two_tiers_seals_the_hours_of_both_and_what_is_made_of_them() {
    let place = Place::new();
    tiers(&place, &[("high", "[\"tier:high\"]"), ("low", "[\"tier:low\"]")]);
    place.write("data/a/one", lines("play", 0..5) + &lines("skip", 0..10));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    for event_type in ["play", "skip", "counts"] {
        // Types share the source, and its watermark.
        sealed(&place, event_type, HOUR + 3 * MINUTE);
    }
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_eq!((sealed_hours(&place, "play"), sealed_hours(&place, "skip")), (9, 10));
    assert_eq!(rows(&place, "counts"), 15);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn so_does_one_behind_three_of_which_two_have_the_same_type() {
    let place = Place::new();
    tiers(&place, &[("one", "[\"play\"]"), ("two", "[\"skip\"]"), ("three", "[\"skip\"]")]);
    place.write("data/a/one", lines("play", 0..10) + &lines("skip", 0..10));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    for event_type in ["play", "skip", "counts"] {
        sealed(&place, event_type, HOUR + 8 * MINUTE);
    }
    child.stop();
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn types_of_two_sources_share_a_stage_and_wait_for_their_own_source_alone() {
    let place = Place::new();
    let tables = source("a", "1d", "parse", "types = [\"play\"]")
        + &source("b", "1d", "parse_b", "types = [\"skip\"]")
        + "[stages.dedup]\nkind = \"dedup\"\nfrom = [\"parse\", \"parse_b\"]\nwindow = \"1d\"\n"
        + &files("files", "[\"dedup\"]", "{event_type}");
    topology(&place, "", "", &tables);
    place.write("data/a/one", lines("play", 0..10));
    // Not idle for a day: it holds what it can bring.
    place.write("data/b/one", lines("skip", 0..1));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    sealed(&place, "play", HOUR + 8 * MINUTE);
    child.stop();
    assert_eq!(sealed_hours(&place, "skip"), 0);
}

#[test]
fn what_is_made_of_several_types_does_not_wait_for_one_that_never_comes() {
    let place = Place::new();
    let tables = source("a", "1d", "parse", "types = [\"play\"]")
        + &source("b", "50ms", "parse_b", "types = [\"skip\"]")
        + &format!("[stages.counts]\nfrom = [\"parse\", \"parse_b\"]\n{COUNTS}")
        + "[stages.counted]\nkind = \"audit\"\nfrom = [\"parse\", \"parse_b\"]\n"
        + &files("files", "[\"counts\", \"counted\"]", "{event_type}");
    topology(&place, "", "", &tables);
    place.write("data/a/one", lines("play", 0..10));
    place.write("data/b/empty", "");
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    for event_type in ["counts", "counted"] {
        assert_eq!(sealed(&place, event_type, HOUR + 8 * MINUTE)["count"], 1);
    }
    child.stop();
}

#[test]
fn rows_of_a_type_that_falls_quiet_and_comes_back_are_a_revision_and_nothing_is_late() {
    let place = Place::new();
    let tables = source("a", "50ms", "parse", "")
        + "[stages.dedup]\nkind = \"dedup\"\nfrom = [\"parse\"]\nwindow = \"1h\"\n"
        + &format!("[stages.counts]\nfrom = [\"dedup\"]\n{COUNTS}pond = {{}}\n")
        + &format!("[stages.hours]\nfrom = [\"counts\"]\n{}", COUNTS.replace("count()", "sum(events)"))
        + &files("files", "[\"dedup\", \"counts\", \"hours\"]", "{event_type}");
    let delay = "late_delay = \"100ms\"";
    topology(
        &place,
        &format!("comes_from = [\"a/data/a/plays\"]\n{delay}"),
        &format!("comes_from = [\"a/data/a/skips\"]\n{delay}"),
        &tables.replace("data/a/*", "data/a/*/*"),
    );
    let line = |minute: i64| lines("skip", minute..minute + 1);
    place.write("data/a/skips/day1", line(0) + &line(1));
    place.write("data/a/plays/one", lines("play", 0..1) + &lines("play", 119..121));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    sealed(&place, "counts", HOUR + 119 * MINUTE);
    assert_eq!(sealed(&place, "counts", HOUR)["count"], 2);
    // The next portion of what comes in large ones.
    place.write("data/a/skips/day2", lines("skip", 2..100));
    let revised = |minute: i64| {
        let start = tidemill_core::format_time_ms(HOUR + minute * MINUTE);
        tidemill_harness::wait_for("the revision", || {
            let of_hour =
                |manifest: &Value| manifest["hour"]["start"].as_str().is_some_and(|is| is[..19] == start[..19]);
            manifests(&place.out(), "counts").into_iter().find(|found| of_hour(found) && found["revision"] == 1)
        })
    };
    let manifest = revised(98);
    assert_eq!((&manifest["count"], &manifest["mode"]), (&1.into(), &"append".into()), "{manifest}");
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_eq!(rows(&place, "counts"), 3 + 100, "each hour of each type, once");
    assert_eq!(rows(&place, "skip"), 100);
    let last = |hour: &Value| hour["mode"] == "complete" || hour["mode"] == "replace";
    let of_hours = manifests(&place.out(), "hours").into_iter().filter(last).map(|hour| hour["count"].as_u64());
    assert!(of_hours.clone().all(|count| count == Some(1) || count == Some(0)), "{:?}", of_hours.collect::<Vec<_>>());
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    assert_exit(&place.tidemill(&["audit"]), 0);
}

#[test]
fn a_region_that_is_parked_holds_no_hour_behind_its_pond_for_ever_and_is_named() {
    let place = Place::new();
    let pond = "pond = {}\n";
    let tables = source("a", "1d", "parse", "types = [\"play\"]")
        + &format!("[stages.one]\nkind = \"dedup\"\nfrom = [\"parse\"]\nwindow = \"1d\"\n{pond}")
        + &format!("[stages.two]\nkind = \"filter\"\nfrom = [\"parse\"]\nwhere = \"id != 'x'\"\n{pond}")
        + "[stages.both]\nkind = \"dedup\"\nfrom = [\"one\", \"two\"]\nwindow = \"1d\"\n"
        + &files("files", "[\"both\"]", "{event_type}");
    topology(&place, "", "", &tables);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("bucket = \"1m\"", "bucket = \"1m\"\nhold_at_most = \"1s\""));
    let mut registry = tidemill::registry();
    let filter = tidemill_actors::stage_kinds().into_iter().find(|kind| kind.spec().name == "filter");
    // What it says of its records is wrong each time: its region can't go on.
    let liar = Faulty::new(filter.expect("the kind"), Fault::Miscount, Trigger::Bytes(b"play4\t".to_vec()));
    registry.add_stage(Arc::new(liar));
    place.write("data/a/one", lines("play", 0..10));
    place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            tidemill_harness::inside::until(handle, |_| {
                let sealed = manifests(&place.out(), "play");
                sealed.iter().any(|manifest| manifest["not_waited_for"]["@pond"] == serde_json::json!(["both.two"]))
            })
            .await;
            handle.stop();
        })
        .expect("it stops");
    let manifests = manifests(&place.out(), "play");
    assert!(manifests.iter().all(|manifest| manifest["count"] == 1), "{manifests:?}");
    assert_eq!(manifests.len(), 9, "by the other pond");
}
