//! What Prometheus' own tool makes of metrics, alarms and objectives.

use std::process::{Command, Stdio};

use tidemill_harness::admin::{address, page};
use tidemill_harness::{HOUR, Place, Process, assert_exit, lines, printed, root, wait_for, with_input};
use tidemill_runtime::METRICS;

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..1_000) + &format!("later\t{}\tx\nbroken\n", HOUR + 40 * 86_400_000));
    let args =
        ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", "cut.interval=50ms"];
    let child = Process::start(place.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()));
    let admin = address(&place, "plays", &child);
    let body = wait_for("sealed hours and dead letters", || {
        let (_, body) = page(&admin, "/metrics")?;
        let is_there = |name: &str| body.lines().any(|line| line.starts_with(name));
        (is_there("tidemill_type_sealed_timestamp_seconds{") && is_there("tidemill_dead_letters_total{"))
            .then_some(body)
    });
    child.stop();
    let checked = with_input(Command::new("promtool").args(["check", "metrics"]), body.as_bytes());
    assert_exit(&checked, 0);
    assert!(checked.stdout.is_empty() && checked.stderr.is_empty(), "{}", printed(&checked));
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
    rules_do_what_is_expected("slo.yml", "slo_test.yml");
}

#[test]
fn alarms_fire_and_fall_silent() {
    rules_do_what_is_expected("alerts.yml", "alerts_test.yml");
}

fn rules_do_what_is_expected(rules: &str, test: &str) {
    let place = Place::new();
    for (from, to) in [(format!("deploy/{rules}"), rules), (format!("tests/data/{test}"), "test.yml")] {
        place.write(to, std::fs::read(root().join(from)).expect("a file of rules"));
    }
    let tested = with_input(Command::new("promtool").args(["test", "rules"]).arg(place.path("test.yml")), b"");
    assert_exit(&tested, 0);
}
