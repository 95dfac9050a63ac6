//! What the documents say is so. `UPDATE_DOCS=1 cargo test --test it docs` writes the generated ones anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use tidemill_runtime::{METRICS, MetricKind};

use crate::support::{Place, assert_exit, root, said};

/// Texts in single backquotes, outside of code fences.
fn quoted(markdown: &str) -> Vec<&str> {
    let mut in_fence = false;
    let mut found = Vec::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

#[test]
fn every_path_in_architecture_md_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let paths: Vec<&str> = quoted(&text).into_iter().filter(|quoted| quoted.contains('/')).collect();
    assert!(!paths.is_empty(), "it names no path");
    let missing: Vec<&str> = paths.into_iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

/// Compares a generated document, or writes it anew when asked to.
#[track_caller]
fn generated(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&file, text).expect("the document is written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is out of date: UPDATE_DOCS=1 cargo test --test it docs");
}

#[test]
fn kinds_md_is_what_tidemill_kinds_prints() {
    let kinds = Place::new().tidemill(&["kinds"]);
    assert_exit(&kinds, 0);
    generated("docs/kinds.md", &String::from_utf8(kinds.stdout).expect("UTF-8"));
}

#[test]
fn metrics_md_is_the_catalogue() {
    let mut text = String::from(
        "# Metrics\n\nAll are on `/metrics` of the admin server, in the text format of Prometheus, and all have the label `topology` beside those below.\n\n\
         | name | kind | labels | what it says |\n| --- | --- | --- | --- |\n",
    );
    for spec in METRICS {
        let kind = match spec.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{}` | {kind} | {} | {} |", spec.name, labels.join(", "), spec.help).expect("text");
    }
    generated("docs/metrics.md", &text);
}

/// Direct dependencies, those of tests aside, of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", said(&output));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let needed = package["dependencies"].as_array().expect("dependencies").iter();
            (name(package), needed.filter(|needed| needed["kind"] != "dev").map(name).collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_in_the_allowed_direction_only() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tidemill-core", &[][..]),
        ("tidemill-topology", &["tidemill-core"]),
        ("tidemill-actors", &["tidemill-core"]),
        ("tidemill-testkit", &["tidemill-core"]),
        ("tidemill-runtime", &["tidemill-core", "tidemill-topology"]),
        ("tidemill", &["tidemill-core", "tidemill-topology", "tidemill-runtime", "tidemill-actors"]),
    ]);
    let packages = dependencies();
    assert_eq!(packages.keys().map(String::as_str).collect::<Vec<_>>(), allowed.keys().copied().collect::<Vec<_>>());
    for (package, needed) in &packages {
        let of_ours = needed.iter().filter(|name| name.starts_with("tidemill")).map(String::as_str);
        let wrong: Vec<&str> = of_ours.filter(|name| !allowed[package.as_str()].contains(name)).collect();
        assert!(wrong.is_empty(), "{package} must not depend on {wrong:?}");
    }
}

#[test]
fn only_the_runtime_names_actix_and_core_does_no_input_or_output() {
    for (package, needed) in dependencies() {
        let actix: Vec<&String> = needed.iter().filter(|name| name.starts_with("actix")).collect();
        let fine = match package.as_str() {
            "tidemill-runtime" => true,
            // The system that the command line starts the runtime in.
            "tidemill" => actix.iter().all(|name| *name == "actix-rt"),
            _ => actix.is_empty(),
        };
        assert!(fine, "{package} must not depend on {actix:?}");
        let does_io = ["tokio", "rayon", "mio", "rustix"].iter().any(|name| needed.contains(*name));
        assert!(package != "tidemill-core" || !does_io, "core must stay free of input and output");
    }
}
