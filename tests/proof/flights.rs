//! The real flights of 2013, each tenth sent twice: they come out once each, in their hours, and everybody can see that they do.

use tidemill_harness::flights::{YEAR, flights, sealed_hours, topology};
use tidemill_harness::{Place, assert_exit, printed, python, root};

fn check(shuffle: &[&str]) {
    let place = Place::new();
    let source = flights(&place);
    let input = place.path("input.tsv");
    let made = python("flights_input.py", &[&[source.to_str().unwrap(), input.to_str().unwrap()], shuffle].concat());
    assert_exit(&made, 0);
    println!("{}", printed(&made));
    let topology = topology(&place, &input);
    let run = place.run(&[topology.to_str().unwrap(), "--until-end"]);
    assert_exit(&run, 0);
    let out = place.out();
    let out = out.to_str().unwrap();
    // Every record is turned back into its line: exactly those of the source, and the counts of `sort | uniq -c`.
    assert_exit(&python("flights_compare.py", &[out, source.to_str().unwrap(), "--counts", "carriers"]), 0);
    let audit = python("audit_files.py", &[out, "--expect-unique-field", "flight_id", "--json"]);
    assert_exit(&audit, 0);
    let verify = place.tidemill(&["verify", out, "--json"]);
    assert_exit(&verify, 0);
    let report: serde_json::Value = serde_json::from_slice(&verify.stdout).expect("a report");
    let hours = std::fs::read_dir(place.out().join("flight")).expect("flights were published").count();
    assert!(hours > 0);
    assert_eq!(sealed_hours(&place.out().join("flight")), YEAR, "sealed hours of flights");
    assert!(report["faults"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn real_flights_sent_twice_come_out_once_in_6936_hours() {
    check(&["--seed", "1"]);
}

#[test]
fn real_flights_shuffled_inside_hours_come_out_the_same() {
    check(&["--seed", "2", "--shuffle"]);
}

#[test]
fn one_flipped_byte_in_a_file_a_manifest_or_a_name_is_found_and_names_the_hour() {
    let place = Place::new();
    let sample = root().join("topologies/flights/flights-sample.tsv");
    let topology = topology(&place, &sample);
    assert_exit(&place.run(&[topology.to_str().unwrap(), "--until-end"]), 0);
    let out = place.out();
    let verify = || place.tidemill(&["verify", out.to_str().unwrap()]);
    assert_exit(&verify(), 0);
    let hour = out.join("flight/year=2013/month=01/day=01/hour=15/rev=0");
    let file_that = |ending: &str| {
        let mut names = std::fs::read_dir(&hour).expect("the hour").map(|entry| entry.expect("an entry").path());
        names.find(|path| path.to_string_lossy().ends_with(ending)).expect("the file")
    };
    let found = || {
        let verify = verify();
        assert_exit(&verify, 1);
        let text = printed(&verify);
        assert!(text.contains("2013-01-01T15:00:00Z") || text.contains("hour=15"), "{text}");
    };
    for ending in [".avro", "_manifest.json", "_SUCCESS"] {
        let path = file_that(ending);
        let whole = std::fs::read(&path).expect("a file");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        std::fs::write(&path, flipped).expect("written");
        found();
        std::fs::write(&path, whole).expect("written");
        assert_exit(&verify(), 0);
    }
    let path = file_that(".avro");
    let other =
        path.with_file_name(path.file_name().unwrap().to_string_lossy().replacen("part-00000", "part-00001", 1));
    std::fs::rename(&path, &other).expect("renamed");
    found();
    std::fs::rename(&other, &path).expect("renamed");
    // An hour that is gone as a whole leaves nothing behind that could tell, but the index of the root does.
    let gone = hour.parent().expect("the hour's directory");
    std::fs::rename(gone, place.path("gone")).expect("moved");
    found();
}
