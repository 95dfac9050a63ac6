//! The sink `kafka`, read by a client that is not ours.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use tidemill_harness::kafka::{Broker, produce, shared, tool, topic};
use tidemill_harness::registry::Registry;
use tidemill_harness::{Place, Process, assert_exit, finish, json_lines, lines, printed, wait_for};

/// The topology of plays, from files, with a sink `kafka` for its events.
fn plays_to(place: &Place, topic: &str, sink: &str) {
    place.plays("");
    let mut text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    text.push_str(&format!(
        "\n[sinks.out]\nkind = \"kafka\"\nfrom = [\"dedup\"]\ncluster = \"main\"\ntopic = {topic:?}\n{sink}\n"
    ));
    place.write("plays.toml", text);
}

fn run(place: &Place, bootstrap: &str, more: &[&str]) -> std::process::Output {
    let servers = format!("kafka.main.bootstrap_servers={bootstrap}");
    finish(place.run_command(&["plays.toml", "--until-end", "--set", &servers]).args(more))
}

/// The status of the running topology.
fn status(place: &Place) -> Option<Value> {
    serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()
}

/// The part of it that is about one stage or sink.
fn stage(place: &Place, name: &str) -> Option<Value> {
    status(place)?["stages"].as_array()?.iter().find(|stage| stage["name"] == name).cloned()
}

fn consumed(bootstrap: &str, topic: &str) -> Vec<Value> {
    json_lines(&tool(bootstrap, &["consume", topic]).stdout)
}

/// Ids of the events in JSON messages, sorted.
fn ids(messages: &[Value]) -> Vec<String> {
    let value = |message: &Value| serde_json::from_str(message["value"].as_str().expect("text")).expect("JSON");
    let id = |event: Value| event["id"].as_str().expect("an id").to_owned();
    let mut ids: Vec<String> = messages.iter().map(value).map(id).collect();
    ids.sort_unstable();
    ids
}

/// That exactly these were read; said in a few words when not.
#[track_caller]
fn assert_ids(found: &[String], wanted: std::ops::Range<u32>) {
    let wanted = numbered(wanted);
    let missing: Vec<_> = wanted.iter().filter(|id| found.binary_search(id).is_err()).collect();
    let twice: Vec<_> = found.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    let (first_missing, first_twice) = (missing.first(), twice.first());
    assert_eq!(
        (found.len(), missing.len(), twice.len()),
        (wanted.len(), 0, 0),
        "missing {first_missing:?}, twice {first_twice:?}"
    );
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("id{number:06}")).collect()
}

#[test]
fn events_are_json_with_their_key_and_type_and_equal_keys_share_a_partition() {
    let (place, topic) = (Place::new(), topic("json"));
    tool(shared(), &["create", &topic, "--partitions", "3"]);
    plays_to(&place, &topic, "key = [\"who\"]\ntype_header = \"type\"");
    let text = "a\t1700002800000\tx\nb\t1700002800001\ty\nc\t1700002800002\tx\nd\t1700002800003\t\n";
    place.write("data/plays", text);
    assert_exit(&run(&place, shared(), &[]), 0);
    let mut messages = consumed(shared(), &topic);
    messages.sort_by_key(|message| message["value"].to_string());
    let value: Value = serde_json::from_str(messages[0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(value, json!({"id": "a", "at": "2023-11-14T23:00:00Z", "who": "x"}));
    let keys: Vec<&Value> = messages.iter().map(|message| &message["key"]).collect();
    // An empty text is a text.
    assert_eq!(keys, [&json!("x"), &json!("y"), &json!("x"), &json!("")]);
    assert_eq!(messages[0]["partition"], messages[2]["partition"]);
    assert!(messages.iter().all(|message| message["headers"] == json!([["type", "play"]])), "{messages:?}");
    // What comes after is told by the state: nothing is sent again.
    assert_exit(&run(&place, shared(), &[]), 0);
    assert_eq!(consumed(shared(), &topic).len(), 4);
}

#[test]
fn raw_messages_are_the_bytes_as_they_were_received() {
    let (place, topic) = (Place::new(), topic("raw"));
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    plays_to(&place, &topic, "format = \"raw\"");
    place.write("data/plays", lines(0..100));
    assert_exit(&run(&place, shared(), &[]), 0);
    let sent: String =
        consumed(shared(), &topic).iter().map(|message| message["value"].as_str().unwrap().to_owned() + "\n").collect();
    assert_eq!(sent, lines(0..100));
}

#[test]
fn avro_is_read_by_confluents_client_with_the_registered_schema() {
    let registry = Registry::start();
    let (place, topic) = (Place::new(), topic("avro"));
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    plays_to(&place, &topic, "format = \"avro\"");
    place.write("data/plays", lines(0..500));
    let url = format!("kafka.main.schema_registry_url={}", registry.url());
    assert_exit(&run(&place, shared(), &["--set", &url]), 0);
    let read = tool(shared(), &["consume-avro", &topic, "--registry", &registry.url()]);
    let mut found: Vec<String> =
        json_lines(&read.stdout).iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect();
    found.sort_unstable();
    assert_eq!(found, numbered(0..500));
    // A type that does not fit what is registered is refused at the start, with the registry's words.
    let other = r#"{"type": "record", "name": "Play", "fields": [
        {"name": "id", "type": "int"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "who", "type": ["null", "string"]}]}"#;
    let place = Place::new();
    plays_to(&place, &topic, "format = \"avro\"");
    place.write("play.avsc", other);
    place.write("data/plays", "1\t1700002800000\tx\n");
    tool_put(&format!("{}/config/{topic}-value", registry.url()), &json!({"compatibility": "BACKWARD"}));
    let refused = run(&place, shared(), &["--set", &url]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(
        printed(&refused).contains("schema registry") && printed(&refused).contains("out"),
        "{}",
        printed(&refused)
    );
}

/// Sends JSON to a registry.
fn tool_put(url: &str, body: &Value) {
    let script = "import sys,urllib.request as u\n\
        u.urlopen(u.Request(sys.argv[1],sys.argv[2].encode(),{'content-type':'application/json'},method='PUT')).read()";
    let done = std::process::Command::new("python3").args(["-c", script, url, &body.to_string()]).output();
    assert_exit(&done.expect("python3 runs"), 0);
}

#[test]
fn messages_that_the_broker_never_takes_become_dead_letters_with_its_reason_and_the_others_arrive() {
    let (place, topic) = (Place::new(), topic("refused"));
    tool(shared(), &["create", &topic, "--partitions", "1", "--config", "max.message.bytes=20000"]);
    plays_to(&place, &topic, "compression = \"none\"");
    let long = format!("long\t1700002800000\t{}\n", "x".repeat(50_000));
    place.write("data/plays", lines(0..100) + &long + &lines(100..200));
    assert_exit(&run(&place, shared(), &["--set", "kafka.main.batch_size=5000"]), 0);
    assert_eq!(ids(&consumed(shared(), &topic)), numbered(0..200));
    let letters = place.published("_dead_letters");
    let told: Vec<_> =
        letters.iter().map(|letter| (&letter["stage"], &letter["reason"], &letter["event_type"])).collect();
    assert_eq!(told, [(&json!("out"), &json!("refused"), &json!("play"))]);
    let message = letters[0]["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("too large"), "{message}");
    assert_eq!(letters[0]["payload_length"], long.len() - 1);
}

#[test]
fn a_cluster_that_is_absent_or_lacks_the_topic_is_waited_for_and_nothing_is_lost() {
    let mut broker = Broker::absent("");
    let place = Place::new();
    plays_to(&place, "plays", "properties = { \"topic.metadata.propagation.max.ms\" = 500 }");
    place.write("data/plays", lines(0..1_000));
    let servers = format!("kafka.main.bootstrap_servers={}", broker.bootstrap());
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", &servers];
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let child = Process::start(place.command(&args).stdout(Stdio::null()).stderr(log));
    let sink = || stage(&place, "out");
    let waits = |part: &str| {
        wait_for(part, || sink()?["waits_for"].as_str().filter(|what| what.contains(part)).map(str::to_owned))
    };
    waits("refused");
    // The files are not held back by the sink that is.
    wait_for("the other sink", || (stage(&place, "files")?["tally"]["received"] == 1_000).then_some(()));
    broker.restart();
    waits("Unknown topic");
    tool(&broker.bootstrap(), &["create", "plays", "--partitions", "2"]);
    wait_for("delivery", || sink().filter(|sink| sink["tally"]["sent"] == 1_000));
    // Gone in the middle.
    broker.kill();
    place.write("data/more", lines(1_000..2_000));
    waits("messages");
    broker.restart();
    wait_for("delivery", || sink().filter(|sink| sink["tally"]["sent"] == 2_000 && sink["waits_for"].is_null()));
    child.stop();
    let log = std::fs::read_to_string(place.path("log")).expect("the log");
    assert!(log.contains("waiting: the sink takes no events") && log.contains("the sink answers"), "{log}");
    // An idempotent producer repeats nothing over an outage of the broker.
    assert_eq!(ids(&consumed(&broker.bootstrap(), "plays")), numbered(0..2_000));
}

#[test]
fn a_kill_loses_nothing_and_repeats_only_what_came_after_the_last_cut() {
    let (place, topic) = (Place::new(), topic("killed"));
    tool(shared(), &["create", &topic, "--partitions", "3"]);
    plays_to(&place, &topic, "");
    place.write("data/plays", lines(0..200_000));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", &servers];
    let mut command = place.command(&args);
    let child = Process::start(command.args(["--set", "cut.interval=20ms"]).stderr(Stdio::null()));
    wait_for("a cut in the middle", || {
        let is_cut = status(&place)?["cut"].as_u64()? > 0;
        (is_cut && stage(&place, "out")?["tally"]["sent"].as_u64()? > 0).then_some(())
    });
    child.kill();
    assert_exit(&run(&place, shared(), &[]), 0);
    let mut found = ids(&consumed(shared(), &topic));
    assert!(found.len() >= 200_000);
    found.dedup();
    assert_eq!(found, numbered(0..200_000));
}

const ONCE: &str = "delivery = \"exactly_once\"";

/// Killed before and after a cut of the sink's region is in the ledger, and wherever it was: what is committed in Kafka and not in the ledger
/// is not sent again, what is in neither is.
#[test]
fn exactly_once_means_once_over_kills_at_every_step_of_a_commit() {
    const EVENTS: u32 = 300_000;
    let (place, topic) = (Place::new(), topic("once"));
    tool(shared(), &["create", &topic, "--partitions", "3"]);
    plays_to(&place, &topic, ONCE);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("rescan =", "read_size = \"16KiB\"\nrescan ="));
    place.write("data/plays", lines(0..EVENTS));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let steps = ["cut-begins", "pieces-synced", "ledger-written", "ledger-synced", "effects-done"];
    for (step, number) in steps.iter().flat_map(|step| [(step, 9), (step, 14)]) {
        let mut command = place.run_command(&["plays.toml", "--until-end", "--set", &servers]);
        // So that it comes no further than some cuts.
        command.args(["--set", "cut.interval=5ms", "--set", "runtime.replay=256KiB"]);
        let run = finish(command.env("TIDEMILL_FAILPOINT", format!("{step}:{number}")));
        let killed = std::os::unix::process::ExitStatusExt::signal(&run.status) == Some(9);
        println!("{step}:{number}: {}", if killed { "killed" } else { "not reached" });
        assert!(killed, "{}", printed(&run));
    }
    let before = ids(&consumed(shared(), &topic)).len();
    println!("{before} events were visible before the last run");
    assert!(before > 0, "nothing was committed before the kills, so nothing was shown");
    assert_exit(&run(&place, shared(), &[]), 0);
    assert_ids(&ids(&consumed(shared(), &topic)), 0..EVENTS);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn exactly_once_leaves_out_what_the_broker_refuses_and_only_that() {
    let (place, topic) = (Place::new(), topic("once-refused"));
    tool(shared(), &["create", &topic, "--partitions", "1", "--config", "max.message.bytes=20000"]);
    plays_to(&place, &topic, &format!("compression = \"none\"\n{ONCE}"));
    let long = |id: &str| format!("{id}\t1700002800000\t{}\n", "x".repeat(50_000));
    place.write("data/plays", lines(0..100) + &long("long1") + &lines(100..200) + &long("long2"));
    assert_exit(&run(&place, shared(), &["--set", "kafka.main.batch_size=5000"]), 0);
    assert_ids(&ids(&consumed(shared(), &topic)), 0..200);
    let letters = place.published("_dead_letters");
    let told: Vec<_> = letters.iter().map(|letter| (&letter["stage"], &letter["reason"])).collect();
    assert_eq!(told, [(&json!("out"), &json!("refused")); 2]);
    let message = letters[0]["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("too large"), "{message}");
    // More comes later, of an hour that is open: the transactions go on.
    place.write("data/more", lines(72_000..72_100));
    assert_exit(&run(&place, shared(), &[]), 0);
    assert_eq!(consumed(shared(), &topic).len(), 300);
}

#[test]
fn exactly_once_means_once_when_the_broker_is_killed_in_the_middle_of_transactions() {
    const PART: u32 = 20_000;
    let mut broker = Broker::start("");
    let place = Place::new();
    tool(&broker.bootstrap(), &["create", "plays", "--partitions", "2"]);
    plays_to(&place, "plays", &format!("{ONCE}\nproperties = {{ \"transaction.timeout.ms\" = 10000 }}"));
    place.write("data/0", lines(0..PART));
    let servers = format!("kafka.main.bootstrap_servers={}", broker.bootstrap());
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", &servers];
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let mut command = place.command(&args);
    let child = Process::start(command.args(["--set", "cut.interval=50ms"]).stdout(Stdio::null()).stderr(log));
    for part in 0..3 {
        wait_for("something to be sent", || {
            (stage(&place, "out")?["tally"]["sent"].as_u64()? > u64::from(part * PART)).then_some(())
        });
        broker.kill();
        place.write(&format!("data/{}", part + 1), lines((part + 1) * PART..(part + 2) * PART));
        broker.restart();
    }
    let all = u64::from(4 * PART);
    wait_for("everything", || (stage(&place, "out")?["tally"]["sent"].as_u64()? >= all).then_some(()));
    child.signal(Signal::TERM);
    let ended = child.end();
    let log = std::fs::read_to_string(place.path("log")).expect("the log");
    assert!(ended.status.success(), "{log}");
    assert_ids(&ids(&consumed(&broker.bootstrap(), "plays")), 0..4 * PART);
}

#[test]
fn hourly_counts_go_back_to_kafka_in_the_shipped_topology() {
    let registry = topic("delivery");
    let (place, events, counts) = (Place::new(), format!("events-{registry}"), format!("counts-{registry}"));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let args = [
        "generate",
        "--kafka",
        "main",
        "--topic",
        &events,
        "--partitions",
        "3",
        "--events",
        "100000",
        "--out",
        "truth",
    ];
    assert_exit(&finish(place.command(&args).args(["--set", &servers])), 0);
    tool(shared(), &["create", &counts, "--partitions", "3"]);
    let root = tidemill_harness::root();
    let shipped = std::fs::read_to_string(root.join("topologies/event-delivery.toml")).expect("the topology");
    let own = shipped
        .replace("topics = [\"events\"]", &format!("topics = [{events:?}]"))
        .replace("topic = \"event-counts\"", &format!("topic = {counts:?}"))
        .replace("schemas/", &format!("{}/topologies/schemas/", root.display()));
    place.write("delivery.toml", own);
    assert_exit(&finish(&mut place.run_command(&["delivery.toml", "--until-end", "--set", &servers])), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    let truth: Value =
        serde_json::from_str(&std::fs::read_to_string(place.path("truth/truth.json")).expect("the truth"))
            .expect("JSON");
    let mut told: std::collections::BTreeMap<(String, String), u64> = Default::default();
    for message in consumed(shared(), &counts) {
        let row: Value = serde_json::from_str(message["value"].as_str().expect("text")).expect("JSON");
        let key: Value = serde_json::from_str(message["key"].as_str().expect("text")).expect("JSON");
        assert_eq!(key, json!([row["event_type"], row["country"]]));
        let text = |name: &str| row[name].as_str().expect("text").to_owned();
        *told.entry((text("event_type"), text("hour"))).or_default() += row["events"].as_u64().expect("a number");
    }
    let hours = truth["types"].as_object().expect("types").iter().flat_map(|(name, hours)| {
        let hours = hours.as_object().expect("hours").iter();
        hours.map(move |(hour, truth)| ((name.clone(), hour.clone()), truth["count"].as_u64().expect("a number")))
    });
    assert_eq!(told, hours.collect());
}

#[test]
fn a_topic_that_a_type_can_not_have_and_a_key_that_is_not_there_are_found_by_the_check() {
    let place = Place::new();
    plays_to(&place, "plays of {event_type}", "key = [\"whom\"]");
    let check = place.tidemill(&["check", "plays.toml"]);
    assert_exit(&check, 78);
    let text = printed(&check);
    assert!(text.contains("bad-topic") && text.contains("plays of play") && text.contains("`whom`"), "{text}");
    place.write("data/plays", lines(0..1));
    plays_to(&place, "plays", "properties = { acks = \"1\" }");
    let refused = run(&place, "127.0.0.1:1", &[]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(printed(&refused).contains("`acks`"), "{}", printed(&refused));
}

#[test]
fn a_topic_is_filled_with_generated_lines_only_with_as_many_partitions_as_it_has() {
    let (place, topic) = (Place::new(), topic("generated"));
    let servers = format!("kafka.main.bootstrap_servers={}", shared());
    let generate = |partitions: &str| {
        let args = ["generate", "--kafka", "main", "--topic", &topic, "--events", "1000", "--partitions", partitions];
        finish(place.command(&args).args(["--set", &servers]))
    };
    assert_exit(&generate("2"), 0);
    assert_eq!(consumed(shared(), &topic).len(), 1_000);
    let other = generate("3");
    assert_exit(&other, 78);
    assert!(printed(&other).contains("has 2 partitions"), "{}", printed(&other));
    // What comes from a topic can be sent to by anybody.
    produce(&place, shared(), &topic, &lines(0..1), &["--partition", "1"]);
    let nowhere = finish(&mut place.command(&["generate", "--events", "1"]));
    assert_exit(&nowhere, 64);
}

#[test]
fn exactly_once_goes_on_when_a_cut_takes_longer_than_a_transaction_may() {
    let broker = Broker::start("transaction.abort.timed.out.transaction.cleanup.interval.ms=200\n");
    let place = Place::new();
    tool(&broker.bootstrap(), &["create", "plays", "--partitions", "2", "--config", "max.message.bytes=20000"]);
    // Each file is a delivery of its own, for which the sink takes as long as it lingers: eight seconds for what waits before a barrier.
    let sink = format!(
        "{ONCE}\nlinger = \"400ms\"\ncompression = \"none\"\nproperties = {{ \"transaction.timeout.ms\" = 3000, \"batch.size\" = 5000 }}"
    );
    plays_to(&place, "plays", &sink);
    for number in 0..20 {
        place.write(&format!("data/{number:02}"), lines(number * 10..(number + 1) * 10));
    }
    let long = format!("long\t1700002800000\t{}\n", "x".repeat(50_000));
    place.write("data/00", lines(0..10) + &long);
    let servers = format!("kafka.main.bootstrap_servers={}", broker.bootstrap());
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", &servers];
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let child = Process::start(place.command(&args).stdout(Stdio::null()).stderr(log));
    wait_for("some of it to be visible", || (consumed(&broker.bootstrap(), "plays").len() >= 100).then_some(()));
    // What was refused in the transactions before is told again, although its dead letter may be in no cut yet.
    child.kill();
    assert_exit(&run(&place, &broker.bootstrap(), &[]), 0);
    assert_ids(&ids(&consumed(&broker.bootstrap(), "plays")), 0..200);
    let letters = place.published("_dead_letters");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["payload_length"], long.len() - 1);
}
