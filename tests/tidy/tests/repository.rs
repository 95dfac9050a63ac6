//! The repository keeps its rules.

use tidemill_tidy::{Known, Repository, has_unsafe};

/// Modules that may have `unsafe`, each for the reason that it gives. The compiler denies it everywhere else.
const UNSAFE: [&str; 2] = ["actors/src/kafka/native.rs", "actors/src/parse/views.rs"];

fn lines(faults: &[impl ToString]) -> String {
    faults.iter().map(|fault| format!("  {}\n", fault.to_string())).collect()
}

#[test]
fn nothing_breaks_a_rule_but_what_is_known() {
    let repository = Repository::this();
    let found = repository.found().unwrap_or_else(|error| panic!("{error}"));
    let mut known = repository.known().unwrap_or_else(|error| panic!("{error}"));
    if std::env::var_os("UPDATE_TIDY").is_some_and(|value| value == "1") {
        known = known.shrunk_to(&found);
        repository.write_known(&known).unwrap_or_else(|error| panic!("{error}"));
    }
    let faults = known.compare(&found);
    assert!(faults.is_empty(), "rules of tests/tidy:\n{}", lines(&faults));
}

#[test]
fn the_list_of_what_is_known_has_only_ever_shrunk() {
    let repository = Repository::this();
    let mut lists = repository.committed().unwrap_or_else(|error| panic!("{error}"));
    lists.push(("the checkout".to_owned(), repository.known().unwrap_or_else(|error| panic!("{error}"))));
    for pair in lists.windows(2) {
        let growth = Known::growth(&pair[0].1, &pair[1].1);
        assert!(growth.is_empty(), "from {} to {}:\n{}", pair[0].0, pair[1].0, lines(&growth));
    }
}

#[test]
fn unsafe_code_is_in_named_modules_only() {
    let repository = Repository::this();
    let files = repository.files().unwrap_or_else(|error| panic!("{error}"));
    let text = |path: &str| {
        let text = repository.read(path).unwrap_or_else(|error| panic!("{error}"));
        text.unwrap_or_else(|| panic!("{path} is not UTF-8"))
    };
    let code = files.iter().filter(|path| path.ends_with(".rs"));
    let unsafe_files: Vec<&String> =
        code.filter(|path| has_unsafe(path, &text(path)).unwrap_or_else(|error| panic!("{error}"))).collect();
    assert_eq!(unsafe_files, UNSAFE, "say in this list why, or do without");
    // What macros make of it the compiler sees, where the lints of the workspace hold.
    for manifest in files.iter().filter(|path| path.ends_with("Cargo.toml") && !path.starts_with("fuzz/")) {
        assert!(text(manifest).contains("[lints]\nworkspace = true\n"), "{manifest} lacks the lints");
    }
}
