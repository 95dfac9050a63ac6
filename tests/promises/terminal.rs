//! Pipes that nobody reads, topologies that do not answer, and messages that say things once.

use std::process::Stdio;

use tidemill_harness::{Place, assert_exit, finish, json_lines, lines, printed, root};

const TOPOLOGY: &str = r#"
[topology]
name = "NAME"
[types.flight]
schema = "SCHEMA"
time = "scheduled_at"
[sources.departures]
kind = "file"
paths = ["plays/*.tsv"]
[stages.parse]
kind = "tsv"
from = ["departures"]
type_from = { const = "flight" }
[sinks.flights]
kind = "blackhole"
from = ["parse"]
"#;

fn write(place: &Place, name: &str) -> String {
    let schema = root().join("topologies/schemas/flight.avsc");
    let text = TOPOLOGY.replace("NAME", name).replace("SCHEMA", &schema.display().to_string());
    let file = format!("{name}.toml");
    place.write(&file, text);
    file
}

#[test]
fn a_pipe_that_nobody_reads_is_no_failure() {
    let place = Place::new();
    let topology = write(&place, "plays");
    for args in [
        &["schema"][..],
        &["kinds"],
        &["kinds", "dedup"],
        &["graph", &topology],
        &["check", &topology],
        &["check", "--json", &topology],
        &["settings"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = place.command(args).stdout(writer).stderr(Stdio::piped()).output().expect("the binary runs");
        assert_exit(&output, 0);
        assert!(!printed(&output).contains("panicked"), "{args:?}: {}", printed(&output));
    }
}

#[test]
fn status_goes_on_behind_a_topology_that_can_not_be_asked() {
    let place = Place::new();
    place.write("plays/a.tsv", "");
    for name in ["a", "b", "c"] {
        let file = write(&place, name);
        let out = format!("output.root=out-{name}");
        assert_exit(&place.run(&[&file, "--until-end", "--set", "state.root=state", "--set", &out]), 0);
    }
    for damaged in ["state/a", "state/b"] {
        for entry in std::fs::read_dir(place.path(damaged)).expect("a state") {
            let path = entry.expect("an entry").path();
            if path.is_file() && !path.ends_with("lock") {
                std::fs::write(path, [0xff; 4096]).expect("it is damaged");
            }
        }
    }
    let output = place.tidemill(&["status", "--set", "state.root=state"]);
    let text = printed(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("c: not running; its last cut is"), "{text}");
    assert!(text.contains("state/a") && text.contains("state/b"), "every one that failed is named: {text}");
}

#[test]
fn an_error_of_a_source_names_it_and_the_folder_once() {
    let place = Place::new();
    let file = write(&place, "plays");
    let output = place.run(&[&file, "--until-end", "--set", "state.root=state", "--set", "output.root=out"]);
    assert_exit(&output, 69);
    let text = printed(&output);
    let wanted = "source `departures`: no file matches `plays/*.tsv` in .; put the files there";
    assert!(text.contains(wanted) && text.matches("source `departures`").count() == 1, "{text}");
}

#[test]
fn progress_as_json_and_a_console_do_not_share_the_standard_output() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", format!("{text}\n[sinks.look]\nkind = \"console\"\nfrom = [\"dedup\"]\n"));
    let run = |progress| {
        finish(&mut place.command(&[
            "run",
            "plays.toml",
            "--until-end",
            "--set",
            "admin.listen=",
            "--progress",
            progress,
        ]))
    };
    let refused = run("json");
    assert_exit(&refused, 78);
    assert!(printed(&refused).contains("`look`") && !place.path(".tidemill").exists(), "{}", printed(&refused));
    place.write("data/first", lines(0..10));
    let output = run("plain");
    assert_exit(&output, 0);
    assert_eq!(json_lines(&output.stdout).len(), 10);
}
