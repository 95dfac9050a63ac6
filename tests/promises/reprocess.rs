//! `tidemill reprocess`: an hour is made once more, the same or otherwise, by whoever owns the output, and over kills.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use tidemill_harness::reprocess::{HOUR_NAME, UNTIL_END, reprocess, revisions};
use tidemill_harness::{HOUR, KILLED, Place, assert_exit, finish, gzip, lines, manifests, printed, wait_for};

/// What says which revisions are the hour now.
fn latest(place: &Place) -> Value {
    let path = place.out().join("play/year=2023/month=11/day=14/hour=23/latest.json");
    serde_json::from_slice(&std::fs::read(path).expect("the pointer")).expect("JSON")
}

/// Files of a revision, with their bytes.
fn bytes(place: &Place, manifest: &Value) -> BTreeMap<PathBuf, Vec<u8>> {
    let directory = place.out().join(manifest["path"].as_str().expect("a path"));
    let entries = std::fs::read_dir(directory).expect("the revision");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
        .collect()
}

/// Adds a filter in front of the sink.
fn with_filter(place: &Place, condition: &str) {
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let (before, sink) = text.split_once("[sinks.files]").expect("a sink");
    let sink = sink.replacen("from = [\"dedup\"]", "from = [\"some\"]", 1);
    let filter = format!("[stages.some]\nkind = \"filter\"\nfrom = [\"dedup\"]\nwhere = \"{condition}\"\n");
    place.write("plays.toml", format!("{before}{filter}[sinks.files]{sink}"));
}

#[test]
fn an_hour_is_the_same_again_and_the_old_revision_stays() {
    let place = Place::new();
    place.plays("");
    let counts = "\n[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\ngroup_by = [\"who\"]\nmeasures = { events = \"count()\" }\n\
                  [sinks.count_files]\nkind = \"avro_files\"\nfrom = [\"counts\"]\n\
                  [sinks.shown]\nkind = \"console\"\nfrom = [\"dedup\"]\n";
    place.append("plays.toml", counts);
    // Two hours and a half, some of it twice; and one event with the time of the next hour first.
    place.write("data/a", lines(0..60_000) + &format!("twice\t{}\t\n", HOUR + 3_600_000));
    place.write("data/b", lines(20_000..90_000) + &format!("twice\t{}\t\n", HOUR + 3_599_999));
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    let before = revisions(&place, "play").remove(&0).expect("revision 0");
    let kept = bytes(&place, &before);
    assert_eq!(latest(&place), json!({ "format": "tidemill-latest", "version": 1, "revision": 0, "first": 0 }));
    // What comes later is not part of the hour as it was sealed.
    place.append("data/b", &format!("later\t{}\t\n", HOUR + 5));
    let told = reprocess(&place, &["--json"], 0);
    let told: Value = serde_json::from_slice(&told.stdout).expect("nothing but JSON, and no rows on the console");
    let verdicts: Vec<_> =
        told.as_array().expect("a list").iter().map(|one| (&one["event_type"], &one["verdict"])).collect();
    assert_eq!(verdicts, [(&json!("counts"), &json!("same")), (&json!("play"), &json!("same"))]);
    for (below, count) in [("play", 36_000), ("counts", 36_000)] {
        let made = &revisions(&place, below)[&1];
        let was = &revisions(&place, below)[&0];
        assert_eq!(
            (&made["count"], &made["mode"], &made["reason"]),
            (&json!(count), &json!("replace"), &json!("reprocessed"))
        );
        for same in ["count", "ids", "event_time", "positions", "duplicates_dropped", "counted", "owner"] {
            assert_eq!(made[same], was[same], "{same} of {below}");
        }
    }
    assert_eq!(bytes(&place, &before), kept, "what is published stays");
    assert_eq!((&latest(&place)["revision"], &latest(&place)["first"]), (&json!(1), &json!(1)));
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    assert_exit(&place.tidemill(&["audit"]), 0);
    reprocess(&place, &["--type", "play"], 0);
    assert_eq!((revisions(&place, "play").len(), revisions(&place, "counts").len()), (3, 2));
    // The run goes on as if nothing had been: what came later is late.
    let output = finish(&mut place.run_command(&UNTIL_END));
    assert_exit(&output, 0);
    assert_eq!(place.published("_dead_letters").len(), 1);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn another_topology_makes_another_hour_and_what_differs_is_told_first() {
    let place = Place::new();
    place.plays("path = \"{event_type}/{who}/{year}{month}{day}{hour}\"");
    place.write("data/a", format!("1\t{HOUR}\ta\n2\t{HOUR}\tb\n3\t{HOUR}\tb\n"));
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    with_filter(&place, "who == 'a'");
    let differs = "play 2023-11-14T23:00:00Z, sink files: 1 events, where the revisions up to 0 have 3\n  0 added, 2 removed, 0 with other values\n";
    for args in [&["--dry-run"][..], &[]] {
        let output = reprocess(&place, args, i32::from(args.is_empty()));
        let told = printed(&output);
        assert!(told.contains(differs) && told.contains("  - \"2\"\n") && told.contains("  - \"3\"\n"), "{told}");
        assert_eq!(revisions(&place, "play").len(), 1, "nothing is published");
    }
    assert!(printed(&reprocess(&place, &["--replace"], 0)).contains("published as revision 1"));
    let made: BTreeMap<String, u64> = (manifests(&place.out(), "play").into_iter())
        .filter(|manifest| manifest["revision"] == 1)
        .map(|manifest| {
            (
                manifest["path_values"]["who"].as_str().unwrap_or_default().to_owned(),
                manifest["count"].as_u64().unwrap_or(9),
            )
        })
        .collect();
    assert_eq!(made, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 0)]), "what has no rows any more says so");
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    // The other way round nothing is lost, and nobody has to be asked.
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("who == 'a'", "who != 'x'"));
    let told = printed(&reprocess(&place, &[], 0));
    assert!(
        told.contains("2 added, 0 removed, 0 with other values") && told.contains("published as revision 2"),
        "{told}"
    );
}

#[test]
fn aggregates_that_would_be_less_are_not_replaced_although_their_ids_are_the_same() {
    let place = Place::new();
    place.plays("");
    let counts = "\n[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\nmeasures = { events = \"count()\" }\n\
                  [sinks.count_files]\nkind = \"avro_files\"\nfrom = [\"counts\"]\n";
    place.append("plays.toml", counts);
    place.write("data/a", lines(0..100));
    place.write("data/b", lines(100..200));
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    std::fs::remove_file(place.path("data/b")).expect("removed");
    let told = printed(&reprocess(&place, &["--type", "counts"], 1));
    assert!(
        told.contains("0 added, 0 removed, 1 with other values") && told.contains("have other values, so nothing"),
        "{told}"
    );
    let told = printed(&reprocess(&place, &[], 1));
    assert!(told.contains("0 added, 100 removed"), "{told}");
    assert_eq!((revisions(&place, "counts").len(), revisions(&place, "play").len()), (1, 1), "neither, or both");
    reprocess(&place, &["--replace"], 0);
    assert_eq!((revisions(&place, "counts").len(), revisions(&place, "play").len()), (2, 2));
}

#[test]
fn files_that_are_still_written_or_came_later_are_not_read_again() {
    let place = Place::new();
    place.plays("");
    place.write("data/a.gz", gzip(lines(0..1_000).as_bytes()));
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    // Half a file, as one that is being written is.
    let whole = gzip(lines(1_000..2_000).as_bytes());
    place.write("data/b.gz", &whole[..whole.len() / 2]);
    let told = printed(&reprocess(&place, &[], 0));
    assert!(told.contains("1,000 events, the same as revision 0"), "{told}");
}

#[test]
fn a_running_process_publishes_it_and_late_events_that_wait_come_behind_it() {
    let place = Place::new();
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let late = "allowed_lateness = \"0ms\"\nlate = \"revise\"\nlate_delay = \"1d\"\nlate_within = \"2d\"";
    place.write("plays.toml", text.replace("allowed_lateness = \"30d\"", late));
    place.write("data/a", lines(0..40_000));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    wait_for("the hour", || (revisions(&place, "play").len() == 1).then_some(()));
    // Two late events, enough for more than one block between them and those behind the request.
    let late = |numbers: std::ops::Range<u32>| -> String {
        numbers.map(|number| format!("late{number:06}\t{HOUR}\tw{}\n", number.wrapping_mul(7_919))).collect()
    };
    let committed = |bytes: u64| {
        wait_for("the position", || {
            let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
            let source = status["sources"].as_array()?.iter().find(|source| source["name"] == "lines")?.clone();
            (source["partitions"][0]["committed"] == bytes).then_some(())
        });
    };
    let size = || std::fs::metadata(place.path("data/a")).expect("the input").len();
    place.append("data/a", &late(0..20_000));
    committed(size());
    let told = printed(&reprocess(&place, &[], 0));
    assert!(
        told.contains("36,000 events, the same as revision 0") && told.contains("published as revision 1"),
        "{told}"
    );
    place.append("data/a", &late(20_000..40_000));
    committed(size());
    assert_eq!(revisions(&place, "play").len(), 2, "the late ones wait");
    child.stop();
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
    let revisions = revisions(&place, "play");
    let told: Vec<_> =
        revisions.values().map(|manifest| (manifest["mode"].as_str(), manifest["count"].as_u64())).collect();
    assert_eq!(
        told,
        [(Some("complete"), Some(36_000)), (Some("replace"), Some(36_000)), (Some("append"), Some(40_000))]
    );
    assert_eq!((&latest(&place)["revision"], &latest(&place)["first"]), (&json!(2), &json!(1)));
    // With them, it is one whole hour again.
    let told = printed(&reprocess(&place, &[], 0));
    assert!(
        told.contains("76,000 events, the same as revision 2") && told.contains("published as revision 3"),
        "{told}"
    );
    assert_eq!((&latest(&place)["revision"], &latest(&place)["first"]), (&json!(3), &json!(3)));
    assert_exit(&place.tidemill(&["verify", "out"]), 0);
}

#[test]
fn wherever_it_is_killed_the_next_one_ends_what_it_began() {
    let of_cuts = ["cut-begins", "ledger-written", "ledger-synced", "effects-done"];
    let of_publications = ["publication-begins", "index-synced", "file-published", "publication-marked", "published"];
    for point in of_cuts.into_iter().chain(of_publications) {
        for hit in 1.. {
            let place = Place::new();
            place.plays("");
            place.write("data/a", lines(0..100));
            assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
            let mut command = place.command(&["reprocess", "plays.toml", "--hour", HOUR_NAME]);
            let killed = finish(command.env("TIDEMILL_FAILPOINT", format!("{point}:{hit}")));
            if killed.status.code() == Some(0) {
                assert!(hit > 2, "{point}: its own run and the owner's pass there");
                break;
            }
            assert_eq!(killed.status.signal(), Some(KILLED), "{point}:{hit}: {}", printed(&killed));
            let told = printed(&reprocess(&place, &[], 0));
            assert!(told.contains("the same as revision"), "{point}:{hit}: {told}");
            assert_exit(&place.tidemill(&["verify", "out"]), 0);
            let revisions = revisions(&place, "play");
            let last = revisions.len() as u64 - 1;
            assert!((1..=2).contains(&last) && revisions.contains_key(&last), "{point}:{hit}: {revisions:?}");
            assert_eq!(
                (&latest(&place)["revision"], &latest(&place)["first"]),
                (&json!(last), &json!(last)),
                "{point}:{hit}"
            );
            assert_eq!(revisions[&last]["ids"], revisions[&0]["ids"], "{point}:{hit}");
            assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
            assert_exit(&place.tidemill(&["verify", "out"]), 0);
            for left in ["@given", "@accepted"] {
                let staged = place.out().join(".tidemill-staging").join(left);
                assert_eq!(std::fs::read_dir(staged).expect("the directory").count(), 0, "{point}:{hit}: {left}");
            }
        }
    }
}

#[test]
fn what_can_not_be_made_again_is_refused_with_what_to_do() {
    let place = Place::new();
    place.plays("");
    let refused = |args: &[&str], code: i32, words: &str| {
        let output = finish(place.command(&["reprocess", "plays.toml"]).args(args));
        assert_exit(&output, code);
        assert!(printed(&output).contains(words), "{args:?}: {}", printed(&output));
    };
    refused(&["--hour", HOUR_NAME], 69, "there is no state directory");
    place.write("data/a", lines(0..100));
    assert_exit(&finish(&mut place.run_command(&UNTIL_END)), 0);
    refused(&["--hour", "2023-11-14T23:10:00"], 64, "begins at 2023-11-14T23:00:00Z");
    refused(&["--hour", "2023-11-14T22"], 69, "nothing of the hour 2023-11-14T22:00:00Z is published");
    refused(&["--hour", HOUR_NAME, "--type", "ply"], 69, "nothing of the hour 2023-11-14T23:00:00Z is published");
    refused(
        &["--hour", HOUR_NAME, "--set", "output.root=elsewhere"],
        69,
        "is not the output root of the state directory",
    );
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write(
        "plays.toml",
        text.replace(
            "kind = \"avro_files\"",
            "kind = \"avro_files\"\npath = \"{event_type}/{year}{month}{day}{hour}\"",
        ),
    );
    refused(&["--hour", HOUR_NAME], 78, "path");
    place.write("plays.toml", text);
    // What the hour was made of is gone: it is not replaced by nothing.
    std::fs::rename(place.path("data/a"), place.path("away")).expect("moved");
    refused(&["--hour", HOUR_NAME], 69, "no file matches");
    place.write("data/b", "");
    refused(&["--hour", HOUR_NAME], 1, "0 added, 100 removed");
    refused(&["--hour", HOUR_NAME], 1, "file `data/a`: it can't be found");
    refused(&["--hour", HOUR_NAME], 1, "see whether the input is still all there");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("time = \"at\"", "time = \"at\"\nlate = \"next_hour\""));
    refused(&["--hour", HOUR_NAME], 69, "hold events of other hours");
    assert_eq!(revisions(&place, "play").len(), 1);
}
