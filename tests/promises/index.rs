//! The index of an output root: what `verify` makes of one that is damaged, cut short or gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use tidemill_harness::{Place, assert_exit, finish, lines, printed};

const RUN: [&str; 2] = ["plays.toml", "--until-end"];
const HOUR: &str = "out/play/year=2023/month=11/day=14/hour=23";

/// A place whose output root has one hour.
fn published() -> Place {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..100));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    place
}

fn index(place: &Place) -> PathBuf {
    place.path("out/.tidemill-published")
}

/// Verifies a directory; returns code and message of each fault. They are the same in text and in JSON.
#[track_caller]
fn faults(place: &Place, dir: &str) -> Vec<(String, String)> {
    let (text, json) =
        (finish(&mut place.command(&["verify", dir])), finish(&mut place.command(&["verify", dir, "--json"])));
    let report: Value = serde_json::from_slice(&json.stdout).expect("a report");
    let faults = report["faults"].as_array().expect("faults");
    for output in [&text, &json] {
        assert_exit(output, i32::from(!faults.is_empty()));
    }
    let member = |fault: &Value, name: &str| fault[name].as_str().expect("text").to_owned();
    let faults: Vec<_> = faults.iter().map(|fault| (member(fault, "code"), member(fault, "message"))).collect();
    assert!(faults.iter().all(|(_, message)| printed(&text).contains(message)), "{}", printed(&text));
    faults
}

fn has(faults: &[(String, String)], code: &str, words: &str) -> bool {
    faults.iter().any(|(is, message)| is == code && message.contains(words))
}

fn file_in(hour: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(hour.join("rev=0")).expect("the hour");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(|path| path.to_string_lossy().ends_with(ending)).expect("the file")
}

#[test]
fn a_flipped_byte_in_the_index_is_a_fault_with_its_line_and_the_rest_is_verified() {
    let place = published();
    assert!(faults(&place, "out").is_empty());
    let whole = std::fs::read(index(&place)).expect("the index");
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    assert_eq!(ends.len(), 5, "a header, a part, a manifest, a mark, a pointer");
    // Checksum, space and text of the header; of the second line; the last line feed.
    for at in [0, 8, 12, ends[0] + 2, ends[0] + 20, ends[4]] {
        let mut flipped = whole.clone();
        // Turns a small hex digit into a capital one.
        flipped[at] ^= 0x20;
        std::fs::write(index(&place), flipped).expect("written");
        let line = 1 + whole[..at].iter().filter(|byte| **byte == b'\n').count();
        assert!(has(&faults(&place, "out"), "damaged_index", &format!("line {line} is damaged")), "byte {at}");
    }
    let mut flipped = whole.clone();
    flipped[ends[0] + 20] ^= 1;
    std::fs::write(index(&place), flipped).expect("written");
    let part = file_in(&place.path(HOUR), ".avro");
    let events = std::fs::read(&part).expect("a part");
    std::fs::write(&part, &events[1..]).expect("written");
    let found = faults(&place, "out");
    assert!(has(&found, "damaged_index", "line 2") && has(&found, "wrong_bytes", "SHA-256"), "{found:?}");
    std::fs::rename(place.path(HOUR), place.path("gone")).expect("moved");
    let found = faults(&place, "out");
    assert!(has(&found, "damaged_index", "line 2") && has(&found, "missing_file", "not there"), "{found:?}");
}

#[test]
fn an_index_that_is_gone_is_a_fault_and_the_next_run_refuses_it() {
    let place = published();
    std::fs::remove_file(index(&place)).expect("removed");
    assert!(has(&faults(&place, "out"), "missing_index", "is gone"));
    std::fs::rename(place.path("out/play"), place.path("gone")).expect("moved");
    assert!(has(&faults(&place, "out"), "missing_index", "is gone"), "with the hour gone too");
    let run = finish(&mut place.run_command(&RUN));
    assert_exit(&run, 75);
    assert!(printed(&run).contains("index of published files is gone"), "{}", printed(&run));
}

#[test]
fn a_root_in_which_nothing_was_published_yet_has_an_index() {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", "");
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert!(faults(&place, "out").is_empty());
    std::fs::remove_file(index(&place)).expect("removed");
    assert!(has(&faults(&place, "out"), "missing_index", "is gone"));
}

#[test]
fn what_is_no_output_root_is_no_clean_one() {
    let place = published();
    place.write("other/notes.txt", "x");
    std::fs::create_dir(place.path("empty")).expect("a folder");
    for dir in ["empty", "other", HOUR] {
        let found = faults(&place, dir);
        assert!(found.len() == 1 && has(&found, "not_a_root", "not an output root"), "{dir}: {found:?}");
    }
}

#[test]
fn a_last_line_that_a_crash_cut_short_is_no_fault_and_the_next_run_mends_it() {
    let place = published();
    let whole = std::fs::read(index(&place)).expect("the index");
    std::fs::write(index(&place), [&whole[..], b"0123abcd play/ye"].concat()).expect("written");
    assert!(faults(&place, "out").is_empty());
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    // The start does the last cut's publications again, so their lines are there twice.
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let mended = std::fs::read(index(&place)).expect("the index");
    assert!(mended.starts_with(&whole) && mended.ends_with(b"\n") && lines(&mended) == lines(&whole));
}
