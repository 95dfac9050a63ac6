//! What the documents say is so. `UPDATE_DOCS=1 cargo test --test promises docs` writes the generated ones anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use tidemill_runtime::{METRICS, MetricKind};

use tidemill_harness::{Place, assert_exit, printed, root};

/// Names of files and folders in backquotes that are not there; how many were looked for.
///
/// One with a `/` is a path from the root. A bare file name is that of a file below a folder of the same line, or anywhere when the line
/// names none. Bare names in the first column of the code map are folders of the root; elsewhere they are kinds and other words.
fn missing_names(markdown: &str) -> (Vec<String>, usize) {
    let (mut section, mut missing, mut looked_for) = ("", Vec::new(), 0);
    // Pictures are indented.
    for line in markdown.lines().filter(|line| !line.starts_with("    ")) {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let is_row = section == "Code map" && line.starts_with('|');
        let column = line.split('|').nth(1).filter(|_| is_row).unwrap_or_default();
        let quoted = |text: &'_ str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let (names, in_column) = (quoted(line), quoted(column));
        let is_path = |name: &String| name.contains('/') || in_column.contains(name);
        let folders: Vec<_> = names.iter().filter(|name| is_path(name) && root().join(name).is_dir()).collect();
        for name in &names {
            let is_there = if is_path(name) {
                root().join(name).exists()
            } else if is_file_name(name) {
                match folders.as_slice() {
                    [] => is_below(root(), name),
                    folders => folders.iter().any(|folder| is_below(&root().join(folder), name)),
                }
            } else {
                continue;
            };
            looked_for += 1;
            if !is_there {
                missing.push(format!("`{name}` in: {line}"));
            }
        }
    }
    (missing, looked_for)
}

fn is_file_name(name: &str) -> bool {
    let endings = ["rs", "toml", "md", "py", "avsc", "tsv"];
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    name.rsplit_once('.').is_some_and(|(stem, ending)| plain(stem) && endings.contains(&ending))
}

/// Whether a file of that name is somewhere below the folder. What begins with a dot, or is built, is not looked at.
fn is_below(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries.into_iter().any(|entry| {
        let is = entry.file_name();
        let skipped = is == "target" || is.to_string_lossy().starts_with('.');
        match entry.file_type().expect("a type").is_dir() {
            true => !skipped && is_below(&entry.path(), name),
            false => is == name,
        }
    })
}

#[test]
fn every_file_and_folder_that_architecture_md_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (missing, looked_for) = missing_names(&text);
    assert!(looked_for > 60, "only {looked_for} names were found in it");
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there:\n{}", missing.join("\n"));
}

#[test]
fn a_wrong_name_of_any_form_is_found() {
    let map =
        |row: &str| missing_names(&format!("## Code map\n\n| path | what it is |\n| --- | --- |\n{row}\n")).0.len();
    assert_eq!(map("| `crates/core/src` | `batch.rs`, `stage.rs` |"), 0);
    assert_eq!(map("| `crates/core/src` | `batch.rs`, `inbox.rs` |"), 1, "it is in another folder");
    assert_eq!(map("| `configs`, `topologies`, `src` | `verify` |"), 0);
    assert_eq!(map("| `config`, `topologies`, `sources` | `verify` |"), 2);
    assert_eq!(missing_names("A word: `dedup`; files: `src/cli.rs`, `inbox.rs`").0.len(), 0);
    assert_eq!(missing_names("A word: `dedup`; files: `src/cly.rs`, `inboxes.rs`").0.len(), 2);
}

/// Compares a generated document, or writes it anew when asked to.
#[track_caller]
fn generated(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&file, text).expect("the document is written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is out of date: UPDATE_DOCS=1 cargo test --test promises docs");
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
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{}` | {kind} | {} | {} |", spec.name, labels.join(", "), spec.help).expect("text");
    }
    generated("docs/metrics.md", &text);
}

#[test]
fn building_md_has_every_group_of_tests() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("a file");
    let (manifest, page) = (read("Cargo.toml"), read("docs/building.md"));
    let names = manifest.split("[[test]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let missing: Vec<&str> = names
        .filter(|name| !page.contains(&format!("--test {name}`")) && !page.contains(&format!("tests/{name}.rs")))
        .collect();
    assert!(missing.is_empty(), "docs/building.md does not say what these need: {missing:?}");
}

/// Direct dependencies, those of tests aside, of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", printed(&output));
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
        ("tidemill-tidy", &[]),
        (
            "tidemill-harness",
            &[
                "tidemill",
                "tidemill-actors",
                "tidemill-core",
                "tidemill-runtime",
                "tidemill-testkit",
                "tidemill-topology",
            ],
        ),
        ("tidemill-runtime", &["tidemill-core", "tidemill-topology"]),
        (
            "tidemill-simulation",
            &["tidemill-core", "tidemill-topology", "tidemill-runtime", "tidemill-actors", "tidemill-testkit"],
        ),
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
            "tidemill" | "tidemill-simulation" | "tidemill-harness" => actix.iter().all(|name| *name == "actix-rt"),
            _ => actix.is_empty(),
        };
        assert!(fine, "{package} must not depend on {actix:?}");
        let does_io = ["tokio", "rayon", "mio", "rustix"].iter().any(|name| needed.contains(*name));
        assert!(package != "tidemill-core" || !does_io, "core must stay free of input and output");
    }
}
