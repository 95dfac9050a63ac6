//! The source `kafka` against a real broker: everything once, whatever happens to either side, and nothing in silence.

use rustix::process::Signal;
use std::process::Stdio;

use serde_json::Value;

use tidemill_harness::admin::{address, page, served_metrics};
use tidemill_harness::certificate::{Certificate, certificate};
use tidemill_harness::flights;
use tidemill_harness::kafka::{Broker, produce, shared, tool, topic};
use tidemill_harness::{
    Place, Process, assert_each_once, assert_exit, finish, lines, printed, python, seeded, wait_for,
};

/// The topology of plays, from topics.
fn plays(place: &Place, topics: &[&str], more: &str) {
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let source = format!("kind = \"kafka\"\ncluster = \"main\"\ntopics = {topics:?}\nidle_timeout = \"1s\"\n{more}");
    let text =
        text.replace("kind = \"file\"", &source).replace("paths = [\"data/*\"]", "").replace("rescan = \"50ms\"", "");
    place.write("plays.toml", text);
}

fn servers(bootstrap: &str) -> String {
    format!("kafka.main.bootstrap_servers={bootstrap}")
}

/// A run until the end of what is there now.
fn until_end(place: &Place, bootstrap: &str, more: &[&str]) -> std::process::Output {
    let mut command = place.run_command(&["plays.toml", "--until-end", "--set", &servers(bootstrap)]);
    finish(command.args(more))
}

/// A run without end, with an admin server.
fn follow(place: &Place, bootstrap: &str) -> Process {
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set"];
    let mut command = place.command(&args);
    command.args([&servers(bootstrap), "--set", "cut.interval=100ms"]);
    let log = std::fs::File::create(place.path("log")).expect("a log");
    Process::start(command.stdout(Stdio::null()).stderr(log))
}

/// What the run without end has logged.
fn log(place: &Place) -> String {
    std::fs::read_to_string(place.path("log")).expect("the log")
}

fn status(place: &Place, topology: &str) -> Option<Value> {
    serde_json::from_slice(&place.tidemill(&["status", topology, "--json"]).stdout).ok()
}

/// Sum of the positions that are committed.
fn position(place: &Place, topology: &str) -> Option<u64> {
    let status = status(place, topology)?;
    let partitions = status["sources"][0]["partitions"].as_array()?;
    Some(partitions.iter().filter_map(|partition| partition["committed"].as_u64()).sum())
}

#[track_caller]
fn wait_for_position(place: &Place, wanted: u64) {
    wait_for("the position", || position(place, "plays").filter(|position| *position >= wanted));
}

/// Waits until the source says that it waits for something, and returns what.
#[track_caller]
fn wait_until_it_waits(place: &Place, part: &str) -> String {
    wait_for(part, || {
        let status = status(place, "plays")?;
        let what = status["sources"][0]["waits_for"].as_str()?.to_owned();
        what.contains(part).then_some(what)
    })
}

/// The real flights, each tenth sent twice, for a topic of three partitions.
struct Flights {
    place: Place,
    topic: String,
    source: std::path::PathBuf,
    topology: std::path::PathBuf,
    lines: Vec<String>,
}

impl Flights {
    fn new(bootstrap: &str) -> Self {
        let place = Place::new();
        let source = flights::flights(&place);
        let input = place.path("input.tsv");
        let args = [source.to_str().unwrap(), input.to_str().unwrap(), "--seed", "3"];
        assert_exit(&python("flights_input.py", &args), 0);
        let text = std::fs::read_to_string(&input).expect("the flights");
        let topic = topic("flights");
        tool(bootstrap, &["create", &topic, "--partitions", "3"]);
        let shipped = std::fs::read_to_string(flights::topology(&place, &input)).expect("the topology");
        let paths = format!("paths = [\"{}\"]", input.display());
        assert!(shipped.contains(&paths));
        let shipped = shipped
            .replace("kind = \"file\"", "kind = \"kafka\"\ncluster = \"main\"")
            .replace(&paths, &format!("topics = [{topic:?}]"))
            .replace("framing = \"lines\"", "");
        let topology = place.write("flights.toml", shipped);
        let lines = text.split_inclusive('\n').map(str::to_owned).collect();
        Self { place, topic, source, topology, lines }
    }

    /// Sends some of the lines.
    fn send(&self, bootstrap: &str, lines: std::ops::Range<usize>) {
        let more = ["--partitions", "3", "--compression", "zstd"];
        produce(&self.place, bootstrap, &self.topic, &self.lines[lines].concat(), &more);
    }

    fn command(&self, bootstrap: &str) -> std::process::Command {
        let mut command = self.place.command(&["run", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
        command.args(["--set", "cut.interval=50ms", "--set", "log.level=warn", "--set"]);
        command.arg(servers(bootstrap)).arg(&self.topology);
        command
    }

    /// Reads all, and checks what comes of it.
    fn check(&self, bootstrap: &str) {
        assert_exit(&finish(self.command(bootstrap).arg("--until-end")), 0);
        let out = self.place.out();
        let out = out.to_str().unwrap();
        let compare = [out, self.source.to_str().unwrap(), "--counts", "carriers"];
        assert_exit(&python("flights_compare.py", &compare), 0);
        assert_exit(&python("audit_files.py", &[out, "--expect-unique-field", "flight_id", "--json"]), 0);
        assert_exit(&self.place.tidemill(&["verify", out]), 0);
        let sealed = flights::sealed_hours(&self.place.out().join("flight"));
        assert_eq!(sealed, flights::YEAR, "sealed hours of flights");
    }
}

#[test]
fn real_flights_from_three_partitions_come_out_once_in_6936_hours() {
    let flights = Flights::new(shared());
    flights.send(shared(), 0..flights.lines.len());
    flights.check(shared());
}

#[test]
fn flights_survive_twenty_kills_at_seeded_points_of_progress() {
    let flights = Flights::new(shared());
    flights.send(shared(), 0..flights.lines.len());
    let mut kills = 0;
    for point in seeded(20_261_124, 20, flights.lines.len() as u64) {
        let mut child = Process::start(flights.command(shared()).arg("--until-end").stderr(Stdio::null()));
        wait_for("a kill or an end", || {
            if child.status().is_some() {
                return Some(());
            }
            position(&flights.place, "flights").filter(|position| *position >= point)?;
            child.signal(Signal::KILL);
            kills += 1;
            Some(())
        });
        child.end();
    }
    println!("{kills} of 20 kills hit a running process");
    assert!(kills >= 15, "too few kills came in time: {kills}");
    flights.check(shared());
}

#[test]
fn flights_survive_a_broker_that_is_killed_and_restarted_five_times() {
    let mut broker = Broker::start("");
    let flights = Flights::new(&broker.bootstrap());
    let mut command = flights.command(&broker.bootstrap());
    let child = Process::start(command.stderr(Stdio::piped()));
    let portion = flights.lines.len() / 6;
    for kill in 0..5 {
        flights.send(&broker.bootstrap(), kill * portion..(kill + 1) * portion);
        // In the middle of it, or close to that.
        let point = (kill * portion + portion / 3) as u64;
        wait_for("progress", || position(&flights.place, "flights").filter(|position| *position >= point));
        broker.kill();
        broker.restart();
    }
    flights.send(&broker.bootstrap(), 5 * portion..flights.lines.len());
    child.stop();
    flights.check(&broker.bootstrap());
}

#[test]
fn a_broker_that_is_absent_is_waited_for_and_a_run_to_the_end_gives_up() {
    let mut broker = Broker::absent("");
    let place = Place::new();
    plays(&place, &["plays"], "connect_timeout = \"2s\"");
    let gave_up = until_end(&place, &broker.bootstrap(), &[]);
    assert_exit(&gave_up, 69);
    assert!(
        printed(&gave_up).contains("does not answer") && printed(&gave_up).contains("refused"),
        "{}",
        printed(&gave_up)
    );

    let child = follow(&place, &broker.bootstrap());
    wait_until_it_waits(&place, "refused");
    broker.restart();
    wait_until_it_waits(&place, "topic `plays` can't be read");
    tool(&broker.bootstrap(), &["create", "plays", "--partitions", "3"]);
    // Partition 2 never gets an event.
    produce(&place, &broker.bootstrap(), "plays", &lines(0..1_000), &["--partitions", "2"]);
    wait_for_position(&place, 1_000);
    broker.kill();
    wait_until_it_waits(&place, "does not answer");
    broker.restart();
    produce(&place, &broker.bootstrap(), "plays", &lines(1_000..2_000), &["--partitions", "2"]);
    wait_for_position(&place, 2_000);
    child.stop();
    let log = log(&place);
    assert_eq!(log.matches("waiting: cluster").count(), 2, "each outage is told once a minute: {log}");
    assert_exit(&until_end(&place, &broker.bootstrap(), &[]), 0);
    assert_each_once(&place.published("play"), 0..2_000);
}

#[test]
fn an_outage_of_more_than_a_minute_is_told_again_and_a_second_process_is_refused_meanwhile() {
    let mut broker = Broker::start("");
    let place = Place::new();
    plays(&place, &["plays"], "");
    tool(&broker.bootstrap(), &["create", "plays", "--partitions", "3"]);
    produce(&place, &broker.bootstrap(), "plays", &lines(0..1_000), &["--partitions", "3"]);
    let child = follow(&place, &broker.bootstrap());
    wait_for_position(&place, 1_000);
    broker.kill();
    wait_until_it_waits(&place, "does not answer");
    assert!(page(&address(&place, "plays", &child), "/ready").is_some_and(|(head, _)| head.contains("503")));
    let second = until_end(&place, &broker.bootstrap(), &[]);
    assert_exit(&second, 75);
    assert!(printed(&second).contains(&child.id().to_string()), "it names the owner: {}", printed(&second));
    wait_for("the second word of it", || (log(&place).matches("waiting: cluster").count() == 2).then_some(()));
    broker.restart();
    produce(&place, &broker.bootstrap(), "plays", &lines(1_000..2_000), &["--partitions", "3"]);
    wait_for_position(&place, 2_000);
    child.stop();
    assert_exit(&until_end(&place, &broker.bootstrap(), &[]), 0);
    assert_each_once(&place.published("play"), 0..2_000);
}

#[test]
fn every_compression_is_read() {
    let (place, topic) = (Place::new(), topic("compressed"));
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    for (at, compression) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let lines = lines(at * 1_000..(at + 1) * 1_000);
        produce(&place, shared(), &topic, &lines, &["--compression", compression]);
    }
    plays(&place, &[&topic], "");
    assert_exit(&until_end(&place, shared(), &[]), 0);
    assert_each_once(&place.published("play"), 0..5_000);
}

#[test]
fn a_first_start_begins_where_the_topology_says_and_the_next_where_the_state_is() {
    let topic = topic("start");
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    let send = |place: &Place, numbers: std::ops::Range<u32>, at_ms: &str| {
        produce(place, shared(), &topic, &lines(numbers), &["--timestamp", at_ms]);
    };
    let (by_time, latest) = (Place::new(), Place::new());
    plays(&by_time, &[&topic], "start = \"2024-01-01T00:00:00Z\"");
    plays(&latest, &[&topic], "start = \"latest\"");
    send(&by_time, 0..100, "1600000000000");
    send(&by_time, 100..200, "1704067200000");
    for place in [&by_time, &latest] {
        assert_exit(&until_end(place, shared(), &[]), 0);
    }
    assert_each_once(&by_time.published("play"), 100..200);
    assert_eq!(latest.published("play").len(), 0);
    send(&by_time, 200..300, "1704067300000");
    assert_exit(&until_end(&latest, shared(), &[]), 0);
    assert_each_once(&latest.published("play"), 200..300);
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning() {
    let (place, topic) = (Place::new(), topic("grown"));
    tool(shared(), &["create", &topic, "--partitions", "3"]);
    produce(&place, shared(), &topic, &lines(0..900), &["--partitions", "3"]);
    plays(&place, &[&topic], "start = \"earliest\"");
    let child = follow(&place, shared());
    wait_for_position(&place, 900);
    tool(shared(), &["grow", &topic, "--partitions", "6"]);
    produce(&place, shared(), &topic, &lines(900..1_800), &["--partitions", "6"]);
    wait_for_position(&place, 1_800);
    let admin = address(&place, "plays", &child);
    let lag = wait_for("the lag of all partitions", || {
        let (_, body) = page(&admin, "/metrics")?;
        let lag = |line: &&str| line.starts_with("tidemill_partition_lag_events{") && line.ends_with(" 0");
        let found = body.lines().filter(lag).count();
        (found == 6).then_some(body)
    });
    assert!(served_metrics(&lag).contains("tidemill_partition_lag_seconds"));
    child.stop();
    assert_exit(&until_end(&place, shared(), &[]), 0);
    assert_each_once(&place.published("play"), 0..1_800);
}

#[test]
fn messages_that_retention_took_stop_their_partition_and_nothing_else() {
    let (place, topic) = (Place::new(), topic("expired"));
    tool(shared(), &["create", &topic, "--partitions", "2"]);
    produce(&place, shared(), &topic, &lines(0..100), &["--partition", "0"]);
    plays(&place, &[&topic], "");
    assert_exit(&until_end(&place, shared(), &[]), 0);
    let place = Place::new();
    plays(&place, &[&topic], "");
    let child = follow(&place, shared());
    wait_for_position(&place, 100);
    child.stop();
    produce(&place, shared(), &topic, &lines(100..300), &["--partition", "0"]);
    tool(shared(), &["truncate", &topic, "--partition", "0", "--before", "150"]);
    produce(&place, shared(), &topic, &lines(300..400), &["--partition", "1"]);

    let refused = until_end(&place, shared(), &[]);
    assert_exit(&refused, 75);
    assert!(printed(&refused).contains("retention took 50 messages"), "{}", printed(&refused));
    let child = follow(&place, shared());
    wait_until_it_waits(&place, "retention took 50 messages");
    // The other partition goes on.
    wait_for_position(&place, 200);
    child.stop();
    plays(&place, &[&topic], "on_gap = \"continue\"");
    assert_exit(&until_end(&place, shared(), &[]), 0);
    let records = place.published("play");
    assert_eq!(records.len(), 350, "all but the 50 that are lost");
}

#[test]
fn a_topic_that_was_made_again_is_noticed_although_its_offsets_fit() {
    let (place, topic) = (Place::new(), topic("again"));
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    produce(&place, shared(), &topic, &lines(0..100), &[]);
    plays(&place, &[&topic], "");
    let child = follow(&place, shared());
    wait_for_position(&place, 100);
    tool(shared(), &["delete", &topic]);
    wait_until_it_waits(&place, "if it was deleted");
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    produce(&place, shared(), &topic, &lines(100..400), &[]);
    wait_until_it_waits(&place, "deleted and made again");
    child.stop();
    // Also when it happened while nobody ran.
    let refused = until_end(&place, shared(), &[]);
    assert_exit(&refused, 75);
    assert!(printed(&refused).contains("on_gap"), "{}", printed(&refused));
    plays(&place, &[&topic], "on_gap = \"continue\"");
    assert_exit(&until_end(&place, shared(), &[]), 0);
    assert_each_once(&place.published("play"), 0..400);
}

#[test]
fn a_foreign_member_of_the_group_changes_nothing_and_without_one_the_group_shows_positions() {
    let (place, topic) = (Place::new(), topic("group"));
    tool(shared(), &["create", &topic, "--partitions", "1"]);
    produce(&place, shared(), &topic, &lines(0..100), &[]);
    plays(&place, &[&topic], &format!("group = \"{topic}\""));
    let child = follow(&place, shared());
    let committed = || {
        let offsets = tool(shared(), &["offsets", &topic]);
        let offsets: Value = serde_json::from_slice(&offsets.stdout).expect("JSON");
        offsets[format!("{topic}/0")].as_i64()
    };
    wait_for_position(&place, 100);
    produce(&place, shared(), &topic, &lines(100..200), &[]);
    wait_for_position(&place, 200);
    wait_for("the group's position", || committed().filter(|offset| *offset == 200));
    let mut foreign = python_child(&["join", &topic, &topic]);
    let mut output = std::io::BufReader::new(foreign.take_stdout().expect("a pipe"));
    wait_for("the foreign member", || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).ok()?;
        line.contains("assigned").then_some(())
    });
    produce(&place, shared(), &topic, &lines(200..300), &[]);
    wait_for_position(&place, 300);
    let warning = "positions can't be shown in the consumer group";
    wait_for(warning, || log(&place).contains(warning).then_some(()));
    child.stop();
    foreign.kill();
    assert_exit(&until_end(&place, shared(), &[]), 0);
    assert_each_once(&place.published("play"), 0..300);
}

fn python_child(args: &[&str]) -> Process {
    let mut command = tidemill_harness::python_command("kafka_tool.py");
    Process::start(command.arg(shared()).args(args).stdout(Stdio::piped()))
}

#[test]
fn large_and_odd_messages_become_dead_letters_and_the_others_arrive() {
    let (place, topic) = (Place::new(), topic("odd"));
    tool(shared(), &["create", &topic, "--partitions", "1", "--config", "max.message.bytes=12000000"]);
    produce(&place, shared(), &topic, &lines(0..10), &[]);
    produce(&place, shared(), &topic, &"x".repeat(9 << 20), &[]);
    let messages = [
        serde_json::json!({"value": null, "key": "tombstone"}),
        serde_json::json!({"value": ""}),
        serde_json::json!({"value": lines(10..11).trim_end(), "key": "k", "headers": [["trace", "1"], ["empty", null]]}),
        serde_json::json!({"value": lines(11..12).trim_end(), "key": null}),
    ];
    let text: String = messages.iter().map(|message| format!("{message}\n")).collect();
    let file = place.write("messages.jsonl", text);
    let sent = tidemill_harness::python_command("kafka_tool.py")
        .args([shared(), "produce-json", &topic])
        .stdin(std::fs::File::open(file).expect("the messages"))
        .output()
        .expect("python runs");
    assert_exit(&sent, 0);
    plays(&place, &[&topic], "");
    assert_exit(&until_end(&place, shared(), &[]), 0);
    assert_each_once(&place.published("play"), 0..12);
    let mut letters = place.published("_dead_letters");
    letters.sort_by_key(|letter| letter["position"].as_i64());
    let told: Vec<_> = letters.iter().map(|letter| (letter["position"].as_i64(), letter["reason"].as_str())).collect();
    assert_eq!(told, [(Some(10), Some("too_large")), (Some(11), Some("no_value")), (Some(12), Some("malformed"))]);
    assert_eq!(letters[0]["payload_length"].as_i64(), Some(9 << 20));
}

/// A listener that wants a name and a password.
const PASSWORDS: &str = "listener.security.protocol.map=CLIENTS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT\n\
    sasl.enabled.mechanisms=PLAIN\n\
    sasl.mechanism.inter.broker.protocol=PLAIN\n\
    listener.name.clients.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
    username=\"broker\" password=\"b\" user_broker=\"b\" user_tidemill=\"right\";";

/// A wrong password is told, without the password, and the right one opens. `properties` are those of the cluster.
fn check_password(broker: &Broker, properties: &[String]) {
    let place = Place::new();
    plays(&place, &["plays"], "connect_timeout = \"5s\"");
    let run = |password: &str| {
        let password = format!("sasl.password={password}");
        let sets = properties.iter().chain([&password]).map(|property| format!("--set=kafka.main.{property}"));
        let sets: Vec<String> = sets.collect();
        until_end(&place, &broker.bootstrap(), &sets.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let wrong = run("mistaken");
    assert_exit(&wrong, 69);
    assert!(printed(&wrong).to_lowercase().contains("authentication failed"), "{}", printed(&wrong));
    assert!(!printed(&wrong).contains("mistaken"), "no secret in the log: {}", printed(&wrong));

    let file = place.write("to-send", lines(0..100));
    for command in [&["create", "plays", "--partitions", "1"][..], &["produce", "plays", file.to_str().expect("UTF-8")]]
    {
        let known = properties.iter().map(|property| format!("--property={property}"));
        let args: Vec<String> = known
            .chain(["--property=sasl.password=right".to_owned()])
            .chain(command.iter().map(|arg| (*arg).to_owned()))
            .collect();
        tool(&broker.bootstrap(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_exit(&run("right"), 0);
    assert_each_once(&place.published("play"), 0..100);
}

#[test]
fn a_plain_password_has_to_be_right() {
    let broker = Broker::start(PASSWORDS);
    let properties = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", "sasl.username=tidemill"];
    check_password(&broker, &properties.map(str::to_owned));
}

#[test]
fn scram_over_tls_works_with_the_authority_of_the_settings_and_not_without() {
    let keys = Place::new();
    let Certificate { cert, both, .. } = certificate(&keys);
    let config = format!(
        "listener.security.protocol.map=CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT\n\
         sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512\n\
         listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule \
         required username=\"tidemill\" password=\"right\";\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={}",
        both.display(),
        cert.display()
    );
    let broker = Broker::start_with_user(&config, "SCRAM-SHA-512=[name=tidemill,password=right]");
    let mut properties = ["security.protocol=SASL_SSL", "sasl.mechanism=SCRAM-SHA-512", "sasl.username=tidemill"]
        .map(str::to_owned)
        .to_vec();
    let place = Place::new();
    plays(&place, &["plays"], "connect_timeout = \"3s\"");
    let sets: Vec<String> = properties.iter().map(|property| format!("--set=kafka.main.{property}")).collect();
    let mut args: Vec<&str> = sets.iter().map(String::as_str).collect();
    args.push("--set=kafka.main.sasl.password=right");
    let refused = until_end(&place, &broker.bootstrap(), &args);
    assert_exit(&refused, 69);
    assert!(printed(&refused).contains("certificate verify failed"), "{}", printed(&refused));
    properties.push(format!("ssl.ca.location={}", cert.display()));
    check_password(&broker, &properties);
}

#[test]
fn properties_that_are_ours_or_unknown_are_refused_with_the_reason() {
    let place = Place::new();
    for (property, part) in [
        ("\"auto.offset.reset\" = \"latest\"", "never replaced by chance"),
        ("\"no.such.property\" = \"1\"", "no.such.property"),
    ] {
        plays(&place, &["plays"], &format!("properties = {{ {property} }}"));
        let refused = until_end(&place, "127.0.0.1:1", &[]);
        assert_exit(&refused, 78);
        assert!(printed(&refused).contains(part), "{}", printed(&refused));
    }
    plays(&place, &["plays"], "");
    let unknown = finish(&mut place.run_command(&["plays.toml", "--until-end"]));
    assert_exit(&unknown, 78);
    assert!(printed(&unknown).contains("no Kafka cluster `main`"), "{}", printed(&unknown));
}
