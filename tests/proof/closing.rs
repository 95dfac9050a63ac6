//! Hours that close by the clock take as long as the clock does.

use tidemill_harness::minutes::{add_lines, files, minutes, sealed};
use tidemill_harness::{HOUR, Place};

#[test]
fn hours_without_events_close_by_the_clock_where_late_events_are_published_all_the_same() {
    let place = Place::new();
    minutes(&place, "100ms", &files("50ms"));
    add_lines(&place, "late = \"revise\"\nlate_delay = \"100ms\"");
    place.write("data/first", format!("one\t{}\t\n", HOUR + 59_900));
    let child = place.follow(&[]);
    assert_eq!(sealed(&place, "play", HOUR)["count"], 1);
    // A minute later by the clock.
    let empty = sealed(&place, "play", HOUR + 60_000);
    assert_eq!((&empty["reason"], &empty["count"]), (&"quiet".into(), &0.into()), "{empty}");
    child.stop();
}
