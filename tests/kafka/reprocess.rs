//! An hour of topics is made once more.

use tidemill_harness::kafka::{produce, shared, tool, topic};
use tidemill_harness::reprocess::{UNTIL_END, reprocess, revisions};
use tidemill_harness::{HOUR, Place, assert_exit, finish, lines, printed};

#[test]
fn an_hour_of_topics_is_read_again_by_time() {
    let (place, topic) = (Place::new(), topic("again"));
    // Or the broker would remove what is as old as this.
    tool(shared(), &["create", &topic, "--partitions", "3", "--config", "retention.ms=-1"]);
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let source = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = [{topic:?}]\nidle_timeout = \"1s\"");
    let text =
        text.replace("kind = \"file\"", &source).replace("paths = [\"data/*\"]", "").replace("rescan = \"50ms\"", "");
    // How early an event may be is how much earlier messages are read.
    let text = text.replace("max_ahead = \"36500d\"", "max_ahead = \"1h\"");
    place.write("plays.toml", text.replace("window = \"30d\"", "window = \"1h\""));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    // The first ones came three hours before the hour, and can't be of it.
    for (numbers, at_ms) in [(0..3_000, HOUR - 10_800_000), (3_000..60_000, HOUR + 60_000)] {
        produce(&place, shared(), &topic, &lines(numbers), &["--partitions", "3", "--timestamp", &at_ms.to_string()]);
    }
    assert_exit(&finish(place.run_command(&UNTIL_END).args(["--set", &servers])), 0);
    let before = revisions(&place, "play").remove(&0).expect("revision 0");
    produce(&place, shared(), &topic, &lines(60_000..70_000), &["--partitions", "3"]);
    // By their timestamps the first 3,000 are too old to be read: that they are in the hour shows which messages were read.
    let told = printed(&reprocess(&place, &["--set", &servers, "--dry-run"], 0));
    assert!(told.contains("33,000 events, where the revisions up to 0 have 36,000"), "{told}");
    assert!(told.contains("0 added, 3,000 removed"), "{told}");
    reprocess(&place, &["--set", &servers, "--lead", "3h"], 0);
    let made = &revisions(&place, "play")[&1];
    for same in ["count", "ids", "positions"] {
        assert_eq!(made[same], before[same], "{same}");
    }
    // What came meanwhile is still to be read, and is late by now.
    assert_exit(&finish(place.run_command(&UNTIL_END).args(["--set", &servers])), 0);
    let letters = place.published("_dead_letters");
    assert!(letters.len() == 10_000 && letters.iter().all(|letter| letter["reason"] == "late"), "{}", letters.len());
}
