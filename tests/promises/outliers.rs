//! One event with a wrong time, in a backlog that is followed.

use serde_json::Value;

use tidemill_harness::minutes::{add_lines, files, minutes, sealed};
use tidemill_harness::{HOUR, Place, manifests, wait_for};

const MINUTE: i64 = 60_000;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;

/// A topology of minutes, with more lines of its own, in which old events are not believed alone.
fn backlog(place: &Place, lateness: &str, idle_timeout: &str, more: &str) {
    minutes(place, lateness, &files(idle_timeout));
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("max_ahead = \"36500d\"", more));
}

/// An event each ten seconds.
fn lines(range: std::ops::Range<i64>) -> String {
    range.map(|number| format!("p{number}\t{}\t\n", HOUR + number * 10_000)).collect()
}

/// The time of what is far ahead in a file, when there is any.
fn far_ahead_ms(place: &Place) -> Option<i64> {
    let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
    status["sources"][0]["partitions"].as_array()?.iter().find_map(|partition| partition["far_ahead_ms"].as_i64())
}

#[test]
fn one_event_of_next_year_makes_no_other_late_and_gets_its_hour_in_the_end() {
    let place = Place::new();
    backlog(&place, "0ms", "20ms", "");
    let wrong = format!("wrong\t{}\t\n", HOUR + YEAR + 59_900);
    place.write("data/first", lines(0..60) + &wrong + &lines(60..90));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    assert_eq!(sealed(&place, "play", HOUR + 13 * MINUTE)["count"], 6);
    assert_eq!(wait_for("the event far ahead", || far_ahead_ms(&place)), HOUR + YEAR + 59_900);
    child.stop();
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    // It is in no list of the last 64 any more, and still waits.
    place.append("data/first", &lines(90..300));
    assert_eq!(sealed(&place, "play", HOUR + 48 * MINUTE)["count"], 6);
    assert_eq!(wait_for("the event far ahead", || far_ahead_ms(&place)), HOUR + YEAR + 59_900);
    assert!(manifests(&place.out(), "play").iter().all(|manifest| manifest["count"] == 6));
    child.stop();
    add_lines(&place, "hold_at_most = \"1s\"");
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    assert_eq!(sealed(&place, "play", HOUR + YEAR)["count"], 1);
    child.stop();
    assert_eq!(place.published("play").len(), 301);
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
}

#[test]
fn the_last_events_of_a_backlog_close_when_it_is_quiet_and_need_no_others() {
    let place = Place::new();
    backlog(&place, "100ms", "50ms", "");
    let last = HOUR + 55 * MINUTE + 59_900;
    place.write("data/first", lines(0..10) + &format!("last\t{last}\t\n"));
    place.write("data/single", format!("single\t{}\t\n", HOUR + 59_900));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let manifest = sealed(&place, "play", HOUR + 55 * MINUTE);
    assert_eq!((&manifest["count"], &manifest["reason"]), (&1.into(), &"quiet".into()));
    child.stop();
    assert_eq!(place.published("play").len(), 12);
}

#[test]
fn a_file_whose_only_event_is_wrong_makes_no_later_file_late() {
    let place = Place::new();
    backlog(&place, "0ms", "50ms", "");
    let one = |id: &str, minute: i64| format!("{id}\t{}\t\n", HOUR + minute * MINUTE + 59_900);
    place.write("data/first", one("a", 0) + &one("b", 1));
    place.write("data/second", one("wrong", YEAR / MINUTE));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    assert_eq!(sealed(&place, "play", HOUR + MINUTE)["count"], 1);
    place.write("data/third", one("c", 5) + &one("d", 6));
    assert_eq!(sealed(&place, "play", HOUR + 6 * MINUTE)["count"], 1);
    child.stop();
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
    assert_eq!(place.published("play").len(), 4, "the hour of the wrong one is open");
}

#[test]
fn a_partition_that_gives_good_events_behind_one_far_ahead_is_waited_for() {
    let place = Place::new();
    // Nothing is quiet, and nobody is waited for beyond a second.
    backlog(&place, "0ms", "1d", "hold_at_most = \"1s\"");
    place.write("data/first", format!("wrong\t{}\t\n", HOUR + YEAR));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let begin = std::time::Instant::now();
    let mut number = 0;
    while begin.elapsed().as_secs() < 5 {
        let before = sealed_minutes(&place);
        place.append("data/first", &lines(number..number + 6));
        number += 6;
        if number > 12 {
            wait_for("another minute", || (sealed_minutes(&place) > before).then_some(()));
        }
    }
    let all = manifests(&place.out(), "play");
    assert!(all.len() > 3 && all.iter().all(|manifest| manifest["reason"] == "watermark"), "{all:#?}");
    child.stop();
}

fn sealed_minutes(place: &Place) -> usize {
    manifests(&place.out(), "play").len()
}
