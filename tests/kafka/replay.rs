//! Letters of events that a broker refused.

use serde_json::{Value, json};
use tidemill_harness::kafka::{shared, tool, topic};
use tidemill_harness::{HOUR, Place, assert_exit, finish, json_lines, lines};

#[test]
fn an_event_that_a_broker_refused_goes_to_that_sink_only_once_the_broker_takes_it() {
    let (place, topic) = (Place::new(), topic("replayed"));
    tool(shared(), &["create", &topic, "--partitions", "1", "--config", "max.message.bytes=20000"]);
    place.plays("");
    let mut text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    // Before and behind a pond; beside it are sinks that have the event already.
    text.push_str(&format!(
        r#"
        [stages.all]
        kind = "filter"
        from = ["dedup"]
        where = "id != ''"
        pond = {{}}
        [sinks.out]
        kind = "kafka"
        from = ["all"]
        cluster = "main"
        topic = {topic:?}
        compression = "none"
        delivery = "exactly_once"
        [sinks.beside]
        kind = "avro_files"
        from = ["all"]
        path = "beside/{{event_type}}/{{year}}/{{month}}/{{day}}/{{hour}}"
        "#
    ));
    place.write("plays.toml", text);
    place.write("data/plays", format!("{}long\t{HOUR}\t{}\n", lines(0..20), "x".repeat(50_000)));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let run = || assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end", "--set", &servers])), 0);
    run();
    let sent = || {
        let messages = json_lines(&tool(shared(), &["consume", &topic]).stdout);
        let value =
            |message: &Value| serde_json::from_str::<Value>(message["value"].as_str().expect("text")).expect("JSON");
        messages.iter().map(value).collect::<Vec<_>>()
    };
    assert_eq!(sent().len(), 20);
    tool(shared(), &["configure", &topic, "--config", "max.message.bytes=200000"]);
    assert!(place.replay(&["plays.toml", "--stage", "out"], 0).starts_with("1 letter"));
    run();
    let messages = sent();
    assert_eq!(messages.len(), 21);
    assert_eq!(messages[20]["id"], "long");
    for directory in ["play", "beside"] {
        let records = place.published(directory);
        assert_eq!(records.len(), 21, "{directory} had it before");
    }
    assert_eq!(place.published("_dead_letters").len(), 1);
    assert_eq!(json!(messages[20]["who"].as_str().map(str::len)), json!(50_000));
}
