//! Runs without an end: files that grow, signals, restarts, and what can be seen of a run from outside.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use tidemill_runtime::{METRICS, MetricKind, MetricSpec};

use tidemill_harness::admin::{address, page, served_metrics};
use tidemill_harness::{HOUR, Place, Process, assert_each_once, assert_exit, finish, lines, printed, wait_for};

/// Waits until so many records in all have come to the sink.
fn wait_for_rows(address: &str, rows: u64) {
    wait_for("the rows", || {
        let status: Value = serde_json::from_str(&page(address, "/status")?.1).expect("the status is JSON");
        let sink = status["stages"].as_array()?.iter().find(|stage| stage["name"] == "files")?;
        (sink["tally"]["sent"].as_u64()? >= rows).then_some(())
    });
}

#[test]
fn growing_and_new_files_are_followed_and_a_restart_goes_on_where_the_last_cut_was() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..1_000));
    let child = place.follow(&[]);
    let admin = address(&place, "plays", &child);
    wait_for_rows(&admin, 1_000);
    place.append("data/first", &lines(1_000..2_000));
    place.write("data/second", lines(2_000..3_000));
    wait_for_rows(&admin, 3_000);
    // A line without its line feed waits.
    place.append("data/first", lines(3_000..3_001).trim_end());
    child.stop();
    assert_eq!(place.published("play").len(), 0, "an open hour stays open");

    place.append("data/first", "\n");
    place.append("data/second", &lines(3_001..4_000));
    place.write("data/third", lines(4_000..5_000));
    let child = place.follow(&[]);
    let admin = address(&place, "plays", &child);
    wait_for_rows(&admin, 5_000);
    place.write("data/fourth", lines(5_000..6_000));
    wait_for_rows(&admin, 6_000);
    child.stop();

    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_each_once(&place.published("play"), 0..6_000);
    assert_eq!(place.published("_dead_letters").len(), 0);
    assert_eq!(place.verified_rows(), 6_000);
}

#[test]
fn an_interrupt_drains_as_a_termination_does() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..50_000));
    let child = place.follow(&[]);
    address(&place, "plays", &child);
    child.signal(Signal::INT);
    assert_exit(&child.end(), 0);
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_each_once(&place.published("play"), 0..50_000);
}

#[test]
fn a_second_signal_stops_at_once_and_nothing_is_lost() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..50_000));
    // With no room for the ids of `dedup` the drain is as slow as can be: it waits.
    let run = place.run_command(&["plays.toml"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    limited.current_dir(place.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Process::start(&mut limited);
    let mut stderr = child.take_stderr().expect("a pipe");
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&text).contains("nothing is lost") {
        let count = stderr.read(&mut buffer).expect("the log can be read");
        assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..count]);
    }
    child.signal(Signal::TERM);
    // Signals that come before the first is obeyed are one with it.
    let status = wait_for("the end", || {
        child.signal(Signal::TERM);
        child.status()
    });
    assert_eq!(status.code(), Some(75));
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_each_once(&place.published("play"), 0..50_000);
    assert_eq!(place.verified_rows(), 50_000);
}

#[test]
fn status_tells_of_a_running_and_of_a_stopped_topology() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..1_000));
    let status = |args: &[&str]| finish(place.command(&["status"]).args(args));
    let none = status(&[]);
    assert_exit(&none, 69);
    assert!(printed(&none).contains("no state"), "{}", printed(&none));
    let child = place.follow(&[]);
    wait_for_rows(&address(&place, "plays", &child), 1_000);
    for args in [&[][..], &["plays"]] {
        let running = status(args);
        assert_exit(&running, 0);
        let text = printed(&running);
        assert!(text.contains("plays") && text.contains("dedup") && text.contains("1,000"), "{text}");
    }
    let json = status(&["plays", "--json"]);
    assert_exit(&json, 0);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["topology"], &json["pid"]), (&"plays".into(), &child.id().into()));
    let other = status(&["other"]);
    assert_exit(&other, 69);
    assert!(printed(&other).contains("`other`"), "{}", printed(&other));
    child.stop();
    let stopped = status(&["plays"]);
    assert_exit(&stopped, 69);
    assert!(printed(&stopped).contains("not running; its last cut is"), "{}", printed(&stopped));
}

#[test]
fn an_address_in_use_is_unavailable_and_says_which() {
    let place = Place::new();
    place.plays("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let run =
        finish(&mut place.command(&["run", "plays.toml", "--until-end", "--set", &format!("admin.listen={address}")]));
    assert_exit(&run, 69);
    assert!(printed(&run).contains(&address) && printed(&run).contains("admin.listen"), "{}", printed(&run));
}

#[test]
fn every_metric_is_in_the_catalogue_and_every_one_of_the_catalogue_is_served() {
    let place = Place::new();
    place.plays("");
    // An event so much later that the first hour is sealed, and a dead letter.
    place.write("data/first", lines(0..1_000) + &format!("later\t{}\tx\nbroken\n", HOUR + 40 * 86_400_000));
    let child = place.follow(&["--set", "cut.interval=50ms"]);
    let admin = address(&place, "plays", &child);
    wait_for("the process to be ready", || page(&admin, "/ready").filter(|(head, _)| head.contains("200")));
    assert_eq!(page(&admin, "/live").map(|(_, body)| body).as_deref(), Some("live\n"));
    assert!(page(&admin, "/nothing").is_some_and(|(head, _)| head.contains("404")));
    wait_for_rows(&admin, 1_001);
    // How far files are behind their end is not known before they are read; `tests/kafka/source.rs` sees these two.
    let only_of_kafka = ["tidemill_partition_lag_events", "tidemill_partition_lag_seconds"];
    let expected: BTreeSet<String> =
        METRICS.iter().map(|spec| spec.name.to_owned()).filter(|name| !only_of_kafka.contains(&&**name)).collect();
    let body = wait_for("all metrics", || {
        let (_, body) = page(&admin, "/metrics")?;
        served_metrics(&body).is_superset(&expected).then_some(body)
    });
    assert_eq!(served_metrics(&body), expected);
    for line in body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, rest) = line.split_once('{').expect("every metric has labels");
        // A histogram has several series.
        let is_it = |spec: &&MetricSpec| {
            spec.name == name || (spec.kind == MetricKind::Histogram && name.starts_with(spec.name))
        };
        let spec = METRICS.iter().find(is_it).expect("it is in the catalogue");
        let labels: Vec<&str> = rest.split("=\"").filter_map(|part| part.rsplit([',', '"', '{']).next()).collect();
        for label in spec.labels.iter().chain(&["topology"]) {
            assert!(labels.contains(label), "{line} lacks {label}");
        }
    }
    child.stop();
}
