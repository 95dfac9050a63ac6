//! `tidemill hours`: what is told of hours that are sealed, revised, open, overdue and missing.

use serde_json::Value;

use tidemill_harness::{HOUR, Place, assert_exit, manifests, printed, python, root, wait_for};

const MINUTE: i64 = 60_000;

/// Minutes for hours, revisions for late events, and a file that holds the watermark until more comes.
fn place() -> Place {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let limits = "allowed_lateness = \"0ms\"\nbucket = \"1m\"\nlate = \"revise\"\nlate_delay = \"100ms\"";
    let text = text.replace("allowed_lateness = \"30d\"", limits);
    let text = text.replace("rescan = \"50ms\"", "rescan = \"50ms\"\nidle_timeout = \"1d\"");
    place.write("plays.toml", text.replace("id = [\"id\"]", "id = [\"id\"]\nowner = \"team-play\""));
    place.write("data/first", format!("one\t{HOUR}\t\ntwo\t{}\t\nthree\t{}\t\n", HOUR + 2 * MINUTE, HOUR + 3 * MINUTE));
    place
}

fn hours(place: &Place, more: &[&str]) -> Value {
    let output = place.tidemill(&[&["hours", "--json"], more].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)))
}

/// State and events of the hours of the type `play`.
fn states(report: &Value) -> Vec<(String, u64)> {
    let row = report["types"].as_array().expect("types").iter().find(|row| row["event_type"] == "play");
    let hours = row.and_then(|row| row["hours"].as_array()).into_iter().flatten();
    hours
        .map(|hour| (hour["state"].as_str().unwrap_or_default().to_owned(), hour["events"].as_u64().unwrap_or(0)))
        .collect()
}

fn state(name: &str, events: u64) -> (String, u64) {
    (name.to_owned(), events)
}

#[test]
fn sealed_empty_and_overdue_hours_are_told_apart_and_what_an_open_one_waits_for() {
    let place = place();
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    wait_for("the output root", || place.out().join(".tidemill-published").exists().then_some(()));
    let wanted = [state("sealed", 1), state("empty", 0), state("sealed", 1), state("overdue", 0)];
    wait_for("all hours", || (states(&hours(&place, &[])) == wanted).then_some(()));
    place.append("data/first", &format!("late\t{}\t\n", HOUR + 1));
    let wanted = [state("revised", 2), state("empty", 0), state("sealed", 1), state("overdue", 0)];
    let report = wait_for("the revision", || Some(hours(&place, &[])).filter(|report| states(report) == wanted));
    assert_eq!((&report["is_running"], &report["topology"]), (&true.into(), &"plays".into()));
    let play =
        report["types"].as_array().expect("types").iter().find(|row| row["event_type"] == "play").expect("plays");
    assert_eq!((&play["held_by"], &play["owner"]), (&"lines/data/first".into(), &"team-play".into()));
    assert_eq!(play["hours"][0]["late"], 1);

    let grid = place.tidemill(&["hours"]);
    assert_exit(&grid, 0);
    let grid = String::from_utf8(grid.stdout).expect("text");
    assert!(grid.contains("play  + 0 # !\n"), "{grid}");
    assert!(
        grid.contains("waits for lines/data/first") && grid.contains("1 late events in further revisions"),
        "{grid}"
    );
    let show = |start_ms: i64| {
        let shown = place.tidemill(&["hours", "show", "play", &tidemill_core::format_time_ms(start_ms)]);
        assert_exit(&shown, 0);
        String::from_utf8(shown.stdout).expect("text")
    };
    let revised = show(HOUR);
    assert!(revised.contains("all before   lines/data/first: "), "{revised}");
    assert!(
        revised.contains("revision 1") && revised.contains("late events, to be read beside the others"),
        "{revised}"
    );
    let open = show(HOUR + 3 * MINUTE);
    assert!(open.contains("waits for        lines/data/first") && open.contains("overdue by"), "{open}");
    child.stop();
    assert_eq!(hours(&place, &[])["is_running"], false);
    assert_eq!(states(&hours(&place, &[])), wanted, "the state is read without a process");
}

#[test]
fn an_hour_that_is_gone_is_missing_and_one_that_is_damaged_is_named() {
    let place = place();
    assert_exit(&place.run(&["plays.toml", "--until-end"]), 0);
    let path = |start_ms: i64| {
        let start = tidemill_core::format_time_ms(start_ms);
        let manifest = manifests(&place.out(), "play").into_iter().find(|manifest| manifest["hour"]["start"] == *start);
        place.out().join(manifest.expect("a manifest")["path"].as_str().expect("a path"))
    };
    let (middle, last) = (path(HOUR + 2 * MINUTE), path(HOUR + 3 * MINUTE));
    let moved = place.path("elsewhere");
    std::fs::rename(&middle, &moved).expect("it can be moved away");
    let missing = place.tidemill(&["hours"]);
    assert_exit(&missing, 1);
    let text = printed(&missing);
    assert!(text.contains("play  # 0 x #") && text.contains("1 hours are missing"), "{text}");
    std::fs::rename(&moved, &middle).expect("and back");
    assert_exit(&place.tidemill(&["hours"]), 0);
    std::fs::write(last.join("_manifest.json"), "{}").expect("damage");
    let damaged = place.tidemill(&["hours"]);
    assert_exit(&damaged, 1);
    assert!(printed(&damaged).contains("is damaged"), "{}", printed(&damaged));
}

#[test]
fn a_time_and_a_type_can_be_asked_for_and_mistakes_are_told() {
    let place = place();
    assert_exit(&place.run(&["plays.toml", "--until-end"]), 0);
    let [from, to] = [HOUR + MINUTE, HOUR + 3 * MINUTE].map(tidemill_core::format_time_ms);
    let report = hours(&place, &["--since", &from, "--until", &to, "--type", "play"]);
    assert_eq!(states(&report), [state("empty", 0), state("sealed", 1)]);
    let html = place.path("hours.html");
    assert_exit(&place.tidemill(&["hours", "--html", "hours.html", "--since", &from]), 0);
    let page = std::fs::read_to_string(html).expect("a page");
    assert!(page.contains("<td class=\"empty\"") && !page.contains("http"), "it needs nothing else");
    for (args, code, words) in [
        (&["hours", "--set", "output.root=data"][..], 69, "not an output root"),
        (&["hours", "--since", &to, "--until", &from], 64, "has to be the earlier"),
        (&["hours", "--since", "2020-01-01T00:00:00Z"], 64, "too many to be shown"),
        (&["hours", "show", "plya", &from], 69, "nothing is known of a type `plya`"),
        (&["hours", "show", "play", "2023-11-14T23:00:30Z"], 64, "begins at 2023-11-14T23:00:00Z"),
        (&["hours", "show", "play", "noon"], 64, "`noon` is not the start of an hour"),
    ] {
        let output = place.tidemill(args);
        assert_exit(&output, code);
        assert!(printed(&output).contains(words), "{args:?}: {}", printed(&output));
    }
}

#[test]
fn the_examples_for_readers_find_what_is_there() {
    let place = place();
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    wait_for("the seal", || (!manifests(&place.out(), "play").is_empty()).then_some(()));
    place.append("data/first", &format!("late\t{}\t\n", HOUR + 1));
    let is_revision = |manifest: &Value| manifest["revision"] == 1;
    let revision = wait_for("the revision", || manifests(&place.out(), "play").into_iter().find(is_revision));
    child.stop();
    let hour = revision["path"].as_str().and_then(|path| path.strip_suffix("/rev=1")).expect("a revision");
    let page = root().join("docs/hours.md");
    let (out, hour) = (place.out().display().to_string(), place.out().join(hour).display().to_string());
    let ask = || -> Value {
        let told = python("hours_page.py", &[&page.display().to_string(), &out, &hour]);
        assert_exit(&told, 0);
        serde_json::from_slice(&told.stdout).expect("JSON")
    };
    let told = ask();
    let [all, first, none] = ["all", "first", "none"].map(|name| &told[name]);
    assert_eq!(
        (&all["code"], &all["said"][1], &first["said"][1], &none["code"]),
        (&0.into(), &2.into(), &1.into(), &75.into()),
        "{told}"
    );
    assert_eq!(all["said"][0].as_array().map(Vec::len), Some(2));
    let rows = told["table"].as_array().expect("rows");
    let start = tidemill_core::format_time_ms(HOUR);
    let is_hour = |row: &&Value| row[1].as_str().is_some_and(|hour| hour.get(14..16) == start.get(14..16));
    let row = rows.iter().find(is_hour);
    assert_eq!(row.map(|row| (&row[2], &row[3], &row[4])), Some((&"1".into(), &"2".into(), &"1".into())), "{told}");
    // Made once more, it is one file; who has pinned it reads the two.
    assert_eq!(all["said"][2], serde_json::json!([0, 1]));
    assert_exit(&place.tidemill(&["reprocess", "plays.toml", "--hour", &start]), 0);
    let now = ask();
    assert_eq!((&now["all"]["said"][1], &now["all"]["said"][2]), (&2.into(), &serde_json::json!([2, 2])), "{now}");
    assert_eq!((now["all"]["said"][0].as_array().map(Vec::len), &now["first"]), (Some(1), first));
    let row = now["table"].as_array().and_then(|rows| rows.iter().find(is_hour));
    assert_eq!(row.map(|row| (&row[2], &row[3], &row[4])), Some((&"2".into(), &"2".into(), &"None".into())), "{now}");
}

#[test]
fn a_sink_behind_a_pond_misses_nothing_while_its_hours_are_still_in_there() {
    let place = place();
    let again = "\n[sinks.again]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\npond = {}\npath = \"again/{year}-{month}-{day}T{hour}-{minute}\"\n";
    place.append("plays.toml", again);
    // The region behind the pond commits in the wake of the first one; what is published before it is missing nowhere.
    let child = place.follow(&["--set", "cut.interval=200ms"]);
    wait_for("the output root", || place.out().join(".tidemill-published").exists().then_some(()));
    for minute in 4..12 {
        place.append("data/first", &format!("at{minute}\t{}\t\n", HOUR + minute * MINUTE));
        let sealed = tidemill_core::format_time_ms(HOUR + (minute - 1) * MINUTE);
        wait_for("the next seal", || {
            let output = place.tidemill(&["hours", "--json"]);
            assert_exit(&output, 0);
            let report: Value = serde_json::from_slice(&output.stdout).ok()?;
            let rows = report["types"].as_array()?.iter().filter(|row| row["event_type"] == "play");
            let of_last = |row: &Value| {
                let hour = row["hours"].as_array()?.iter().find(|hour| hour["start"] == *sealed)?;
                (hour["state"] == "sealed").then_some(())
            };
            let both: Vec<_> = rows.filter_map(of_last).collect();
            (both.len() == 2).then_some(())
        });
    }
    child.stop();
}
