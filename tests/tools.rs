//! Tools that operators have: what they make of Tidemill, and it of what they do. Debian: `apt-get install kcat prometheus`.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::admin::{address, page};
use crate::support::kafka::{shared, tool, topic};
use crate::support::{HOUR, Place, assert_each_once, assert_exit, end_of, finish, lines, root, said, signal, wait_for};
use tidemill_runtime::METRICS;

/// Runs a tool with some input.
fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("the tests run {name}, which is not here ({error}); Debian: apt-get install kcat prometheus")
    });
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer does not panic").expect("it reads its input");
    output
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..1_000) + &format!("later\t{}\tx\nbroken\n", HOUR + 40 * 86_400_000));
    let args =
        ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", "cut.interval=50ms"];
    let child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let admin = address(&place, "plays", &child);
    let body = wait_for("sealed hours and dead letters", || {
        let (_, body) = page(&admin, "/metrics")?;
        let is_there = |name: &str| body.lines().any(|line| line.starts_with(name));
        (is_there("tidemill_type_sealed_timestamp_seconds{") && is_there("tidemill_dead_letters_total{"))
            .then_some(body)
    });
    signal(child.id(), Signal::TERM);
    assert_exit(&end_of(child), 0);
    let checked = with_input(Command::new("promtool").args(["check", "metrics"]), body.as_bytes());
    assert_exit(&checked, 0);
    assert!(checked.stdout.is_empty() && checked.stderr.is_empty(), "{}", said(&checked));
}

#[test]
fn promtool_takes_the_shipped_configuration_and_every_alarm_is_explained() {
    let deploy = root().join("deploy");
    for (command, file) in [("config", "prometheus.yml"), ("rules", "alerts.yml"), ("rules", "slo.yml")] {
        let checked = with_input(Command::new("promtool").args(["check", command]).arg(deploy.join(file)), b"");
        assert_exit(&checked, 0);
    }
    let rules = |file: &str| std::fs::read_to_string(deploy.join(file)).expect("the rules");
    let rules = rules("alerts.yml") + &rules("slo.yml") + &rules("dashboard.json");
    let pages = std::fs::read_to_string(root().join("docs/operating.md")).expect("the page");
    for line in rules.lines() {
        if let Some((_, alarm)) = line.split_once("alert: ") {
            assert!(pages.contains(&format!("`{alarm}`")), "docs/operating.md does not explain {alarm}");
        }
        for name in
            line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| name.starts_with("tidemill_"))
        {
            assert!(METRICS.iter().any(|spec| spec.name == name), "there is no metric {name}");
        }
    }
}

#[test]
fn objectives_and_their_alarms_say_what_they_should_of_a_type_that_is_skewed_late_and_incomplete() {
    let place = Place::new();
    for (from, to) in [("deploy/slo.yml", "slo.yml"), ("tests/data/slo_test.yml", "test.yml")] {
        place.write(to, std::fs::read(root().join(from)).expect("a file of rules"));
    }
    let tested = with_input(Command::new("promtool").args(["test", "rules"]).arg(place.path("test.yml")), b"");
    assert_exit(&tested, 0);
}

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
