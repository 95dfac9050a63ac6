//! When hours of topics close while nothing comes.

use serde_json::Value;
use tidemill_harness::kafka::{produce, shared, tool, topic};
use tidemill_harness::minutes::{add_lines, minutes, sealed};
use tidemill_harness::{HOUR, Place, wait_for};

#[test]
fn an_hour_with_one_event_closes_although_its_topic_and_other_partitions_are_quiet() {
    let place = Place::new();
    let topic = topic("quiet");
    tool(shared(), &["create", &topic, "--partitions", "3"]);
    let source = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = [{topic:?}]\nidle_timeout = \"100ms\"");
    minutes(&place, "100ms", &source);
    produce(&place, shared(), &topic, &format!("one\t{}\t\n", HOUR + 59_700), &["--partitions", "3"]);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let child = place.follow(&["--set", &servers]);
    let manifest = sealed(&place, "play", HOUR);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"quiet".into(), &1.into()), "{manifest}");
    child.stop();
}

#[test]
fn a_partition_that_is_read_no_further_holds_its_hours_for_so_long_and_is_named() {
    let place = Place::new();
    let topic = topic("silent");
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    let source = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = [{topic:?}]\nidle_timeout = \"100ms\"");
    minutes(&place, "1m", &source);
    add_lines(&place, "hold_at_most = \"3s\"");
    let send = |partition: &str, text: String| produce(&place, shared(), &topic, &text, &["--partition", partition]);
    send("0", format!("one\t{HOUR}\t\n"));
    send("1", format!("two\t{}\t\n", HOUR + 1_000));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let child = place.follow(&["--set", &servers, "--set", "cut.interval=20ms"]);
    wait_for("both events in a cut", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let partitions =
            status["sources"].as_array()?.iter().find(|source| source["name"] == "lines")?["partitions"].clone();
        let is_read = |partition: &Value| partition["committed"] == 1;
        partitions.as_array().filter(|all| all.len() == 2 && all.iter().all(is_read)).map(drop)
    });
    child.stop();
    // Retention takes a message that was not read: the partition stops.
    send("0", format!("lost\t{HOUR}\t\nthree\t{HOUR}\t\n"));
    tool(shared(), &["truncate", &topic, "--partition", "0", "--before", "2"]);
    send("1", format!("four\t{}\t\n", HOUR + 180_000));
    let child = place.follow(&["--set", &servers]);
    let manifest = sealed(&place, "play", HOUR);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"silent".into(), &2.into()), "{manifest}");
    assert_eq!(manifest["not_waited_for"], serde_json::json!({ "lines": [format!("{topic}/0")] }));
    child.stop();
}
