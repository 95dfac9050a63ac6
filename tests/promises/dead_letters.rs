//! `tidemill dead-letters`: what became a dead letter is counted and shown, and what can't be read is named.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tidemill_runtime::RunConfig;

use tidemill_harness::inside::until;
use tidemill_harness::{HOUR, Place, Process, Usage, assert_exit, finish, json_lines, lines, printed};

const RUN: [&str; 2] = ["plays.toml", "--until-end"];

/// Two runs: one with lines that can't be parsed, one with lines for an hour that the first has sealed.
fn place() -> Place {
    let place = Place::new();
    place.plays("");
    let broken = format!("broken\nno time\tnoon\tx\nbytes\t{HOUR}\t\u{e9}");
    place.write("data/first", [lines(0..10).as_bytes(), broken.as_bytes(), b"\xff\xfe\nworse\n"].concat());
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    place.write("data/second", format!("late1\t{HOUR}\tx\nlate2\t{HOUR}\ty\n"));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    place
}

/// Runs `dead-letters` and checks its exit code; returns standard output and error.
#[track_caller]
fn ask(place: &Place, args: &[&str], code: i32) -> (String, String) {
    let output = finish(place.command(&["dead-letters"]).args(args));
    assert_exit(&output, code);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[track_caller]
fn show(place: &Place, more: &[&str]) -> Vec<Value> {
    let (out, error) = ask(place, &[&["show", "out"], more].concat(), 0);
    assert_eq!(error, "");
    json_lines(out.as_bytes())
}

/// Stage, reason, type and number.
type Group = (String, String, Option<String>, u64);

/// The groups that `list` prints.
#[track_caller]
fn groups(place: &Place, more: &[&str]) -> BTreeSet<Group> {
    let (out, _) = ask(place, &[&["list", "out", "--json"], more].concat(), 0);
    let groups: Vec<Value> = serde_json::from_str(&out).expect("a JSON array");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let group = |group: &Value| {
        assert_eq!(group["source"], "lines");
        let count = group["count"].as_u64().expect("a number");
        (text(&group["stage"]), text(&group["reason"]), group["event_type"].as_str().map(str::to_owned), count)
    };
    groups.iter().map(group).collect()
}

fn group(stage: &str, reason: &str, event_type: Option<&str>, count: u64) -> Group {
    (stage.into(), reason.into(), event_type.map(str::to_owned), count)
}

/// Files of dead letters: those of the first run, and those of the second, whose hour is the later one.
fn files(place: &Place) -> Vec<PathBuf> {
    let mut open = vec![place.path("out/_dead_letters")];
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ending| ending == "avro") {
            files.push(path);
        }
    }
    files.sort();
    assert_eq!(files.len(), 2, "an hour for each run");
    files
}

#[test]
fn list_counts_by_stage_reason_type_and_source_and_narrows() {
    let place = place();
    let (malformed, bad, late) = (
        group("parse", "malformed", Some("play"), 2),
        group("parse", "bad_value", Some("play"), 2),
        group("dedup", "late", Some("play"), 2),
    );
    assert_eq!(groups(&place, &[]), BTreeSet::from([malformed.clone(), bad.clone(), late.clone()]));
    assert_eq!(groups(&place, &["--stage", "parse"]), BTreeSet::from([malformed.clone(), bad.clone()]));
    assert_eq!(groups(&place, &["--reason", "malformed"]), BTreeSet::from([malformed.clone()]));
    assert_eq!(groups(&place, &["--type", "play", "--reason", "late"]), BTreeSet::from([late.clone()]));
    assert_eq!(groups(&place, &["--type", "other"]), BTreeSet::new());
    assert_eq!(groups(&place, &["--since", "24h"]).len(), 3);
    assert_eq!(groups(&place, &["--until", "24h"]).len(), 0);

    let (out, _) = ask(&place, &["list", "out", "--json", "--reason", "late"], 0);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    let letters = show(&place, &["--reason", "late"]);
    let mut times: Vec<&str> = letters.iter().map(|letter| letter["arrived_at"].as_str().expect("a time")).collect();
    times.sort_unstable();
    assert_eq!((&said[0]["first_arrived_at"], &said[0]["last_arrived_at"]), (&json!(times[0]), &json!(times[1])));
    // From the first moment on, and before the second one.
    assert_eq!(groups(&place, &["--since", times[0]]), BTreeSet::from([late]));
    assert_eq!(groups(&place, &["--until", times[0]]), BTreeSet::from([malformed, bad]));
    let (_, error) = ask(&place, &["list", "out", "--since", "1h", "--until", "2h"], 64);
    assert!(error.contains("--since") && error.contains("--until"), "{error}");
    let (_, error) = ask(&place, &["list", "out", "--since", "yesterday"], 64);
    assert!(error.contains("24h") || error.contains("1h"), "{error}");

    let (table, _) = ask(&place, &["list", "out"], 0);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["letters", "stage", "reason", "type", "source", "first", "last"]);
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows.iter().any(|row| row[..5] == ["2", "dedup", "late", "play", "lines"]), "{table}");
}

#[test]
fn show_prints_letters_of_the_newest_files_first_with_payloads_as_text_or_hex() {
    let place = place();
    let letters = show(&place, &[]);
    let reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().expect("a reason")).collect();
    assert_eq!(reasons[..2], ["late", "late"]);
    assert_eq!(letters.len(), 6);
    assert_eq!(show(&place, &["--limit", "3"]), letters[..3]);
    assert_eq!(show(&place, &["--stage", "parse", "--limit", "1"]), letters[2..3]);
    let of = |start: &str| {
        let found = letters.iter().find(|letter| letter["payload"].as_str().expect("text").starts_with(start));
        found.unwrap_or_else(|| panic!("{start} is not in {letters:?}")).clone()
    };
    let broken = of("broken");
    let position = lines(0..10).len();
    assert!(broken["partition"].as_str().is_some_and(|name| name.ends_with("data/first")), "{broken}");
    let expected = json!({
        "arrived_at": broken["arrived_at"], "stage": "parse", "reason": "malformed", "event_type": "play",
        "source": "lines", "partition": broken["partition"], "position": position, "message": broken["message"],
        "payload": "broken", "payload_encoding": "utf-8", "payload_length": 6,
    });
    assert_eq!(broken, expected);
    assert!(broken["message"].as_str().is_some_and(|message| message.contains("column")), "{broken}");
    // "bytes", a tab.
    let bytes = of("627974657309");
    assert_eq!((&bytes["payload_encoding"], &bytes["reason"]), (&json!("hex"), &json!("bad_value")));
    assert!(bytes["payload"].as_str().is_some_and(|hex| hex.ends_with("09c3a9fffe")), "{bytes}");
}

#[test]
fn a_damaged_file_is_named_and_the_others_are_read() {
    let place = place();
    let first = &files(&place)[0];
    let whole = std::fs::read(first).expect("the file");
    // Without its last bytes, without all of its blocks, without any sense.
    let header = {
        let marker = &whole[whole.len() - 16..];
        whole.windows(16).position(|bytes| bytes == marker).expect("the header ends in the marker") + 16
    };
    for (bytes, words) in
        [(&whole[..whole.len() - 5], "record 0"), (&whole[..header], "0 letters"), (&b"text"[..], "Avro")]
    {
        std::fs::write(first, bytes).expect("damaged");
        for command in ["list", "show"] {
            let (out, error) = ask(&place, &[command, "out"], 1);
            assert!(out.contains("late"), "{command}: {out}");
            let name = first.strip_prefix(place.path("")).expect("below the place");
            assert!(error.contains(name.to_str().unwrap()) && error.contains(words), "{command}, {words}: {error}");
            assert!(error.contains("letters are missing"), "{error}");
        }
    }
    std::fs::remove_file(first).expect("removed");
    let (_, error) = ask(&place, &["list", "out"], 1);
    assert!(error.contains("No such file"), "{error}");
    std::fs::write(first, &whole).expect("mended");
    assert_eq!(groups(&place, &[]).len(), 3);

    let manifest = first.with_file_name("_manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("the manifest");
    std::fs::write(&manifest, text.replace("dead_letter", "live_letter")).expect("damaged");
    let (out, error) = ask(&place, &["list", "out"], 1);
    assert!(out.contains("late") && !out.contains("malformed"), "{out}");
    assert!(error.contains("_manifest.json") && error.contains("its hour is left out"), "{error}");
}

#[test]
fn an_hour_that_is_not_sealed_is_not_read() {
    let place = place();
    std::fs::remove_file(files(&place)[0].with_file_name("_SUCCESS")).expect("removed");
    assert_eq!(groups(&place, &[]), BTreeSet::from([group("dedup", "late", Some("play"), 2)]));
    for help in [["list", "--help"], ["show", "--help"]] {
        let (text, _) = ask(&place, &help, 0);
        assert!(text.contains("not sealed"), "{text}");
    }
}

#[test]
fn where_no_dead_letters_are_is_told() {
    let place = Place::new();
    let (_, error) = ask(&place, &["list", "none"], 69);
    assert!(error.contains("none") && error.contains("No such file"), "{error}");
    place.write("empty/nothing", "");
    let (_, error) = ask(&place, &["show", "empty"], 69);
    assert!(error.contains("empty/_dead_letters") && error.contains("output.root"), "{error}");
    // All is well: no letters is no fault.
    place.plays("");
    place.write("data/plays", lines(0..10));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    let (out, error) = ask(&place, &["list", "out"], 0);
    assert!(out == "no dead letters\n" && error.contains("--directory"), "{out}{error}");
    let (out, _) = ask(&place, &["list", "out", "--json"], 0);
    assert_eq!(out, "[]\n");
    let (_, error) = ask(&place, &["list", "out", "--directory", "elsewhere"], 69);
    assert!(error.contains("out/elsewhere"), "{error}");
    let (_, error) = ask(&place, &["list", "out", "--directory", "play"], 69);
    assert!(error.contains("out/play") && error.contains("`play`"), "{error}");
}

#[test]
fn letters_in_another_directory_are_read_from_there() {
    let place = Place::new();
    let topology = place.plays("");
    let text = std::fs::read_to_string(&topology).expect("the topology");
    let sink = "[sinks.dead_letters]\nkind = \"avro_files\"\nfrom = [\"parse.dead_letters\"]\n\
                path = \"dead/{reason}/{hour}-{day}-{month}-{year}\"\n";
    place.write("plays.toml", text + sink);
    place.write("data/plays", format!("broken\nno time\tnoon\tx\n{}", lines(0..10)));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    let found = groups(&place, &["--directory", "dead"]);
    assert_eq!(
        found,
        BTreeSet::from([group("parse", "malformed", Some("play"), 1), group("parse", "bad_value", Some("play"), 1)])
    );
}

#[test]
fn show_holds_little_of_much() {
    const LETTERS: usize = 120;
    let place = Place::new();
    place.plays("");
    let mut file = std::io::BufWriter::new(std::fs::File::create(place.path("data/long")).expect("a file"));
    for _ in 0..LETTERS {
        file.write_all(&vec![b'a'; (1 << 20) + 10]).and_then(|()| file.write_all(b"\n")).expect("written");
    }
    drop(file);
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    let mut command = place.command(&["dead-letters", "show", "out"]);
    let Usage { status, peak_kib: peak, .. } = Process::start(command.stdout(Stdio::null())).measure();
    assert_eq!(status.code(), Some(0));
    println!("peak memory {} MiB for {LETTERS} MiB of letters", peak >> 10);
    assert!(peak > 0 && peak < 60 << 10, "peak memory {} MiB", peak >> 10);
    // Who has seen enough may go.
    let head = std::process::Command::new("sh")
        .args(["-c", &format!("{} dead-letters show out | head -c 10", tidemill_harness::program().display())])
        .current_dir(place.path(""))
        .output()
        .expect("a shell runs");
    assert_eq!((head.stdout.len(), head.stderr.len()), (10, 0), "{}", printed(&head));
}

#[test]
fn a_stage_that_makes_too_many_is_paused_before_everything_is_put_aside_and_goes_on_when_that_is_allowed() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let text = text.replace("rescan =", "read_size = \"4KiB\"\nrescan =");
    place.write("without.toml", &text);
    place.write("plays.toml", text.replace("[types.play]", "max_dead_in_a_row = 1_000\n[types.play]"));
    place.write("data/first", [lines(0..500), "nothing\n".repeat(20_000), lines(500..600)].concat());
    let registry = tidemill::registry();
    let parse = |status: &tidemill_runtime::Status| {
        status.stages.iter().find(|stage| stage.name == "parse").cloned().expect("the stage")
    };
    // What is on its way is no more than a part of it all, however late the pause.
    let config = RunConfig { lane_bytes: 1 << 14, replay_bytes: 1 << 16, ..place.config(false) };
    let (_, status) = place
        .run_inside("plays.toml", &registry, config, async |handle| {
            until(handle, |status| parse(status).waits_for.is_some()).await;
            let why = parse(&handle.status()).waits_for.expect("it is paused");
            assert!(why.contains("in a row became dead letters") && why.contains("1000"), "{why}");
            handle.stop();
        })
        .expect("a stop lets what is on its way come to its end");
    let dead = parse(&status).tally.dead;
    assert!(dead > 1_000 && dead < 20_000, "{dead} were put aside");
    // A run to the end is looked at by somebody.
    let run =
        place.run(&["plays.toml", "--until-end", "--set", "state.root=state-of-another", "--set", "output.root=out2"]);
    assert_exit(&run, 75);
    assert!(printed(&run).contains("max_dead_in_a_row"), "{}", printed(&run));
    let (ended, status) =
        place.run_inside("without.toml", &registry, place.config(true), async |_| {}).expect("it goes on");
    assert_eq!(ended, tidemill_runtime::Ended::Finished);
    assert_eq!((parse(&status).tally.dead, parse(&status).tally.sent), (20_000, 600), "nothing is lost or doubled");
}

#[test]
fn a_run_to_the_end_fails_on_dead_letters_when_it_is_asked_to() {
    let place = Place::new();
    place.plays("");
    let run = |more: &[&str]| finish(&mut place.run_command(&[&RUN[..], more].concat()));
    place.write("data/first", lines(0..10));
    assert_exit(&run(&["--fail-on-dead-letters"]), 0);
    place.write("data/second", "broken\n");
    let failed = run(&["--fail-on-dead-letters"]);
    assert_exit(&failed, 1);
    assert!(printed(&failed).contains("1 events became dead letters"), "{}", printed(&failed));
    assert_eq!(place.published("play").len(), 10, "all is sealed");
    place.write("data/third", "broken\n");
    assert_exit(&run(&[]), 0);
}
