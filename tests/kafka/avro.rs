//! Avro messages that refer to a schema registry, made by a client that is not ours; keys, headers and topics as fields.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use tidemill_harness::certificate::certificate;
use tidemill_harness::kafka::{shared, tool, topic};
use tidemill_harness::registry::Registry;
use tidemill_harness::{Place, Process, assert_exit, finish, printed, python_command, wait_for};

/// The schema that the topology's type has: one field more than the first writer's, one less than the second's.
const OWN: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "ms", "type": "long", "default": -1}
]}"#;
const FIRST: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "at", "type": "long"},
    {"name": "id", "type": "string"}
]}"#;
const SECOND: &str = r#"{"type": "record", "name": "Play", "fields": [
    {"name": "at", "type": "long"},
    {"name": "id", "type": "string"},
    {"name": "ms", "type": "int", "default": 0},
    {"name": "more", "type": ["null", "string"], "default": null}
]}"#;
const AT: i64 = 1_700_002_800_000;

fn topology(place: &Place, topic: &str) {
    place.write("play.avsc", OWN);
    let text = format!(
        r#"
        [topology]
        name = "plays"
        [types.play]
        schema = "play.avsc"
        time = "at"
        id = ["id"]
        [sources.events]
        kind = "kafka"
        cluster = "main"
        topics = [{topic:?}]
        framing = "avro"
        [stages.parse]
        kind = "avro"
        from = ["events"]
        [sinks.files]
        kind = "avro_files"
        from = ["parse"]
        "#
    );
    place.write("plays.toml", text);
}

fn send(place: &Place, registry: &Registry, topic: &str, schema: &str, records: &[Value]) {
    let schema = place.write("writer.avsc", schema);
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    let file = place.write("records.jsonl", text);
    let sent = python_command("kafka_tool.py")
        .args([shared(), "produce-avro", topic, "--registry", &registry.url(), "--partitions", "2", "--schema"])
        .arg(schema)
        .stdin(std::fs::File::open(file).expect("the records"))
        .output()
        .expect("python runs");
    assert_exit(&sent, 0);
}

#[test]
fn records_of_several_writers_are_resolved_and_unknown_schemas_become_dead_letters() {
    let registry = Registry::start();
    let (place, topic) = (Place::new(), topic("framed"));
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    let first: Vec<Value> = (0..100).map(|at| json!({"id": format!("a{at}"), "at": AT + at})).collect();
    let second: Vec<Value> =
        (0..100).map(|at| json!({"id": format!("b{at}"), "at": AT + at, "ms": at, "more": "x"})).collect();
    send(&place, &registry, &topic, FIRST, &first);
    send(&place, &registry, &topic, SECOND, &second);
    // An id that the registry does not know, and values that refer to none.
    let odd = ["\u{0}\u{0}\u{1}\u{0}\u{7}abc", "{\"id\": 1}", ""].map(|value| json!({"value": value}).to_string());
    let file = place.write("odd.jsonl", odd.join("\n"));
    let sent = python_command("kafka_tool.py")
        .args([shared(), "produce-json", &topic])
        .stdin(std::fs::File::open(file).expect("the messages"))
        .output()
        .expect("python runs");
    assert_exit(&sent, 0);
    topology(&place, &topic);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let url = format!("kafka.main.schema_registry_url={}", registry.url());
    let args = ["plays.toml", "--until-end", "--set", &servers, "--set", &url];
    assert_exit(&finish(&mut place.run_command(&args)), 0);
    let mut records = place.published("play");
    records.sort_by_key(|record| record["id"].as_str().map(str::to_owned));
    assert_eq!(records.len(), 200);
    let ms = |id: &str| records.iter().find(|record| record["id"] == id).map(|record| record["ms"].clone());
    assert_eq!((ms("a7"), ms("b7")), (Some(json!(-1)), Some(json!(7))));
    let mut reasons: Vec<String> = place
        .published("_dead_letters")
        .iter()
        .map(|letter| letter["reason"].as_str().expect("text").to_owned())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["malformed", "malformed", "unknown_schema"]);
}

#[test]
fn a_registry_that_is_down_is_waited_for_and_nothing_is_lost() {
    let registry = Registry::start();
    let (place, topic) = (Place::new(), topic("down"));
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    let records: Vec<Value> = (0..50).map(|at| json!({"id": format!("a{at}"), "at": AT + at})).collect();
    send(&place, &registry, &topic, FIRST, &records);
    let url = format!("kafka.main.schema_registry_url={}", registry.url());
    let port_of_nobody = "kafka.main.schema_registry_url=http://127.0.0.1:1/apis";
    topology(&place, &topic);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", &servers];
    let child = Process::start(place.command(&args).args(["--set", port_of_nobody]).stderr(Stdio::piped()));
    wait_for("the trouble", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let what = status["sources"][0]["waits_for"].as_str()?.to_owned();
        what.contains("schema registry http://127.0.0.1:1/apis does not answer").then_some(())
    });
    child.signal(Signal::TERM);
    let ended = child.end();
    assert_exit(&ended, 0);
    assert!(printed(&ended).contains("waiting: schema registry"), "{}", printed(&ended));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end", "--set", &servers, "--set", &url])), 0);
    assert_eq!(place.published("play").len(), 50);
    assert_eq!(place.published("_dead_letters").len(), 0);
    // Without an address, it is said before anything is read.
    let place = Place::new();
    topology(&place, &topic);
    let without = finish(&mut place.run_command(&["plays.toml", "--until-end", "--set", &servers]));
    assert_exit(&without, 78);
    assert!(printed(&without).contains("schema_registry_url"), "{}", printed(&without));
}

#[test]
fn keys_headers_times_and_topics_become_fields_and_types() {
    let place = Place::new();
    let (plays, stops) = (topic("plays"), topic("stops"));
    for topic in [&plays, &stops] {
        tool(shared(), &["create", topic, "--partitions", "1", "--config", "message.timestamp.type=LogAppendTime"]);
    }
    let messages = [
        json!({"value": "{\"id\": \"1\", \"at\": 1700002800000}", "key": "user-1", "headers": [["trace", "t1"], ["kind", "play"]]}),
        json!({"value": "{\"id\": \"2\", \"at\": 1700002800000, \"who\": \"ignored\"}", "headers": [["kind", "play"]]}),
        json!({"value": "{\"id\": \"3\", \"at\": 1700002800000}", "headers": [["kind", "nothing"]]}),
        json!({"value": "{\"id\": \"4\", \"at\": 1700002800000}"}),
    ];
    let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
    let file = place.write("messages.jsonl", text);
    let sent = python_command("kafka_tool.py")
        .args([shared(), "produce-json", &plays])
        .stdin(std::fs::File::open(file).expect("the messages"))
        .output()
        .expect("python runs");
    assert_exit(&sent, 0);
    tool(shared(), &["produce", &stops, place.write("stop", "5\t1700002800000\n").to_str().expect("UTF-8")]);
    place.write(
        "play.avsc",
        r#"{"type": "record", "name": "Play", "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "who", "type": ["null", "string"]},
            {"name": "trace", "type": ["null", "string"]},
            {"name": "appended", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "produced", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
            {"name": "place", "type": "long"}]}"#,
    );
    let text = format!(
        r#"
        [topology]
        name = "plays"
        [types.play]
        schema = "play.avsc"
        time = "at"
        id = ["id"]
        [types.{stops}]
        schema = "play.avsc"
        time = "appended"
        id = ["id"]
        [sources.plays]
        kind = "kafka"
        cluster = "main"
        topics = [{plays:?}]
        [sources.stops]
        kind = "kafka"
        cluster = "main"
        topics = [{stops:?}]
        [stages.parse]
        kind = "json"
        from = ["plays"]
        time = "epoch_ms"
        type_from = {{ header = "kind" }}
        from_message = {{ who = "key", trace = "header:trace", appended = "append_time", produced = "producer_time", place = "offset" }}
        [stages.columns]
        kind = "tsv"
        from = ["stops"]
        time = "epoch_ms"
        type_from = {{ topic = true }}
        from_message = {{ who = "key", trace = "topic", appended = "append_time", produced = "producer_time", place = "offset" }}
        [sinks.files]
        kind = "avro_files"
        from = ["parse", "columns"]
        "#
    );
    place.write("plays.toml", text);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end", "--set", &servers])), 0);
    let mut records = place.published("play");
    records.sort_by_key(|record| record["id"].to_string());
    let fields = |record: &Value| {
        [record["who"].clone(), record["trace"].clone(), record["produced"].clone(), record["place"].clone()]
    };
    assert_eq!(fields(&records[0]), [json!("user-1"), json!("t1"), Value::Null, json!(0)]);
    assert_eq!(fields(&records[1]), [Value::Null, Value::Null, Value::Null, json!(1)]);
    assert!(records[0]["appended"].as_str().expect("a time").starts_with("20"), "{records:?}");
    let stopped = place.published(&stops);
    assert_eq!((stopped.len(), &stopped[0]["trace"], &stopped[0]["id"]), (1, &json!(stops), &json!("5")));
    let mut letters = place.published("_dead_letters");
    letters.sort_by_key(|letter| letter["position"].as_i64());
    let told: Vec<_> = letters.iter().map(|letter| (&letter["position"], &letter["reason"])).collect();
    assert_eq!(told, [(&json!(2), &json!("unknown_type")), (&json!(3), &json!("malformed"))]);
}

#[test]
fn a_registry_behind_tls_is_trusted_by_the_authority_of_the_settings_and_not_without() {
    let keys = Place::new();
    let certificate = certificate(&keys);
    let registry = Registry::start_with_tls(&certificate);
    let (place, topic) = (Place::new(), topic("tls"));
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    let records: Vec<Value> = (0..50).map(|at| json!({"id": format!("a{at}"), "at": AT + at})).collect();
    send(&place, &registry, &topic, FIRST, &records);
    topology(&place, &topic);
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let url = format!("kafka.main.schema_registry_url={}", registry.https_url());
    let authority = format!("kafka.main.schema_registry_ssl_ca_location={}", certificate.cert.display());
    // Nobody has signed it that the system knows; and it is for another name.
    let other_name = url.replace("127.0.0.1", "localhost");
    for untrusted in [vec![url.as_str()], vec![&other_name, "--set", &authority]] {
        let log = std::fs::File::create(place.path("log")).expect("a log");
        let args = [&["plays.toml", "--set", &servers, "--set"], &untrusted[..]].concat();
        let child = Process::start(place.run_command(&args).stdout(Stdio::null()).stderr(log));
        wait_for("the distrust", || {
            let log = std::fs::read_to_string(place.path("log")).ok()?;
            (log.contains("schema registry https://") && log.contains("certificate")).then_some(())
        });
        child.stop();
        assert_eq!(place.published("play").len(), 0);
    }
    let trusted = ["plays.toml", "--until-end", "--set", &servers, "--set", &url, "--set", &authority];
    assert_exit(&finish(&mut place.run_command(&trusted)), 0);
    assert_eq!(place.published("play").len(), 50);
    assert_eq!(place.published("_dead_letters").len(), 0);
}
