//! Tiers: stages of their own for what matters, and threads that give way.

use std::collections::BTreeMap;

use serde_json::Value;

use tidemill_harness::{HOUR, Place, assert_exit, finish, wait_for};

/// Types `play` (high) and `skip` (low), each with a pond, a `dedup` and files of its own.
fn tiers(place: &Place) {
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let (head, _) = text.split_once("[stages.dedup]").expect("a stage");
    let head = head.replace("type_from = { const = \"play\" }", "type_from = { column = 0 }");
    let head = head.replace("id = [\"id\"]", "id = [\"id\"]\ntier = \"high\"");
    let skip = "[types.skip]\nschema = \"play.avsc\"\ntime = \"at\"\nid = [\"id\"]\ntier = \"low\"\n";
    let of_tier = |tier: &str| {
        format!(
            "[stages.{tier}]\nkind = \"dedup\"\nfrom = [\"parse\"]\nwindow = \"30d\"\ntypes = [\"tier:{tier}\"]\npond = {{}}\n\
             [sinks.{tier}_files]\nkind = \"avro_files\"\nfrom = [\"{tier}\"]\n"
        )
    };
    place.write("plays.toml", format!("{head}{skip}{}{}", of_tier("high"), of_tier("low")));
    let line = |kind: &str, number: i64| format!("{kind}\t{kind}{number}\t{}\t\n", HOUR + number);
    place.write("data/a", (0..500).map(|number| line("play", number) + &line("skip", number)).collect::<String>());
}

/// How many threads of a process have each niceness, less that of its first thread (`proc(5)`, the 19th field of `stat`).
#[cfg(target_os = "linux")]
fn niceness(pid: u32) -> BTreeMap<i64, usize> {
    let of = |stat: String| -> Option<i64> { stat.rsplit_once(')')?.1.split_whitespace().nth(16)?.parse().ok() };
    let first = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(of).expect("the process");
    let mut found = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten() {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok().and_then(of);
        *found.entry(stat.unwrap_or(first) - first).or_default() += 1;
    }
    found
}

#[test]
fn regions_of_lower_tiers_give_way_and_every_tier_is_complete() {
    let place = Place::new();
    tiers(&place);
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let delivered = wait_for("both tiers in cuts", || {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let delivered: BTreeMap<String, Value> = (status["stages"].as_array()?.iter())
            .filter(|stage| stage["delivery"]["events"].as_u64().is_some_and(|events| events > 0))
            .map(|stage| (stage["name"].as_str().unwrap_or_default().to_owned(), stage["delivery"].clone()))
            .collect();
        (delivered.len() == 2 && delivered.values().all(|delivery| delivery["events"] == 500)).then_some(delivered)
    });
    assert_eq!(delivered.keys().collect::<Vec<_>>(), ["high_files", "low_files"]);
    let all_within = |delivery: &Value| delivery["within"].as_array().and_then(|within| within.last()?[1].as_u64());
    assert!(delivered.values().all(|delivery| all_within(delivery) == Some(500)), "{delivered:?}");
    #[cfg(target_os = "linux")]
    {
        // The region of dead letters is of the tier in between. The low one has threads that read, drop duplicates and write, and two or more that compress.
        let found = niceness(child.id());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 5, 10], "{found:?}");
        assert!(found[&10] >= 5, "{found:?}");
    }
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
    assert_eq!((place.published("play").len(), place.published("skip").len()), (500, 500));
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn without_tiers_nobody_gives_way() {
    let place = Place::new();
    tiers(&place);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let text = text.replace("tier = \"high\"", "").replace("tier = \"low\"", "");
    place.write("plays.toml", text.replace("[\"tier:high\"]", "[\"play\"]").replace("[\"tier:low\"]", "[\"skip\"]"));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let status = || place.tidemill(&["status", "plays", "--json"]);
    wait_for("the process", || status().status.success().then_some(()));
    #[cfg(target_os = "linux")]
    assert_eq!(niceness(child.id()).keys().copied().collect::<Vec<_>>(), [0]);
    child.stop();
}
