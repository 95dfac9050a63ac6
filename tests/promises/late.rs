//! Late events in files, with real processes: revisions that are published without any traffic, over kills and through ponds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use tidemill_harness::{HOUR, Place, assert_exit, finish, manifests, wait_for};

/// A topology with minutes for hours, whose late events are dealt with as `late` says; `more` comes behind it.
fn minutes(place: &Place, late: &str, more: &str) {
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let topology = format!("allowed_lateness = \"0ms\"\nbucket = \"1m\"\n{late}");
    let text = text.replace("allowed_lateness = \"30d\"", &topology);
    let text = text.replace("rescan = \"50ms\"", "rescan = \"50ms\"\nidle_timeout = \"1d\"");
    place.write("plays.toml", text + more);
}

/// Waits for a revision of the hour that begins then, and returns its manifest.
#[track_caller]
fn revision(place: &Place, below: &str, start_ms: i64, revision: u64) -> Value {
    let start = tidemill_core::format_time_ms(start_ms);
    wait_for(&format!("revision {revision} of {start}"), || {
        let is_it = |manifest: &Value| manifest["hour"]["start"] == *start && manifest["revision"] == revision;
        manifests(&place.out(), below).into_iter().find(is_it)
    })
}

/// All that is published of the type for good, with its bytes: all but the pointers to the latest revisions.
fn files(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![place.out().join("play")];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else if !path.ends_with("latest.json") {
                let bytes = std::fs::read(&path).expect("a file");
                found.insert(path, bytes);
            }
        }
    }
    found
}

#[test]
fn late_events_are_a_revision_after_its_delay_without_traffic_and_over_a_kill() {
    let place = Place::new();
    let again = "\n[sinks.again]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\npond = {}\npath = \"again/{year}-{month}-{day}T{hour}-{minute}\"\n";
    minutes(&place, "late = \"revise\"\nlate_delay = \"1s\"\nlate_within = \"1h\"", again);
    place.write("data/first", format!("one\t{HOUR}\t\ntwo\t{}\t\n", HOUR + 60_000));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let sealed = revision(&place, "play", HOUR, 0);
    assert_eq!((&sealed["count"], &sealed["mode"]), (&1.into(), &"complete".into()));
    let published = files(&place);
    // One is late, one comes again, one is too late.
    place.append("data/first", &format!("late\t{}\t\none\t{HOUR}\t\nancient\t{}\t\n", HOUR + 1, HOUR - 7_200_000));
    // Five lines: the position behind them is in a cut.
    let size = std::fs::metadata(place.path("data/first")).expect("the input").len();
    wait_for("the late event in a cut", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let partition =
            &status["sources"].as_array()?.iter().find(|source| source["name"] == "lines")?["partitions"][0];
        (partition["committed"].as_u64()? == size).then_some(())
    });
    child.kill();
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    for below in ["play", "again"] {
        let late = revision(&place, below, HOUR, 1);
        assert_eq!((&late["count"], &late["mode"], &late["reason"]), (&1.into(), &"append".into(), &"late".into()));
        assert_eq!(
            (&late["duplicates_dropped"], &late["positions"]),
            (&1.into(), &revision(&place, "play", HOUR, 1)["positions"])
        );
    }
    place.append("data/first", &format!("later\t{}\t\n", HOUR + 2));
    revision(&place, "play", HOUR, 2);
    child.stop();
    let now = files(&place);
    assert!(published.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "what was published stays");
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    let rows: Vec<String> =
        place.published("play").iter().map(|row| row["id"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    let letters = place.published("_dead_letters");
    assert_eq!(letters.iter().map(|letter| &letter["reason"]).collect::<Vec<_>>(), ["late"; 1], "{letters:?}");
}

#[test]
fn rows_of_an_hour_are_restated_when_late_events_come_and_the_newest_revision_has_all() {
    let place = Place::new();
    let counts = "\n[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\nmeasures = { events = \"count()\", users = \"approx_distinct(who)\" }\n\
                  [sinks.count_files]\nkind = \"avro_files\"\nfrom = [\"counts\"]\n";
    minutes(&place, "late = \"revise\"\nlate_delay = \"100ms\"", counts);
    place.write("data/first", format!("one\t{HOUR}\ta\ntwo\t{}\tb\n", HOUR + 60_000));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    revision(&place, "counts", HOUR, 0);
    place.append("data/first", &format!("late\t{}\tc\n", HOUR + 1));
    let restated = revision(&place, "counts", HOUR, 1);
    assert_eq!((&restated["count"], &restated["mode"]), (&1.into(), &"replace".into()));
    child.stop();
    let rows = place.published("counts");
    let rows: Vec<_> = rows.iter().map(|row| (row["events"].as_i64(), row["users"].as_i64())).collect();
    assert_eq!(rows, [(Some(1), Some(1)), (Some(2), Some(2))], "both revisions");
}

#[test]
fn one_late_event_in_two_hundred_makes_one_revision_of_each_hour_in_a_delay() {
    let place = Place::new();
    minutes(&place, "late = \"revise\"\nlate_delay = \"1d\"\nlate_within = \"1d\"", "");
    let line = |number: i64| format!("id{number}\t{}\t\n", HOUR + number * 10);
    // All of the first three minutes.
    let (late, in_time): (Vec<i64>, Vec<i64>) = (0..20_000).partition(|number| number % 180 == 0 && *number < 18_000);
    place.write("data/first", in_time.into_iter().map(line).collect::<String>());
    let child = place.follow(&[]);
    revision(&place, "play", HOUR + 120_000, 0);
    let published = files(&place);
    place.append("data/first", &late.iter().copied().map(line).collect::<String>());
    let skewness = wait_for("all events in cuts", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let play = status["types"].as_array()?.iter().find(|of| of["name"] == "play")?.clone();
        (play["events"] == 20_000).then(|| play["late_events"].as_f64().unwrap_or(0.0) / 20_000.0)
    });
    assert!((skewness - 0.005).abs() < 1e-9, "{skewness}");
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    let mut by_revision: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for manifest in manifests(&place.out(), "play") {
        let sums = by_revision.entry(manifest["revision"].as_u64().expect("a number")).or_default();
        sums.0 += manifest["count"].as_u64().expect("a count");
        sums.1 += manifest["files"].as_array().expect("files").len() as u64;
    }
    assert_eq!(by_revision, BTreeMap::from([(0, (19_900, 4)), (1, (100, 3))]), "events and files");
    let now = files(&place);
    assert!(published.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "what was published stays");
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn late_events_in_the_next_hour_have_their_own_in_a_column() {
    let place = Place::new();
    minutes(&place, "late = \"next_hour\"", "");
    place.write("data/first", format!("one\t{HOUR}\t\ntwo\t{}\t\n", HOUR + 60_000));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    revision(&place, "play", HOUR, 0);
    place.append("data/first", &format!("late\t{}\t\nthree\t{}\t\n", HOUR + 1, HOUR + 120_000));
    let next = revision(&place, "play", HOUR + 60_000, 0);
    assert_eq!((&next["count"], &next["late_of_earlier_hours"]), (&2.into(), &1.into()));
    child.stop();
    let moved: Vec<Value> = place.published("play").into_iter().filter(|row| !row["true_hour"].is_null()).collect();
    assert_eq!(moved.iter().map(|row| &row["id"]).collect::<Vec<_>>(), ["late"]);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}
