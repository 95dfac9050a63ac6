//! The live display on a real terminal, and what shares it.

use std::process::Stdio;

use serde_json::Value;

use tidemill_harness::{Place, Process, assert_exit, finish, lines, printed, python_command, wait_for};

/// Plays from a file, and others from a cluster that nobody runs: it is waited for, and a warning says so.
fn waiting(place: &Place) {
    place.plays("");
    place.write("data/first", lines(0..1_000));
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let source = "[sources.topic]\nkind = \"kafka\"\ncluster = \"main\"\ntopics = [\"plays\"]\n[stages.parse]";
    let text = text.replace("[stages.parse]", source).replace("from = [\"lines\"]", "from = [\"lines\", \"topic\"]");
    place.write("plays.toml", text);
}

/// Nothing listens there.
const NOBODY: &str = "kafka.main.bootstrap_servers=127.0.0.1:1";

/// Runs in a terminal until it has shown a text for a while, then until Ctrl-C was obeyed. All lines that were shown.
fn shown(place: &Place, (columns, rows): (usize, usize), text: &str, more: &[&str]) -> Vec<String> {
    let mut command = python_command("terminal.py");
    command.args([
        &columns.to_string(),
        &rows.to_string(),
        text,
        "--",
        env!("CARGO_BIN_EXE_tidemill"),
        "run",
        "plays.toml",
    ]);
    command.args(["--set", "admin.listen=", "--set", NOBODY]).args(more).current_dir(place.path(""));
    let output = finish(&mut command);
    assert_exit(&output, 0);
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let lines: Vec<String> = serde_json::from_value(seen["lines"].clone()).expect("lines");
    assert_eq!(seen["exit"], 0, "{lines:#?}");
    lines
}

#[test]
fn the_table_and_the_log_leave_each_other_whole_however_narrow_the_terminal_is() {
    for columns in [80, 50, 200] {
        let place = Place::new();
        waiting(&place);
        let shown = shown(&place, (columns, 24), "    waits: cluster `main` does not answer: 127", &[]);
        let count = |begin: &str| shown.iter().filter(|line| line.starts_with(begin)).count();
        // Whatever was drawn over itself is there once.
        for begin in
            ["  stage  ", "  lines  ", "  topic  ", "    waits: cluster", "  parse  ", "  dedup  ", "  files  "]
        {
            assert_eq!(count(begin), 1, "{columns} {begin:?}: {shown:#?}");
        }
        let at = shown.iter().position(|line| line.starts_with("  stage  ")).expect("a table");
        assert!(shown[at - 1].starts_with("plays  1,000 events"), "{shown:#?}");
        assert!(shown[at + 3].starts_with("    waits: cluster"), "below its source: {shown:#?}");
        let above = shown[..at - 1].concat();
        let warned = above.matches("WARN").count();
        assert!(warned >= 1 && above.contains("waiting: cluster"), "the warning stays: {shown:#?}");
        assert_eq!(shown.concat().matches("WARN").count(), warned, "and nothing is logged into the table: {shown:#?}");
        if columns == 80 {
            for head in ["in/s", "duplicates", "waiting", "busy", "again"] {
                assert!(shown[at].contains(head), "{head}: {shown:#?}");
            }
        }
    }
}

#[test]
fn what_of_the_table_has_no_room_in_a_low_terminal_is_left_off() {
    let place = Place::new();
    waiting(&place);
    let shown = shown(&place, (80, 5), "  topic  ", &[]);
    let count = |begin: &str| shown.iter().filter(|line| line.starts_with(begin)).count();
    assert_eq!((count("  stage  "), count("  topic  "), count("  parse  ")), (1, 1, 0), "{shown:#?}");
}

#[test]
fn there_is_no_table_in_a_terminal_that_a_console_writes_to() {
    let place = Place::new();
    place.plays("");
    place.write("data/first", lines(0..50));
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", format!("{text}\n[sinks.look]\nkind = \"console\"\nfrom = [\"dedup\"]\n"));
    let shown = shown(&place, (80, 24), "never", &["--until-end"]);
    let count = |begin: &str| shown.iter().filter(|line| line.starts_with(begin)).count();
    assert_eq!((count("{\"id\":\"id0000"), count("  stage  ")), (50, 0), "{shown:#?}");
}

#[test]
fn status_says_what_a_source_waits_for() {
    let place = Place::new();
    waiting(&place);
    let args = ["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0", "--set", NOBODY];
    let mut command = place.command(&args);
    let child = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("the reason", || {
        let text = printed(&place.tidemill(&["status", "plays"]));
        let source = text.lines().position(|line| line.starts_with("  topic "))?;
        text.lines().nth(source + 1)?.starts_with("    waits: cluster").then_some(())
    });
    child.stop();
}
