//! A client of Kafka that is not ours.

use std::process::Command;

use tidemill_harness::kafka::{shared, tool, topic};
use tidemill_harness::{Place, assert_each_once, assert_exit, finish, lines, with_input};

#[test]
fn kcat_feeds_a_topology_and_reads_what_it_sends() {
    let (place, source, sink) = (Place::new(), topic("from-kcat"), topic("to-kcat"));
    for topic in [&source, &sink] {
        tool(shared(), &["create", topic, "--partitions", "2"]);
    }
    let produced =
        with_input(Command::new("kcat").args(["-P", "-b", shared(), "-t", &source]), lines(0..500).as_bytes());
    assert_exit(&produced, 0);
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let from = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = [{source:?}]");
    let to = format!(
        "[sinks.out]\nkind = \"kafka\"\nfrom = [\"dedup\"]\ncluster = \"main\"\ntopic = {sink:?}\nformat = \"raw\"\n"
    );
    let text =
        text.replace("kind = \"file\"", &from).replace("paths = [\"data/*\"]", "").replace("rescan = \"50ms\"", "");
    place.write("plays.toml", text + &to);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end", "--set", &servers])), 0);
    assert_each_once(&place.published("play"), 0..500);
    let consumed = with_input(Command::new("kcat").args(["-C", "-b", shared(), "-t", &sink, "-e", "-q"]), b"");
    assert_exit(&consumed, 0);
    let mut found: Vec<String> =
        String::from_utf8(consumed.stdout).expect("UTF-8").lines().map(str::to_owned).collect();
    found.sort_unstable();
    assert_eq!(found, lines(0..500).lines().collect::<Vec<_>>());
}
