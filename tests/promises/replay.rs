//! `tidemill dead-letters replay`: an event is dealt with again where it was refused, once for each time that it was refused.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use serde_json::Value;

use tidemill_harness::{HOUR, KILLED, Place, Process, assert_exit, finish, json_lines, lines, printed, wait_for};

const RUN: [&str; 2] = ["typed.toml", "--until-end"];

/// Lines of two types, of which only one is declared; to files, and printed.
fn typed(place: &Place, is_declared: bool) {
    place.plays("");
    let skip = "\n[types.skip]\nschema = \"play.avsc\"\ntime = \"at\"\nid = [\"id\"]\n";
    let console = "\n[sinks.shown]\nkind = \"console\"\nfrom = [\"dedup\"]\n";
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let text = text.replace("type_from = { const = \"play\" }", "type_from = { column = 0 }");
    place.write("typed.toml", text + if is_declared { skip } else { "" } + console);
}

/// Ids that a run printed, in order of the alphabet.
fn shown(output: &std::process::Output) -> Vec<String> {
    ids(&json_lines(&output.stdout)).into_iter().map(str::to_owned).collect()
}

fn ids(records: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = records.iter().map(|record| record["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids
}

/// A run in which two events and a repeat of one of them were of a type that nobody had declared.
fn refused(place: &Place) {
    typed(place, false);
    let line = |kind: &str, id: &str| format!("{kind}\t{id}\t{HOUR}\tx\n");
    place.write("data/a", line("play", "p1") + &line("skip", "s1") + &line("skip", "s2") + &line("skip", "s1"));
    let output = finish(&mut place.run_command(&RUN));
    assert_exit(&output, 0);
    assert_eq!(shown(&output), ["p1"]);
    typed(place, true);
}

#[test]
fn an_event_that_could_not_be_parsed_goes_all_the_way_once_it_can_and_is_not_replayed_twice() {
    let place = Place::new();
    refused(&place);
    let only = ["typed.toml", "--reason", "unknown_type"];
    assert_eq!(place.replay(&[&only[..], &["--dry-run"]].concat(), 0), "3 letters: would be replayed\n");
    assert!(place.replay(&only, 0).starts_with("3 letters: taken up by the next run"));
    let output = finish(&mut place.run_command(&RUN));
    assert_exit(&output, 0);
    assert_eq!(shown(&output), ["s1", "s2"], "the repeat is a duplicate as ever");
    assert_eq!(ids(&place.published("skip")), ["s1", "s2"]);
    assert_eq!(ids(&place.published("play")), ["p1"]);
    assert_eq!(place.replay(&only, 0), "nothing to replay\n3 letters: replayed before\n");
    let output = finish(&mut place.run_command(&RUN));
    assert_exit(&output, 0);
    assert!(shown(&output).is_empty());
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn a_process_that_is_killed_while_it_replays_loses_and_doubles_nothing() {
    for point in [
        "item-leased:1",
        "item-sent:2",
        "item-sent:4",
        "cut-begins:1",
        "ledger-written:1",
        "ledger-synced:1",
        "effects-done:1",
    ] {
        let place = Place::new();
        refused(&place);
        place.replay(&["typed.toml"], 0);
        let killed = finish(place.run_command(&RUN).env("TIDEMILL_FAILPOINT", point));
        assert_eq!(killed.status.signal(), Some(KILLED), "{point}: {}", printed(&killed));
        assert_exit(&finish(&mut place.run_command(&RUN)), 0);
        assert_eq!(ids(&place.published("skip")), ["s1", "s2"], "{point}");
        assert_eq!(ids(&place.published("play")), ["p1"], "{point}");
    }
}

#[test]
fn a_running_process_takes_up_a_replay_by_itself() {
    let place = Place::new();
    refused(&place);
    let args =
        ["run", "typed.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", "cut.interval=50ms"];
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let child = Process::start(place.command(&args).stdout(Stdio::null()).stderr(log));
    let status =
        || -> Option<Value> { serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok() };
    wait_for("the process", || status().map(drop));
    let told = place.replay(&["typed.toml"], 0);
    assert!(told.contains("the running process"), "{told}");
    wait_for("the letters", || {
        let status = status()?;
        let source = status["sources"].as_array()?.iter().find(|source| source["name"] == "@replay")?.clone();
        (source["partitions"][0]["committed"] == 3).then_some(())
    });
    child.stop();
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(ids(&place.published("skip")), ["s1", "s2"]);
}

#[test]
fn what_is_refused_again_is_another_letter_and_can_be_replayed_again() {
    let place = Place::new();
    place.plays("");
    let run = || {
        let output = finish(&mut place.run_command(&["plays.toml", "--until-end"]));
        assert_exit(&output, 0);
    };
    place.write("data/a", lines(0..10));
    run();
    place.write("data/b", format!("late\t{HOUR}\tx\n"));
    run();
    let late = || place.published("_dead_letters").into_iter().filter(|letter| letter["reason"] == "late").count();
    assert_eq!(late(), 1);
    for times in 2..4 {
        assert!(place.replay(&["plays.toml"], 0).starts_with("1 letter: taken up"), "{times}");
        assert_eq!(place.replay(&["plays.toml"], 0).lines().next(), Some("nothing to replay"));
        run();
        assert_eq!(late(), times);
    }
    let letters = place.published("_dead_letters");
    let place_of = |letter: &Value| ["source", "partition", "position", "stage"].map(|name| letter[name].clone());
    assert!(letters.windows(2).all(|pair| place_of(&pair[0]) == place_of(&pair[1])), "all are of one event");
}

#[test]
fn letters_that_cannot_be_replayed_are_counted_with_the_reason() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("[types.play]", "max_event = \"1KiB\"\n[types.play]"));
    place.write("data/a", format!("broken\nlong\t{HOUR}\t{}\n", "x".repeat(5_000)));
    let error = place.replay(&["plays.toml"], 69);
    assert!(error.contains("has not run") && error.contains("state.root"), "{error}");
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let told = place.replay(&["plays.toml"], 0);
    assert!(
        told.starts_with("1 letter: taken up") && told.contains("1 letter: can't be replayed: only the beginning"),
        "{told}"
    );
    // The topology has changed since.
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("other.toml", text.replace("lines", "others"));
    let told = place.replay(&["other.toml", "--reason", "malformed"], 0);
    assert!(told.contains("no way from a source `lines` to `parse`"), "{told}");
}
