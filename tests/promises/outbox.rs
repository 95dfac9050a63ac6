//! Sealed hours become files behind the cut that seals them: what lies between the two is in nobody's way, and known.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;
use tidemill_harness::{HOUR, KILLED, Place, assert_exit, finish, manifests, printed};

const RUN: [&str; 2] = ["plays.toml", "--until-end"];
const HOUR_MS: i64 = 3_600_000;
const HOURS: i64 = 20;

/// One event in each of 20 hours.
fn place() -> Place {
    let place = Place::new();
    place.plays("");
    let events: String = (0..HOURS).map(|hour| format!("id{hour}\t{}\t\n", HOUR + hour * HOUR_MS)).collect();
    place.write("data/plays", events);
    place
}

/// States of the hours of the type `play`, and whether none is missing.
fn states(place: &Place) -> (Vec<String>, bool) {
    let output = place.tidemill(&["hours", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)));
    let row = report["types"].as_array().expect("types").iter().find(|row| row["event_type"] == "play");
    let hours = row.and_then(|row| row["hours"].as_array()).expect("hours").iter();
    (hours.filter_map(|hour| hour["state"].as_str().map(str::to_owned)).collect(), output.status.success())
}

#[test]
fn hours_that_wait_to_be_published_are_not_missing_and_the_next_start_publishes_them() {
    let place = place();
    let run = finish(place.run_command(&RUN).env("TIDEMILL_FAILPOINT", "publication-begins:1"));
    assert_eq!(run.status.signal(), Some(KILLED), "{}", printed(&run));
    assert_eq!(manifests(&place.out(), "play").len(), 0);
    assert_eq!(states(&place), (vec!["unpublished".to_owned(); HOURS as usize], true));
    let shown = place.tidemill(&["hours", "show", "play", "2023-11-15T01"]);
    assert!(printed(&shown).contains("waits to be published"), "{}", printed(&shown));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(states(&place), (vec!["sealed".to_owned(); HOURS as usize], true));
}

#[test]
fn hours_that_are_removed_when_their_process_dies_behind_their_publication_are_asked_nothing_about() {
    let place = place();
    let run = finish(place.run_command(&RUN).env("TIDEMILL_FAILPOINT", "publication-marked:1"));
    assert_eq!(run.status.signal(), Some(KILLED), "{}", printed(&run));
    assert_eq!(manifests(&place.out(), "play").len(), HOURS as usize);
    std::fs::remove_dir_all(place.out().join("play")).expect("the hours");
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(manifests(&place.out(), "play").len(), 0);
}

#[test]
fn who_removes_the_newest_hours_between_two_runs_is_asked_nothing() {
    let place = place();
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    std::fs::remove_dir_all(place.out().join("play")).expect("the hours");
    place.write("data/more", format!("more\t{}\t\n", HOUR + HOURS * HOUR_MS));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(manifests(&place.out(), "play").len(), 1);
}
