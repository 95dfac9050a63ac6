//! Producers: hours wait for each of them, for its lease at most, and markers say what they have sent.

use std::collections::BTreeMap;

use serde_json::Value;

use tidemill_harness::flights::flights;
use tidemill_harness::{HOUR, Place, Process, assert_exit, finish, manifests, root, wait_for};

const MARK: &str = r#"{"type": "record", "name": "Mark", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "host", "type": "string"},
    {"name": "closes", "type": "boolean"}
]}"#;

/// Plays of several hosts in files, minutes for hours, and markers of theirs.
fn hosts(place: &Place, lease: &str) {
    place.plays("");
    place.write("mark.avsc", MARK);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let text = text
        .replace("allowed_lateness = \"30d\"", "allowed_lateness = \"0ms\"\nbucket = \"1m\"")
        .replace("rescan = \"50ms\"", "rescan = \"50ms\"\nidle_timeout = \"1d\"")
        .replace("[types.play]", &format!("[types.play]\nproducer = \"who\"\nlease = {lease:?}"))
        .replace("{ const = \"play\" }", "{ column = 0 }");
    let schema = std::fs::read_to_string(place.path("play.avsc")).expect("the schema");
    place.write("play.avsc", schema.replace("[\"null\", \"string\"]", "\"string\""));
    let marks = "[types.mark]\nschema = \"mark.avsc\"\ntime = \"at\"\nid = [\"host\", \"at\"]\nproducer = \"host\"\nmarks = [\"play\"]\nends = \"closes\"\n";
    place.write("plays.toml", text + marks);
}

fn play(id: &str, at_ms: i64, host: &str) -> String {
    format!("play\t{id}\t{at_ms}\t{host}\n")
}

fn mark(at_ms: i64, host: &str, closes: bool) -> String {
    format!("mark\t{at_ms}\t{host}\t{closes}\n")
}

/// Waits for the minute of plays that begins then.
#[track_caller]
fn sealed(place: &Place, start_ms: i64) -> Value {
    let start = tidemill_core::format_time_ms(start_ms);
    wait_for(&format!("the seal of {start}"), || {
        manifests(&place.out(), "play").into_iter().find(|manifest| manifest["hour"]["start"] == *start)
    })
}

fn status_of_plays(place: &Place) -> Option<Value> {
    let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
    status["types"].as_array()?.iter().find(|of| of["name"] == "play").cloned()
}

#[test]
fn a_producer_that_dies_holds_the_hour_for_its_lease_and_is_named() {
    let place = Place::new();
    hosts(&place, "2s");
    place.write("data/first", play("one", HOUR, "a") + &play("two", HOUR, "b") + &play("three", HOUR + 60_000, "a"));
    let child = place.follow(&[]);
    wait_for("the producer that is waited for", || {
        status_of_plays(&place).filter(|play| play["held_by"] == "producer b").map(drop)
    });
    let manifest = sealed(&place, HOUR);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"silent".into(), &2.into()), "{manifest}");
    assert_eq!(manifest["not_waited_for"], serde_json::json!({ "@producers/play": ["b"] }));
    // Who comes back is waited for again, from where it is.
    place.append(
        "data/first",
        &(play("four", HOUR + 60_001, "b") + &play("five", HOUR + 120_000, "a") + &play("six", HOUR + 120_000, "b")),
    );
    let manifest = sealed(&place, HOUR + 60_000);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"watermark".into(), &2.into()), "{manifest}");
    child.stop();
}

#[test]
fn markers_say_that_all_was_sent_or_that_nothing_more_is() {
    let place = Place::new();
    // Far longer than the test may take.
    hosts(&place, "1d");
    let first = play("one", HOUR, "a") + &play("two", HOUR, "b") + &play("three", HOUR, "c");
    place.write("data/first", first + &play("four", HOUR + 180_000, "a"));
    let child = place.follow(&[]);
    // One has nothing more for the first minute, one sends nothing more at all.
    place.write("data/marks", mark(HOUR + 60_000, "b", false) + &mark(HOUR + 1, "c", true));
    // The partition of the markers holds hours like any other.
    place.append("data/marks", &mark(HOUR + 180_000, "somebody", true));
    let manifest = sealed(&place, HOUR);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"watermark".into(), &3.into()), "{manifest}");
    assert_eq!(manifest["not_waited_for"], serde_json::json!({}));
    wait_for("the producer that is waited for", || {
        status_of_plays(&place).filter(|play| play["held_by"] == "producer b").map(drop)
    });
    child.stop();
    // Who was heard of is known to the next process, too.
    let child = place.follow(&[]);
    wait_for("the producer that is waited for", || {
        status_of_plays(&place).filter(|play| play["held_by"] == "producer b").map(drop)
    });
    place.append("data/marks", &mark(HOUR + 120_000, "b", true));
    sealed(&place, HOUR + 120_000);
    child.stop();
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn numbers_that_are_missing_are_told_by_producer_and_hour_and_found_when_they_come_late() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let late = "allowed_lateness = \"0ms\"\nbucket = \"1m\"\nlate = \"revise\"\nlate_delay = \"100ms\"";
    let text = text
        .replace("allowed_lateness = \"30d\"", late)
        .replace("rescan = \"50ms\"", "rescan = \"50ms\"\nidle_timeout = \"1d\"")
        .replace("[types.play]", "[types.play]\nproducer = \"who\"\nsequence = \"seq\"\nlease = \"1s\"")
        .replace("from = [\"dedup\"]", "from = [\"accounts\"]");
    let more = "[stages.accounts]\nkind = \"accounts\"\nfrom = [\"dedup\"]\n[sinks.again]\nkind = \"avro_files\"\nfrom = [\"accounts\"]\npond = {}\npath = \"again/{year}-{month}-{day}T{hour}-{minute}\"\n";
    place.write("plays.toml", text + more);
    let schema = std::fs::read_to_string(place.path("play.avsc")).expect("the schema");
    let with_seq = "\"string\"}, {\"name\": \"seq\", \"type\": \"long\"}";
    place.write("play.avsc", schema.replace("[\"null\", \"string\"]}", with_seq));
    let line = |host: &str, number: i64, minute: i64| {
        format!("{host}{number}\t{}\t{host}\t{number}\n", HOUR + minute * 60_000 + number)
    };
    // Numbers 3 and 4 of `a` are lost in the first minute, and 9 in the second; `b` has lost nothing.
    let of_a =
        [(1, 0), (2, 0), (5, 0), (6, 0), (8, 1), (10, 1), (11, 2)].map(|(number, minute)| line("a", number, minute));
    let of_b = [(70, 0), (71, 1), (72, 2)].map(|(number, minute)| line("b", number, minute));
    place.write("data/first", [of_a.concat(), line("a", 7, 0), of_b.concat()].concat());
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let first = sealed(&place, HOUR);
    let expected = serde_json::json!({
        "count": 2, "missing": 2, "unknown": 0, "found": 0,
        "accounts": { "a": { "events": 5, "missing": 2, "unknown": 0, "found": 0 }, "b": { "events": 1, "missing": 0, "unknown": 0, "found": 0 } },
    });
    assert_eq!(first["producers"], expected, "{first:#}");
    assert_eq!(sealed(&place, HOUR + 60_000)["producers"]["accounts"]["a"]["missing"], 1);
    let missing = status_of_plays(&place).map(|play| play["missing_events"].clone());
    assert_eq!(missing, Some(3.into()));
    // One of them was only late.
    place.append("data/first", &line("a", 4, 0));
    for below in ["play", "again"] {
        let late = wait_for("the revision", || {
            manifests(&place.out(), below).into_iter().find(|manifest| manifest["revision"] == 1)
        });
        assert_eq!(
            late["producers"]["accounts"],
            serde_json::json!({ "a": { "events": 1, "missing": 0, "unknown": 0, "found": 1 } })
        );
    }
    child.stop();
    let said = place.tidemill(&["producers", "--hour", "2023-11-14T23:00"]);
    assert_exit(&said, 0);
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: Vec<String> = said.lines().map(words).collect();
    assert_eq!(said[1], "play 2023-11-14T23:00:00Z 0 a 5 2 0 0", "{said:#?}");
    assert_eq!(said[2], "play 2023-11-14T23:00:00Z 1 a 1 0 0 1", "{said:#?}");
    assert_exit(&place.tidemill(&["audit"]), 0);
}

/// A day of departures as carriers would send them, by the hour of the time that each says. `AA` has a clock that is an hour ahead.
fn departures(place: &Place) -> Vec<(String, String, u32)> {
    let text = std::fs::read_to_string(flights(place)).expect("the flights");
    let of_day = text.lines().filter(|line| line.starts_with("2013-07-10T"));
    let told = of_day.map(|line| {
        let carrier = line.split('\t').nth(2).expect("a carrier").to_owned();
        let hour: u32 = line[11..13].parse().expect("an hour");
        let ahead = u32::from(carrier == "AA");
        let day = if hour + ahead < 24 { "2013-07-10" } else { "2013-07-11" };
        (carrier, format!("{day}T{:02}{}\n", (hour + ahead) % 24, &line[13..]), hour)
    });
    told.collect()
}

#[test]
fn a_carrier_dies_in_the_middle_of_the_day_and_anothers_clock_is_an_hour_ahead() {
    let place = Place::new();
    let all = departures(&place);
    let schema = root().join("topologies/schemas/flight.avsc");
    place.write(
        "day.toml",
        format!(
            r#"
            [topology]
            name = "plays"
            allowed_lateness = "0ms"
            late = "revise"
            late_delay = "100ms"
            [types.flight]
            schema = {schema:?}
            time = "scheduled_at"
            id = ["flight_id"]
            producer = "carrier"
            lease = "2s"
            [sources.lines]
            kind = "file"
            paths = ["data/*"]
            rescan = "50ms"
            idle_timeout = "1d"
            [stages.parse]
            kind = "tsv"
            from = ["lines"]
            type_from = {{ const = "flight" }}
            null = ["NA"]
            time = "iso8601"
            [stages.dedup]
            kind = "dedup"
            from = ["parse"]
            [sinks.files]
            kind = "avro_files"
            from = ["dedup"]
            "#
        ),
    );
    let lines = |is_wanted: &dyn Fn(&str, u32) -> bool| -> String {
        let wanted = all.iter().filter(|(carrier, _, hour)| is_wanted(carrier, *hour));
        wanted.map(|(_, line, _)| line.as_str()).collect()
    };
    let published = |hour: &str, revision: u64| {
        wait_for(&format!("revision {revision} of {hour}"), || {
            let is_it = |manifest: &Value| manifest["hour"]["start"] == *hour && manifest["revision"] == revision;
            manifests(&place.out(), "flight").into_iter().find(is_it)
        })
    };
    let names = |manifest: &Value| manifest["not_waited_for"]["@producers/flight"].clone();
    place.write("data/day", lines(&|_, hour| hour < 15));
    let mut run = place.run_command(&["day.toml", "--set", "cut.interval=20ms"]);
    let child = Process::start(run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()));
    published("2013-07-10T14:00:00Z", 0);
    // From now on nothing comes from Delta.
    place.append("data/day", &lines(&|carrier, hour| hour >= 15 && carrier != "DL"));
    let last = published("2013-07-10T23:00:00Z", 0);
    let delta = Value::from("DL");
    assert!(names(&last).as_array().is_some_and(|names| names.contains(&delta)), "{last:#}");
    let morning = published("2013-07-10T12:00:00Z", 0);
    assert!(names(&morning).as_array().is_none_or(|names| !names.contains(&delta)), "it had gone further: {morning:#}");
    // It comes back with what it had kept.
    place.append("data/day", &lines(&|carrier, hour| hour >= 15 && carrier == "DL"));
    published("2013-07-10T23:00:00Z", 1);
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["day.toml", "--until-end"])), 0);

    // Every flight is in the hour of the time that it says, and only Delta's were late: nobody's clock made those of others so.
    let (mut by_hour, mut late) = (BTreeMap::<String, u64>::new(), 0);
    for manifest in manifests(&place.out(), "flight") {
        let count = manifest["count"].as_u64().expect("a count");
        *by_hour.entry(manifest["hour"]["start"].as_str().expect("a time")[..13].to_owned()).or_default() += count;
        late += if manifest["revision"] == 0 { 0 } else { count };
    }
    by_hour.retain(|_, count| *count > 0);
    let mut expected = BTreeMap::<String, u64>::new();
    for (_, line, _) in &all {
        *expected.entry(line[..13].to_owned()).or_default() += 1;
    }
    assert_eq!(by_hour, expected);
    let delayed = all.iter().filter(|(carrier, _, hour)| carrier == "DL" && *hour >= 15).count();
    assert_eq!(late, delayed as u64);
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
}
