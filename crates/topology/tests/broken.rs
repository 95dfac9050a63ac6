//! Broken topologies against what is said about them. `UPDATE_GOLDEN=1` writes the expectations anew.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidemill_topology::{CODES, Diagnostic};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
    files.sort();
    files
}

fn diagnostics(path: &Path) -> (String, Vec<Diagnostic>) {
    let text = std::fs::read_to_string(path).unwrap();
    let loaded = common::load_text(path.file_name().unwrap().to_str().unwrap(), &text);
    let has_error = loaded.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(loaded.plan.is_none(), has_error, "{}: a plan if and only if there is no error", path.display());
    (text, loaded.diagnostics)
}

#[test]
fn every_broken_topology_gets_its_diagnostics() {
    let mut wrong = Vec::new();
    for path in fixtures() {
        let (text, found) = diagnostics(&path);
        let rendered: Vec<String> = found.iter().map(|diagnostic| diagnostic.render(&text, false)).collect();
        let (rendered, golden) = (rendered.join("\n"), path.with_extension("txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &rendered).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != rendered {
            wrong.push(format!("{}:\n{rendered}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "other than expected (UPDATE_GOLDEN=1 writes them anew):\n{}", wrong.join("\n"));
}

#[test]
fn there_are_enough_of_them_and_each_finds_something() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 45, "{}", fixtures.len());
    for path in fixtures {
        assert!(!diagnostics(&path).1.is_empty(), "{} is not broken", path.display());
    }
}

#[test]
fn every_code_of_the_list_is_shown_by_a_broken_topology() {
    let shown: BTreeSet<&str> =
        fixtures().iter().flat_map(|path| diagnostics(path).1).map(|found| found.code).collect();
    let all: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    // Those that no text can have: tests of `unread.rs`, of `tests/promises/cli.rs` and of kinds show them.
    let without_text = ["kind-at-fault", "not-utf8", "topology-unreadable"];
    let missing: Vec<&&str> = all.difference(&shown).filter(|code| !without_text.contains(code)).collect();
    assert!(missing.is_empty(), "no fixture shows {missing:?}");
}

#[test]
fn every_diagnostic_says_what_to_do_and_points_into_the_text() {
    for path in fixtures() {
        let (text, found) = diagnostics(&path);
        for diagnostic in found {
            assert!(
                diagnostic.help.is_some() || diagnostic.code == "bad-path" || diagnostic.code == "unknown-aggregate"
            );
            assert!(text.get(diagnostic.span.clone()).is_some(), "{}: {diagnostic:?}", path.display());
            assert!(!diagnostic.message.is_empty());
        }
    }
}

#[test]
fn a_topology_cut_off_anywhere_never_panics_and_renders() {
    let text = common::good("# åß日本\n");
    for (at, _) in text.char_indices() {
        let cut = &text[..at];
        for diagnostic in common::load_text("cut.toml", cut).diagnostics {
            assert!(diagnostic.render(cut, at % 2 == 0).contains("cut.toml:"));
        }
    }
}

#[test]
fn a_topology_with_a_byte_changed_never_panics_and_renders() {
    let text = common::good("");
    // A fixed walk over places and replacements, so that a failure can be repeated.
    let mut state = 7u64;
    for _ in 0..1_500 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) as usize % text.len();
        let with = ["\"", "[", "]", "{", "}", "=", "\n", "\\", "é", "", "#", ".", ","][(state >> 20) as usize % 13];
        let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
        for diagnostic in common::load_text("changed.toml", &changed).diagnostics {
            assert!(diagnostic.render(&changed, false).contains("changed.toml:"));
        }
    }
}
