//! Files that can't be found any more.

use super::*;

fn follow(bench: &Bench, positions: &Positions) -> Followed {
    bench.open(false, positions).unwrap()
}

/// Reads what is there, and takes the folder `data` away.
fn read_and_lost(bench: &Bench) -> Followed {
    fs::create_dir_all(bench.path("data")).unwrap();
    bench.write("data/f", "a\n");
    let mut source = follow(bench, &none());
    drain(&mut source).unwrap();
    source
}

fn states(source: &mut Followed) -> (Vec<String>, Vec<String>) {
    let names = |names: Vec<&Arc<str>>| names.into_iter().map(|name| name.to_string()).collect();
    let (idle, silent) = (source.idle_partitions(), source.silent_partitions());
    (names(idle.keys().collect()), names(silent.keys().collect()))
}

fn idle(name: &str) -> (Vec<String>, Vec<String>) {
    (vec![name.to_owned()], Vec::new())
}

fn silent(names: &[&str]) -> (Vec<String>, Vec<String>) {
    (Vec::new(), names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_file_that_was_read_to_its_end_and_deleted_is_idle() {
    let bench = Bench::new(&["data/*"]);
    let positions = read_and_lost(&bench).positions();
    fs::remove_file(bench.path("data/f")).unwrap();
    let mut source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), idle("data/f"));
    assert_eq!(source.waits_for(), None);
}

#[test]
fn one_that_was_not_is_silent_until_it_is_back() {
    let bench = Bench::new(&["data/*"]);
    let mut source = read_and_lost(&bench);
    bench.append("data/f", "b\n");
    let positions = source.positions();
    drop(source);
    // As of the cut it was read to its end: what was added was not seen.
    let grown = &positions["data/f"];
    let resume = grown.resume.replace("\"at_end\":true", "\"at_end\":false");
    let positions = BTreeMap::from([("data/f".into(), PartitionPosition { resume: resume.into(), ..grown.clone() })]);
    fs::rename(bench.path("data/f"), bench.path("aside")).unwrap();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), silent(&["data/f"]));
    fs::rename(bench.path("aside"), bench.path("data/f")).unwrap();
    assert_eq!(text_of(&drain(&mut source).unwrap(), "data/f"), "b\n");
    assert_eq!(states(&mut source), idle("data/f"));
}

#[test]
fn a_folder_that_is_missing_or_another_one_makes_all_its_files_silent() {
    let bench = Bench::new(&["data/*"]);
    let mut source = read_and_lost(&bench);
    fs::rename(bench.path("data"), bench.path("aside")).unwrap();
    drain(&mut source).unwrap();
    drop(source.waits_for().expect("it waits for the folder"));
    let positions = source.positions();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), silent(&["data/*", "data/f"]));
    // An empty mount point.
    fs::create_dir(bench.path("data")).unwrap();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), silent(&["data/f"]));
    // The file system comes, with a file that was renamed meanwhile, and more in it.
    bench.append("aside/f", "b\n");
    fs::rename(bench.path("aside/f"), bench.path("aside/g")).unwrap();
    fs::remove_dir(bench.path("data")).unwrap();
    fs::rename(bench.path("aside"), bench.path("data")).unwrap();
    assert_eq!(text_of(&drain(&mut source).unwrap(), "data/f"), "b\n");
    assert_eq!(states(&mut source), idle("data/f"));
}

#[test]
fn a_folder_that_was_never_there_is_waited_for_by_the_name_of_its_pattern() {
    let bench = Bench::new(&["here/*", "there/*/x"]);
    fs::create_dir(bench.path("here")).unwrap();
    let mut source = follow(&bench, &none());
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), silent(&["there/*/x"]));
    fs::create_dir(bench.path("there")).unwrap();
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), silent(&[]));
    assert_eq!(source.waits_for(), None);
}

#[test]
fn an_empty_file_that_is_gone_holds_nothing() {
    let bench = Bench::new(&["data/*"]).with("compression", "auto");
    fs::create_dir_all(bench.path("data")).unwrap();
    bench.write("data/f", "");
    let mut source = follow(&bench, &none());
    drain(&mut source).unwrap();
    let positions = source.positions();
    fs::remove_file(bench.path("data/f")).unwrap();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), idle("data/f"));
}

#[test]
fn one_that_is_lost_for_longer_than_hours_wait_counts_as_gone_and_is_read_on_when_it_is_back() {
    let bench = Bench::new(&["data/*"]);
    let mut source = read_and_lost(&bench);
    let known = source.positions()["data/f"].clone();
    // As of a cut it could not be found for longer than a day.
    let resume = known.resume.replace("\"at_end\":true", "\"at_end\":false");
    let resume = resume.replace("\"lost_ms\":0", "\"lost_ms\":90000000");
    let positions = BTreeMap::from([("data/f".into(), PartitionPosition { resume: resume.into(), ..known })]);
    fs::rename(bench.path("data/f"), bench.path("aside")).unwrap();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), idle("data/f"));
    let positions = source.positions();
    source = follow(&bench, &positions);
    drain(&mut source).unwrap();
    assert_eq!(states(&mut source), idle("data/f"), "after a restart, too");
    fs::rename(bench.path("aside"), bench.path("data/f")).unwrap();
    bench.append("data/f", "b\n");
    source = follow(&bench, &positions);
    assert_eq!(text_of(&drain(&mut source).unwrap(), "data/f"), "b\n");
}
