//! The real `check`: it refuses every broken topology and says where, and takes every shipped one.

use std::path::{Path, PathBuf};

use tidemill_harness::{Place, assert_exit, printed, root};

fn topologies(dir: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(dir)).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    found.sort();
    found
}

/// Whether a line of the text is ` --> PATH:LINE:COLUMN`.
fn says_where(text: &str, path: &Path) -> bool {
    let start = format!("--> {}:", path.display());
    text.lines().filter_map(|line| line.trim_start().strip_prefix(&start)).any(|rest| {
        let number = |text: &str| text.parse::<u32>().is_ok_and(|number| number > 0);
        rest.split_once(':').is_some_and(|(line, column)| number(line) && number(column))
    })
}

#[test]
fn every_broken_topology_is_refused_with_the_place_of_the_error() {
    let (place, broken) = (Place::new(), topologies("crates/topology/tests/broken"));
    assert!(broken.len() >= 40, "only {} broken topologies", broken.len());
    for path in broken {
        let check = place.tidemill(&["check", path.to_str().unwrap()]);
        assert_exit(&check, 78);
        let text = String::from_utf8_lossy(&check.stderr);
        assert!(text.contains("error["), "no code: {}", printed(&check));
        assert!(says_where(&text, &path), "{}: no place: {}", path.display(), printed(&check));
        assert!(text.contains('^'), "nothing is underlined: {}", printed(&check));
    }
}

#[test]
fn all_broken_topologies_are_checked_in_one_call_and_every_diagnostic_is_in_the_json() {
    let (place, broken) = (Place::new(), topologies("crates/topology/tests/broken"));
    let paths = broken.iter().map(|path| path.to_str().unwrap());
    let args: Vec<&str> = ["check", "--json"].into_iter().chain(paths.clone()).collect();
    let check = place.tidemill(&args);
    assert_exit(&check, 78);
    let found: Vec<serde_json::Value> = serde_json::from_slice(&check.stdout).expect("a JSON array");
    for path in paths {
        assert!(found.iter().any(|diagnostic| diagnostic.to_string().contains(path)), "{path} is not in it");
    }
}

#[test]
fn every_shipped_topology_passes() {
    let (place, shipped) = (Place::new(), topologies("topologies"));
    assert!(shipped.len() >= 2);
    for path in shipped {
        assert_exit(&place.tidemill(&["check", path.to_str().unwrap()]), 0);
    }
}

#[test]
fn a_topology_that_asks_for_more_than_its_sinks_can_give_is_told_so() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.plays("")).expect("the topology");
    let text = text.replace("[types.play]", "delivery = \"exactly_once\"\n[types.play]");
    let kafka = |name: &str, more: &str| {
        format!(
            "[sinks.{name}]\nkind = \"kafka\"\nfrom = [\"dedup\"]\ncluster = \"main\"\ntopic = \"{name}\"\n{more}\n"
        )
    };
    let weak = kafka("once", "delivery = \"exactly_once\"")
        + &kafka("again", "")
        + "[sinks.seen]\nkind = \"console\"\nfrom = [\"dedup\"]\n";
    place.write("plays.toml", text + &weak);
    let check = place.tidemill(&["check", "plays.toml"]);
    assert_exit(&check, 0);
    let told = printed(&check);
    assert_eq!(told.matches("warning[weak-sink]").count(), 2, "{told}");
    assert!(told.contains("`again` may give events twice") && told.contains("`seen` may give events twice"), "{told}");
    assert!(
        told.contains("write `delivery = \"exactly_once\"`") && told.contains("the kind `console` can't promise more"),
        "{told}"
    );
}
