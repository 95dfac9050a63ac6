//! Files that are followed: they grow, are renamed, replaced, truncated, deleted.

use super::*;

fn follow(bench: &Bench) -> Followed {
    bench.open(false, &none()).unwrap()
}

fn next_text(source: &mut Followed, partition: &str) -> String {
    text_of(&drain(source).unwrap(), partition)
}

#[test]
fn a_growing_file_gives_whole_lines_and_is_idle_at_its_end() {
    let bench = Bench::new(&["log"]);
    bench.write("log", "a\nhal");
    let mut source = follow(&bench);
    assert_eq!(next_text(&mut source, "log"), "a\n");
    assert!(source.idle_partitions().contains_key("log"));
    assert!(!source.positions()["log"].ended);
    bench.append("log", "f\nb\n");
    assert_eq!(next_text(&mut source, "log"), "half\nb\n");
}

#[test]
fn a_quiet_file_holds_its_hours_until_the_timeout() {
    let bench = Bench::new(&["log"]).with("idle_timeout", 3_600_000);
    bench.write("log", "a\n");
    let mut source = follow(&bench);
    assert!(source.idle_partitions().is_empty(), "it is unread");
    drain(&mut source).unwrap();
    assert!(source.idle_partitions().is_empty(), "it is not quiet for long enough");
}

#[test]
fn growing_compressed_files_are_followed_in_the_middle_of_their_data() {
    let text = numbered_lines(20_000);
    for (name, bytes) in [("a.gz", gzip(&text)), ("a.zst", zstd(&text)), ("no-ending", zstd(&text))] {
        let bench = Bench::new(&[name]);
        bench.write(name, "");
        let mut source = follow(&bench);
        let mut read = String::new();
        for part in bytes.chunks(bytes.len() / 40) {
            bench.append(name, part);
            read += &next_text(&mut source, name);
        }
        for _ in 0..40 {
            assert!(drain(&mut source).unwrap().is_empty());
        }
        assert_eq!(read, text, "{name}");
        bench.append(name, if name == "a.gz" { gzip("more\n") } else { zstd("more\n") });
        assert_eq!(next_text(&mut source, name), "more\n", "{name}");
    }
}

#[test]
fn new_files_are_taken_up() {
    let bench = Bench::new(&["*.log", "late"]);
    let mut source = follow(&bench);
    assert!(drain(&mut source).unwrap().is_empty());
    bench.write("a.log", "a\n");
    bench.write("late", "b\n");
    let chunks = drain(&mut source).unwrap();
    assert_eq!(texts(&chunks), [("a.log".into(), "a\n".into()), ("late".into(), "b\n".into())].into());
}

#[test]
fn a_rotated_file_is_finished_under_its_new_name_and_the_new_one_is_a_partition_of_its_own() {
    for open_before in [true, false] {
        let bench = Bench::new(&["app.log"]);
        bench.write("app.log", "1\n2\n");
        let mut source = follow(&bench);
        assert_eq!(next_text(&mut source, "app.log"), "1\n2\n");
        let positions = source.positions();
        bench.append("app.log", "3\nunfinished");
        rename(&bench, "app.log", "app.log.1");
        bench.write("app.log", "4\n");
        if !open_before {
            source = bench.open(false, &positions).unwrap();
        }
        let chunks = drain(&mut source).unwrap();
        let expected = [("app.log".into(), "3\nunfinished".into()), ("app.log@2".into(), "4\n".into())];
        assert_eq!(texts(&chunks), expected.into(), "open before: {open_before}");
        let positions = source.positions();
        assert!(positions["app.log"].ended && !positions["app.log@2"].ended);
        // After a restart, the finished one is left alone and the other goes on.
        bench.append("app.log", "5\n");
        let mut source = bench.open(false, &positions).unwrap();
        assert_eq!(texts(&drain(&mut source).unwrap()), [("app.log@2".into(), "5\n".into())].into());
        assert!(source.positions()["app.log"].ended);
    }
}

#[test]
fn a_rotated_file_that_still_matches_keeps_its_partition() {
    let bench = Bench::new(&["app.log*"]);
    bench.write("app.log", "1\n");
    let mut source = follow(&bench);
    drain(&mut source).unwrap();
    rename(&bench, "app.log", "app.log.1");
    bench.write("app.log", "2\n");
    bench.append("app.log.1", "more\n");
    let chunks = drain(&mut source).unwrap();
    assert_eq!(texts(&chunks), [("app.log".into(), "more\n".into()), ("app.log@2".into(), "2\n".into())].into());
    let mut source = bench.open(true, &source.positions()).unwrap();
    assert!(drain(&mut source).unwrap().is_empty(), "nothing is read twice after a restart");
}

#[test]
fn a_truncated_file_starts_a_new_generation() {
    for restart in [false, true] {
        let bench = Bench::new(&["log"]);
        bench.write("log", "first\nsecond\nunfin");
        let mut source = follow(&bench);
        assert_eq!(next_text(&mut source, "log"), "first\nsecond\n");
        let positions = source.positions();
        bench.write("log", "x\n");
        if restart {
            source = bench.open(false, &positions).unwrap();
        }
        let chunks = drain(&mut source).unwrap();
        assert_eq!(text_of(&chunks, "log@2"), "x\n", "restart: {restart}");
        assert_eq!(
            text_of(&chunks, "log"),
            if restart { "" } else { "unfin" },
            "what was read of a line is not dropped"
        );
        assert!(source.positions()["log"].ended);
        bench.append("log", "y\n");
        assert_eq!(texts(&drain(&mut source).unwrap()), [("log@2".into(), "y\n".into())].into());
    }
}

#[test]
fn a_file_rewritten_in_place_and_longer_is_noticed_by_its_beginning() {
    let bench = Bench::new(&["log"]);
    bench.write("log", "first\n");
    let (_, positions) = bench.read_to_end(&none()).unwrap();
    bench.write("log", "other\nand more\n");
    let (chunks, positions) = bench.read_to_end(&positions).unwrap();
    assert_eq!(texts(&chunks), [("log@2".into(), "other\nand more\n".into())].into());
    let (chunks, _) = bench.read_to_end(&positions).unwrap();
    assert!(chunks.is_empty());
}

#[test]
fn a_truncated_gzip_file_starts_a_new_generation_too() {
    let bench = Bench::new(&["a.gz"]);
    bench.write("a.gz", [gzip(&numbered_lines(1_000)), gzip("more\n")].concat());
    let (_, positions) = bench.read_to_end(&none()).unwrap();
    bench.write("a.gz", gzip(&numbered_lines(1_000)));
    let (chunks, _) = bench.read_to_end(&positions).unwrap();
    assert_eq!(texts(&chunks), [("a.gz@2".into(), numbered_lines(1_000))].into());
}

#[test]
fn a_copy_of_a_file_goes_on_where_the_file_was() {
    let bench = Bench::new(&["log"]);
    let text = numbered_lines(1_000);
    bench.write("log", &text);
    let (_, positions) = bench.read_to_end(&none()).unwrap();
    bench.write("copy", text + "new\n");
    fs::remove_file(bench.path("log")).unwrap();
    rename(&bench, "copy", "log");
    let (chunks, _) = bench.read_to_end(&positions).unwrap();
    assert_eq!(texts(&chunks), [("log".into(), "new\n".into())].into());
}

#[test]
fn a_file_that_vanished_keeps_its_position_and_holds_nothing() {
    let bench = Bench::new(&["*.log"]);
    bench.write("a.log", "a\n");
    bench.write("b.log", "b\n");
    let mut source = follow(&bench);
    drain(&mut source).unwrap();
    let positions = source.positions();
    fs::remove_file(bench.path("a.log")).unwrap();
    let mut source = bench.open(false, &positions).unwrap();
    assert!(drain(&mut source).unwrap().is_empty());
    assert_eq!(source.positions()["a.log"].next, 2);
    assert!(source.idle_partitions().contains_key("a.log"));
}

#[test]
fn a_file_deleted_while_it_is_open_is_read_to_its_end() {
    let bench = Bench::new(&["a.log"]);
    bench.write("a.log", "a\n");
    let mut source = follow(&bench);
    drain(&mut source).unwrap();
    bench.append("a.log", "b\nlast");
    fs::remove_file(bench.path("a.log")).unwrap();
    assert_eq!(next_text(&mut source, "a.log"), "b\nlast");
    assert!(source.positions()["a.log"].ended);
}

#[test]
fn paths_that_were_taken_out_keep_their_position() {
    let bench = Bench::new(&["a.log", "b.log"]);
    bench.write("a.log", "a\n");
    bench.write("b.log", "b\n");
    let (_, positions) = bench.read_to_end(&none()).unwrap();
    bench.append("a.log", "more\n");
    let bench = bench.with("paths", vec!["b.log"]);
    let (chunks, positions) = bench.read_to_end(&positions).unwrap();
    assert!(chunks.is_empty());
    assert_eq!(positions["a.log"].next, 2);
    let (chunks, _) = bench.with("paths", vec!["*.log"]).read_to_end(&positions).unwrap();
    assert_eq!(text_of(&chunks, "a.log"), "more\n");
}

#[test]
fn few_descriptors_suffice_for_many_followed_files() {
    let bench = Bench::new(&["*.log"]).with("max_open_files", 2);
    for number in 0..7 {
        bench.write(&format!("{number}.log"), "a\n");
    }
    let mut source = follow(&bench);
    assert_eq!(texts(&drain(&mut source).unwrap()).len(), 7);
    for number in 0..7 {
        bench.append(&format!("{number}.log"), "b\n");
    }
    let again = texts(&drain(&mut source).unwrap());
    assert_eq!(again.len(), 7);
    assert!(again.values().all(|text| text == "b\n"), "{again:?}");
}
