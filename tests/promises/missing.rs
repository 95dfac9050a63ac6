//! Files that are not there when a run starts: a file system that is mounted late, a folder that is yet to come.

use std::collections::BTreeMap;

use serde_json::Value;

use tidemill_harness::minutes::{add_lines, files, minutes, sealed};
use tidemill_harness::{HOUR, Place, manifests, wait_for};

const MINUTE: i64 = 60_000;

fn follow(place: &Place) -> tidemill_harness::Process {
    place.follow(&["--set", "cut.interval=20ms"])
}

/// Waits until the watermark of `play` is held by this. Something else may hold it first, before it was looked at.
fn held_by(place: &Place, name: &str) {
    wait_for(name, || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let types = status["types"].as_array()?;
        (types.iter().find(|of| of["name"] == "play")?["held_by"] == name).then_some(())
    });
}

fn line(id: &str, at_ms: i64) -> String {
    format!("{id}\t{at_ms}\t\n")
}

#[test]
fn an_empty_mount_point_is_no_quiet_file_and_what_is_behind_it_is_not_late() {
    let place = Place::new();
    minutes(&place, "0ms", &files("20ms"));
    place.write("data/first", line("a", HOUR) + &line("b", HOUR + 30_000));
    let child = follow(&place);
    wait_for("both events in a cut", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let sink = status["stages"].as_array()?.iter().find(|stage| stage["name"] == "files")?.clone();
        (sink["delivery"]["events"] == 2).then_some(())
    });
    child.kill();
    place.append("data/first", &(line("c", HOUR + 59_990) + &line("d", HOUR + MINUTE + 59_990)));
    std::fs::rename(place.path("data"), place.path("away")).expect("the file system is not mounted");
    std::fs::create_dir(place.path("data")).expect("its mount point");
    let child = follow(&place);
    held_by(&place, "lines/data/first");
    std::fs::remove_dir(place.path("data")).expect("the mount point");
    std::fs::rename(place.path("away"), place.path("data")).expect("it is mounted");
    let manifest = sealed(&place, "play", HOUR + MINUTE);
    assert_eq!((&manifest["count"], &manifest["reason"]), (&1.into(), &"quiet".into()));
    assert_eq!(sealed(&place, "play", HOUR)["count"], 3);
    child.stop();
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
}

#[test]
fn a_folder_that_is_not_there_yet_holds_hours_and_is_named_when_it_is_given_up() {
    let place = Place::new();
    minutes(&place, "0ms", &files("20ms").replace("\"data/*\"", "\"data/*\", \"late/*\""));
    place.write("data/first", line("a", HOUR) + &line("b", HOUR + MINUTE));
    let child = follow(&place);
    held_by(&place, "lines/late/*");
    let ready = place.tidemill(&["status", "plays", "--json"]);
    let status: Value = serde_json::from_slice(&ready.stdout).expect("JSON");
    let waits_for = status["sources"][0]["waits_for"].as_str().expect("it waits");
    assert!(waits_for.contains("late/*"), "{waits_for}");
    child.stop();
    assert_eq!(manifests(&place.out(), "play").len(), 0);
}

/// How long it has been missing is in the cuts.
#[test]
fn runs_that_each_end_before_it_give_up_a_folder_that_is_not_there() {
    let place = Place::new();
    minutes(&place, "0ms", &files("20ms").replace("\"data/*\"", "\"data/*\", \"late/*\""));
    place.write("data/first", line("a", HOUR) + &line("b", HOUR + MINUTE));
    add_lines(&place, "hold_at_most = \"5s\"");
    let begin = std::time::Instant::now();
    let mut runs = 0;
    let manifest = loop {
        let child = follow(&place);
        let is_over = || manifests(&place.out(), "play").pop();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(1_500);
        let found = wait_for("the end of the run, or the hour", || match is_over() {
            Some(manifest) => Some(Some(manifest)),
            None => (std::time::Instant::now() > until).then_some(None),
        });
        child.stop();
        runs += 1;
        match found {
            Some(manifest) => break manifest,
            None => assert!(begin.elapsed().as_secs() < 60, "given up by no run of {runs}"),
        }
    };
    assert!(runs > 1, "one run had the time");
    let named: BTreeMap<String, Vec<String>> =
        serde_json::from_value(manifest["not_waited_for"].clone()).expect("names");
    assert_eq!(
        (&manifest["reason"], &named["lines"][..]),
        (&"silent".into(), &["late/*".to_owned()][..]),
        "{manifest}"
    );
}
