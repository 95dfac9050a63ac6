//! Buckets of less than an hour, with sinks as they are without options.

use tidemill_harness::{Place, assert_exit, printed, root};

const TOPOLOGY: &str = r#"
[topology]
name = "minutes"
bucket = "1m"
allowed_lateness = "2h"
[types.flight]
schema = "SCHEMA"
time = "scheduled_at"
id = ["flight_id"]
[sources.departures]
kind = "file"
paths = ["input.tsv"]
[stages.parse]
kind = "tsv"
from = ["departures"]
type_from = { const = "flight" }
null = ["NA"]
[stages.dedup]
kind = "dedup"
from = ["parse"]
window = "1h"
[sinks.flights]
kind = "avro_files"
from = ["dedup"]
"#;

#[test]
fn a_bucket_of_a_minute_runs_with_the_paths_that_sinks_have_by_default() {
    let place = Place::new();
    let schema = root().join("topologies/schemas/flight.avsc");
    place.write("minutes.toml", TOPOLOGY.replace("SCHEMA", &schema.display().to_string()));
    let sample = std::fs::read_to_string(root().join("topologies/flights/flights-sample.tsv")).expect("the sample");
    let some: Vec<&str> = sample.lines().take(50).chain(["not a flight"]).collect();
    place.write("input.tsv", some.join("\n"));
    let check = place.tidemill(&["check", "minutes.toml"]);
    assert_exit(&check, 0);
    assert!(printed(&check).contains("warning[window-below-lateness]"), "{}", printed(&check));
    let set = ["--set", "state.root=state", "--set", "output.root=out"];
    assert_exit(&place.run(&[&["minutes.toml", "--until-end"][..], &set].concat()), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    for (folder, depth) in [("flight", 5), ("_dead_letters", 5)] {
        let mut dir = place.out().join(folder);
        for _ in 0..depth {
            dir = std::fs::read_dir(&dir).expect("a directory").next().expect("an entry").expect("an entry").path();
        }
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(name.starts_with("minute="), "{}", dir.display());
    }
}

#[test]
fn sinks_with_the_same_path_do_not_pass_the_check() {
    let place = Place::new();
    let schema = root().join("topologies/schemas/flight.avsc");
    let copy = "[sinks.copy]\nkind = \"avro_files\"\nfrom = [\"parse\"]\n";
    place.write("minutes.toml", TOPOLOGY.replace("SCHEMA", &schema.display().to_string()) + copy);
    let check = place.tidemill(&["check", "minutes.toml"]);
    assert_exit(&check, 78);
    let text = printed(&check);
    assert!(text.contains("error[same-path]: the sinks `flights` and `copy` write events of type `flight`"), "{text}");
}
