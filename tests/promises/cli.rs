//! The command line as other programs use it: exit codes, what is printed where, and what a second run does.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use tidemill_harness::{Place, assert_each_once, assert_exit, finish, json_lines, lines, printed, root};

const RUN: [&str; 2] = ["plays.toml", "--until-end"];

/// Runs a command and checks its exit code; returns standard output and error.
#[track_caller]
fn ask(place: &Place, args: &[&str], code: i32) -> (String, String) {
    let output = finish(&mut place.command(args));
    assert_exit(&output, code);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_are_no_errors_and_wrong_usage_is_64() {
    let place = Place::new();
    for args in [&["--help"][..], &["help"], &["run", "--help"], &["--version"]] {
        let (out, _) = ask(&place, args, 0);
        assert!(out.contains("tidemill"), "{out}");
    }
    let wrong: [&[&str]; 13] = [
        &[],
        &["rnu"],
        &["run", "--until"],
        &["run", "a.toml", "b.toml"],
        &["run", "--yes"],
        &["run", "--progress", "loud"],
        &["run", "--set", "novalue"],
        &["check"],
        &["verify"],
        &["cat"],
        &["generate", "--events", "ten", "--out", "x"],
        &["generate", "--events", "10", "--out", "x", "--duplicates", "0.95"],
        &["generate", "--events", "10", "--out", "x", "--disorder", "a while"],
    ];
    for args in wrong {
        let (_, error) = ask(&place, args, 64);
        assert!(!error.is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    place.write("empty/nothing", "");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["run", "none.toml", "--set", "admin.listen="], 78, "none.toml"),
        (&["check", "none.toml"], 78, "none.toml"),
        (&["graph", "none.toml"], 78, "none.toml"),
        (&["verify", "none"], 69, "none"),
        (&["cat", "none.avro"], 69, "none.avro"),
        (&["settings", "--settings", "none.toml"], 78, "none.toml"),
    ];
    for (args, code, name) in cases {
        let (_, error) = ask(&place, args, code);
        assert!(error.contains(name) && error.contains("No such file"), "{args:?}: {error}");
    }
    place.write("text.avro", "no Avro");
    let (_, error) = ask(&place, &["cat", "text.avro"], 1);
    assert!(error.contains("text.avro"), "{error}");
    let (_, error) = ask(&place, &["generate", "--events", "1", "--out", "text.avro/x"], 69);
    assert!(error.contains("text.avro/x"), "{error}");
}

#[test]
fn check_goes_on_behind_a_file_that_can_not_be_read_and_tells_all() {
    let place = Place::new();
    place.plays("");
    place.write("latin1.toml", b"[topology]\nname = \"\xe9\"\n");
    place.write("broken.toml", "[topology]\n");
    std::fs::create_dir(place.path("folder")).expect("a folder");
    let files = ["none.toml", "folder", "latin1.toml", "broken.toml", "plays.toml"];
    let codes = ["topology-unreadable", "topology-unreadable", "not-utf8", "missing-key"];
    let (out, error) = ask(&place, &[&["check"], &files[..]].concat(), 78);
    assert_eq!(out, "plays.toml: ok\n");
    let (json, _) = ask(&place, &[&["check", "--json"], &files[..]].concat(), 78);
    let found: Vec<Value> = serde_json::from_str(&json).expect("a JSON array");
    for (file, code) in files.iter().zip(codes) {
        assert!(error.contains(&format!("error[{code}]")) && error.contains(&format!("--> {file}")), "{file}: {error}");
        let told = found.iter().find(|found| found["file"] == *file && found["code"] == code);
        let told = told.unwrap_or_else(|| panic!("{code} of {file} is not in {json}"));
        assert!(told["help"].is_string() && told["severity"] == "error", "{told}");
    }
    let (json, _) = ask(&place, &["check", "--json", "plays.toml"], 0);
    assert_eq!(json, "[]\n");
}

#[test]
fn a_second_run_has_nothing_to_do_and_fresh_sets_the_first_aside() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..1_000));
    let run = |more: &[&str]| {
        let args = [
            "run",
            "plays.toml",
            "--until-end",
            "--progress",
            "plain",
            "--set",
            "admin.listen=",
            "--set",
            "log.level=warn",
        ];
        finish(place.command(&args).args(more))
    };
    let first = run(&[]);
    assert_exit(&first, 0);
    let text = printed(&first);
    for words in ["done", "1,000 events", "look at", "tidemill verify out"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let second = run(&[]);
    assert_exit(&second, 0);
    let text = printed(&second);
    assert!(text.contains("nothing new") && text.contains("--fresh"), "{text}");
    assert_each_once(&place.published("play"), 0..1_000);
    let asked = run(&["--fresh"]);
    assert_exit(&asked, 64);
    assert!(printed(&asked).contains("--yes"), "{}", printed(&asked));
    assert_each_once(&place.published("play"), 0..1_000);
    let fresh = run(&["--fresh", "--yes"]);
    assert_exit(&fresh, 0);
    let text = printed(&fresh);
    assert!(text.contains("set aside") && text.contains("out.aside-1") && text.contains("plays.aside-1"), "{text}");
    assert_each_once(&place.published("play"), 0..1_000);
    ask(&place, &["verify", "out"], 0);
    ask(&place, &["verify", "out.aside-1"], 0);
    // Nothing to set aside is no error.
    let elsewhere = run(&["--fresh", "--set", "state.root=new", "--set", "output.root=new-out"]);
    assert_exit(&elsewhere, 0);
}

#[test]
fn fresh_takes_an_output_root_that_is_written_with_a_slash() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..100));
    let run = |more: &[&str]| finish(place.run_command(&RUN).args(["--set", "output.root=out/"]).args(more));
    assert_exit(&run(&[]), 0);
    assert_exit(&run(&["--fresh", "--yes"]), 0);
    assert_each_once(&place.published("play"), 0..100);
    ask(&place, &["verify", "out.aside-1"], 0);
}

#[test]
fn settings_shows_what_is_known_to_be_harmless_of_a_cluster_and_nothing_else() {
    let place = Place::new();
    let shown = [
        "bootstrap_servers",
        "security_protocol",
        "sasl_mechanism",
        "sasl_mechanisms",
        "sasl_username",
        "client_id",
        "ssl_ca_location",
        "schema_registry_url",
    ];
    let hidden =
        ["sasl_password", "sasl.jaas.config", "schema_registry_basic_auth_user_info", "ssl_key_pem", "unknown"];
    let sets: Vec<String> = (shown.iter().map(|name| format!("kafka.main.{name}=shown")))
        .chain(hidden.iter().map(|name| format!("kafka.main.{name}=hunter2")))
        .collect();
    let mut args = vec!["settings"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    let (out, error) = ask(&place, &args, 0);
    assert!(!out.contains("hunter2") && error.is_empty(), "{out}{error}");
    assert_eq!((out.matches(" shown ").count(), out.matches("(set)").count()), (shown.len(), hidden.len()), "{out}");
    assert!(out.contains("--set kafka.main.sasl_password"), "{out}");
    let broken = "[kafka.main]\nsasl_password = \"hunter2\n";
    place.write("broken.toml", broken);
    let (_, error) = ask(&place, &["settings", "--settings", "broken.toml"], 78);
    assert!(error.contains("broken.toml") && error.contains("line 2") && !error.contains("hunter2"), "{error}");
}

#[test]
fn settings_names_the_layer_of_each_value_and_refuses_what_it_does_not_know() {
    let place = Place::new();
    place.write("one.toml", "[cut]\ninterval = \"2s\"\n[runtime]\nqueue = \"8MiB\"\n[log]\nlevel = \"debug\"\n");
    place.write("two.toml", "[runtime]\nqueue = \"4MiB\"\n");
    let args = ["settings", "--settings", "one.toml", "--settings", "two.toml", "--set", "admin.listen=127.0.0.1:1"];
    let output = finish(place.command(&args).env("TIDEMILL__LOG__LEVEL", "error").env("TIDEMILL__ADMIN__LISTEN", ""));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let line = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("state.root"), ".tidemill default");
    assert_eq!(line("cut.interval"), "2s one.toml");
    assert_eq!(line("runtime.queue"), "4MiB two.toml");
    assert_eq!(line("log.level"), "error TIDEMILL__ variables");
    assert_eq!(line("admin.listen"), "127.0.0.1:1 --set admin.listen");
    place.write("three.toml", "[output]\nrot = \"x\"\n");
    for (args, names) in [
        (["settings", "--settings", "three.toml"], ["three.toml", "output.rot"]),
        (["settings", "--set", "output.rot=x"], ["--set", "output.rot"]),
        (["settings", "--set", "cut.interval=soon"], ["cut.interval", "soon"]),
        (["settings", "--set", "log.format=xml"], ["xml", "json"]),
    ] {
        let (_, error) = ask(&place, &args, 78);
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    }
    let unknown = finish(place.command(&["settings"]).env("TIDEMILL__OUTPUT__ROT", "x"));
    assert_exit(&unknown, 78);
    assert!(printed(&unknown).contains("output.rot"), "{}", printed(&unknown));
}

#[test]
fn kinds_schema_and_graph_describe_what_there_is() {
    let place = Place::new();
    let (all, _) = ask(&place, &["kinds"], 0);
    let kinds =
        ["file", "generate", "tsv", "json", "avro", "dedup", "hourly", "filter", "avro_files", "console", "blackhole"];
    let (schema, _) = ask(&place, &["schema"], 0);
    let parsed: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    assert!(parsed["$schema"].is_string() && parsed["properties"]["topology"].is_object(), "{schema}");
    for kind in kinds {
        let (page, _) = ask(&place, &["kinds", kind], 0);
        assert!(
            page.contains(&format!("`{kind}`")) && all.contains(&page),
            "the page of {kind} is a part of all of them"
        );
        assert!(schema.contains(&format!("\"{kind}\"")), "{kind} is not in the schema");
    }
    for (wrong, meant) in [("dedupe", "`dedup`"), ("avro_fles", "`avro_files`"), ("quantum", "`blackhole`")] {
        let (_, error) = ask(&place, &["kinds", wrong], 64);
        assert!(error.contains(wrong) && error.contains(meant), "{error}");
    }
    let topology = root().join("topologies/flights.toml");
    let topology = topology.to_str().unwrap();
    let (mermaid, _) = ask(&place, &["graph", topology], 0);
    let (dot, _) = ask(&place, &["graph", topology, "--format", "dot"], 0);
    assert!(mermaid.contains("\nflowchart ") && dot.contains("digraph"), "{mermaid}{dot}");
    for name in ["departures", "parse", "dedup", "carriers", "flights", "carriers_files"] {
        assert!(mermaid.contains(name) && dot.contains(name), "{name} is not drawn");
    }
    ask(&place, &["graph", topology, "--format", "png"], 64);
}

#[test]
fn cat_prints_as_many_records_as_it_is_asked_for() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..100));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    let hour = "out/play/year=2023/month=11/day=14/hour=23/rev=0";
    let entries = std::fs::read_dir(place.path(hour)).expect("the hour").map(|entry| entry.expect("an entry").path());
    let file =
        entries.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "avro")).expect("a file");
    let file = file.to_str().unwrap();
    for (limit, expected) in [("0", 0), ("7", 7), ("1000", 100)] {
        let (out, _) = ask(&place, &["cat", file, "--limit", limit], 0);
        assert_eq!(json_lines(out.as_bytes()).len(), expected);
    }
    let (out, _) = ask(&place, &["cat", file, "--limit", "1"], 0);
    assert_eq!(out, "{\"id\":\"id000000\",\"at\":\"2023-11-14T23:00:00Z\",\"who\":\"w0\"}\n");
}

#[test]
fn generate_is_a_function_of_its_arguments_and_its_truth_is_that_of_the_lines() {
    let place = Place::new();
    let generate = |out: &str, seed: &str, more: &[&str]| {
        let args =
            ["generate", "--events", "20000", "--hours", "4", "--duplicates", "0.1", "--seed", seed, "--out", out];
        ask(&place, &[&args, more].concat(), 0);
        std::fs::read(place.path(out).join("truth.json")).expect("the truth")
    };
    let lines_of = |file: &str| std::fs::read_to_string(place.path(file)).expect("the lines");
    let truth = generate("a", "5", &[]);
    let text = lines_of("a/events-00000.tsv");
    assert_eq!(generate("b", "5", &[]), truth);
    assert_eq!(lines_of("b/events-00000.tsv"), text);
    assert_ne!(generate("c", "6", &[]), truth);
    assert_ne!(lines_of("c/events-00000.tsv"), text);
    generate("d", "5", &["--files", "2"]);
    let (even, odd) = (lines_of("d/events-00000.tsv"), lines_of("d/events-00001.tsv"));
    let woven: String = even.lines().zip(odd.lines()).map(|(even, odd)| format!("{even}\n{odd}\n")).collect();
    assert_eq!(woven, text);

    // Type and hour of each id, and how many different ids each of them has.
    let mut seen: HashMap<&str, (&str, i64)> = HashMap::new();
    let mut counts: BTreeMap<(&str, i64), u64> = BTreeMap::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), 8, "{line}");
        let time: i64 = columns[2].parse().expect("milliseconds");
        let group = (columns[0], time.div_euclid(3_600_000));
        if let Some(before) = seen.insert(columns[1], group) {
            assert_eq!(before, group, "what is sent twice is the same");
        } else {
            *counts.entry(group).or_default() += 1;
        }
    }
    let truth: Value = serde_json::from_slice(&truth).expect("JSON");
    assert_eq!(truth["events"], 20_000);
    assert_eq!(truth["unique"], seen.len());
    assert_eq!(truth["duplicates"], 20_000 - seen.len());
    // The generator starts at 2026-01-01T00:00:00Z.
    let first = 1_767_225_600 / 3_600;
    let hours = truth["types"].as_object().expect("types").iter().flat_map(|(name, hours)| {
        let hours = hours.as_object().expect("hours").iter();
        hours.map(move |(hour, truth)| {
            let number: i64 = hour[11..13].parse().expect("an hour");
            ((name.as_str(), first + number), truth["count"].as_u64().expect("a count"))
        })
    });
    assert_eq!(hours.collect::<BTreeMap<_, _>>(), counts);
}
