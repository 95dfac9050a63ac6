//! `--until-end`: files as they are at the start.

use tidemill_core::Cure;

use super::*;

#[test]
fn several_files_are_read_in_turn_and_a_last_line_without_feed_is_a_line() {
    let bench = Bench::new(&["*.tsv"]);
    let (long, short) = (numbered_lines(50_000), "a\nb\nno feed");
    bench.write("a.tsv", &long);
    bench.write("b.tsv", short);
    bench.write("empty.tsv", "");
    bench.write("other.txt", "no\n");
    let mut source = bench.open(true, &none()).unwrap();
    let at_start = source.positions();
    assert_eq!(at_start.keys().map(|name| &**name).collect::<Vec<_>>(), ["a.tsv", "b.tsv", "empty.tsv"]);
    let chunks = drain(&mut source).unwrap();
    assert_eq!(&*chunks[1].origin.partition, "b.tsv", "the second file has its turn after one chunk");
    assert!(chunks.iter().all(|chunk| chunk.bytes.ends_with(b"\n") || chunk.bytes.ends_with(b"no feed")));
    assert_eq!(texts(&chunks), [("a.tsv".into(), long.clone()), ("b.tsv".into(), short.into())].into());
    let ended = source.positions();
    assert!(ended.values().all(|position| position.ended));
    assert_eq!(ended["a.tsv"].next, long.len() as u64);
}

#[test]
fn reading_goes_on_at_any_cut_with_the_same_bytes_whatever_the_compression() {
    let text = numbered_lines(30_000);
    let (head, tail) = text.split_at(200_000);
    for (name, bytes) in [
        ("plain.tsv", text.clone().into_bytes()),
        ("members.tsv.gz", [gzip(head), gzip(tail)].concat()),
        ("frames.zst", [zstd(head), zstd(tail)].concat()),
        ("no-ending", [gzip(head), gzip(""), gzip(tail)].concat()),
    ] {
        let bench = Bench::new(&[name]).with("read_size", 20_000);
        bench.write(name, bytes);
        let (whole, _) = bench.read_to_end(&none()).unwrap();
        assert_eq!(text_of(&whole, name), text, "{name}");
        let mut source = bench.open(true, &none()).unwrap();
        let mut before = String::new();
        for _ in 0..6 {
            let Polled::Chunk(chunk) = source.poll().unwrap() else { panic!("{name}: a chunk") };
            before.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
            let (rest, ended) = bench.read_to_end(&source.positions()).unwrap();
            assert_eq!(before.clone() + &text_of(&rest, name), text, "{name}");
            assert_eq!(ended[name].next, text.len() as u64);
        }
    }
}

#[test]
fn a_run_after_the_end_reads_only_what_was_added() {
    let bench = Bench::new(&["log"]);
    bench.write("log", "a\n");
    let (_, positions) = bench.read_to_end(&none()).unwrap();
    let (chunks, positions) = bench.read_to_end(&positions).unwrap();
    assert!(chunks.is_empty());
    bench.append("log", "b\n");
    let (chunks, _) = bench.read_to_end(&positions).unwrap();
    assert_eq!(text_of(&chunks, "log"), "b\n");
    assert_eq!(chunks[0].origin.first, 2);
}

#[test]
fn a_line_of_ten_megabytes_is_passed_whole_when_it_is_allowed() {
    let mut bench = Bench::new(&["log"]);
    bench.max_event = 16 << 20;
    let text = format!("a\n{}\nb\n", "x".repeat(10_000_000));
    bench.write("log", &text);
    let (chunks, _) = bench.read_to_end(&none()).unwrap();
    assert_eq!(text_of(&chunks, "log"), text);
}

#[test]
fn a_line_that_is_too_long_is_a_prefix_whose_origin_covers_it() {
    for feed in ["\n", ""] {
        let bench = Bench::new(&["log"]);
        let rest = if feed.is_empty() { "" } else { "b\nc\nd" };
        bench.write("log", format!("a\n{}{feed}{rest}", "x".repeat(10_000_000)));
        let (chunks, positions) = bench.read_to_end(&none()).unwrap();
        let long = chunks.iter().find(|chunk| chunk.bytes.starts_with(b"x")).unwrap();
        assert_eq!(long.bytes.len(), bench.max_event + 1);
        assert!(matches!(long.framing, Framing::Lines));
        assert_eq!((long.origin.first, long.origin.next), (2, 2 + 10_000_000 + feed.len() as u64));
        let others = chunks.iter().filter(|chunk| !chunk.bytes.starts_with(b"x")).cloned();
        let others: String = others.map(|chunk| String::from_utf8(chunk.bytes.to_vec()).unwrap()).collect();
        assert_eq!(others, format!("a\n{rest}"));
        assert_eq!(positions["log"].next, fs::metadata(bench.path("log")).unwrap().len());
        // From in front of the long line: the same again.
        let before = PartitionPosition { next: 2, ..positions["log"].clone() };
        let (again, _) = bench.read_to_end(&[("log".into(), before)].into()).unwrap();
        assert_eq!((again[0].origin.next, again[0].bytes.len()), (long.origin.next, long.bytes.len()));
    }
}

#[test]
fn a_file_that_grows_meanwhile_ends_where_it_ended_at_the_start_but_with_a_whole_line() {
    let bench = Bench::new(&["log"]);
    bench.write("log", "a\nb");
    let mut source = bench.open(true, &none()).unwrap();
    bench.append("log", "b\nc\nd\n");
    let chunks = drain(&mut source).unwrap();
    assert_eq!(text_of(&chunks, "log"), "a\nbb\n");
}

#[test]
fn a_truncated_compressed_file_gives_its_whole_lines_then_an_error_that_names_it() {
    let text = numbered_lines(30_000);
    for (name, bytes) in [("a.gz", gzip(&text)), ("a.zst", zstd(&text))] {
        let bench = Bench::new(&[name]);
        bench.write(name, &bytes[..bytes.len() * 2 / 3]);
        let mut source = bench.open(true, &none()).unwrap();
        let mut before = String::new();
        let error = loop {
            match source.poll() {
                Ok(Polled::Chunk(chunk)) => before.push_str(std::str::from_utf8(&chunk.bytes).unwrap()),
                Ok(Polled::Idle(_)) => {}
                Ok(Polled::Ended) => panic!("{name}: an error"),
                Err(error) => break error,
            }
        };
        assert!(
            error.cure == Cure::Stop && error.message.contains(name) && error.message.contains("ends in the middle"),
            "{error}"
        );
        assert!(error.message.contains(&format!("byte {} ", before.len())), "{error}");
        assert!(text.starts_with(&before) && before.ends_with('\n'), "{name}");
        // The complete file in its place: the rest.
        let positions = source.positions();
        bench.write(name, &bytes);
        let (rest, _) = bench.read_to_end(&positions).unwrap();
        assert_eq!(before + &text_of(&rest, name), text, "{name}");
    }
}

#[test]
fn what_is_not_compressed_as_said_is_an_error() {
    let bench = Bench::new(&["a.gz"]);
    bench.write("a.gz", "plain text\n");
    let error = bench.read_to_end(&none()).unwrap_err();
    assert!(error.cure == Cure::Stop && error.message.contains("a.gz") && error.message.contains("gzip"), "{error}");
    let (chunks, _) = bench.with("compression", "none").read_to_end(&none()).unwrap();
    assert_eq!(text_of(&chunks, "a.gz"), "plain text\n");
}

#[test]
fn patterns_that_match_nothing_and_what_is_no_file_are_named() {
    let bench = Bench::new(&["a", "*.tsv"]);
    bench.write("a", "a\n");
    let error = bench.read_to_end(&none()).unwrap_err();
    assert!(error.cure == Cure::GiveUp && error.message.contains("`*.tsv`"), "{error}");
    for (path, part) in [("folder", "is no file"), ("a/b", "a/b")] {
        let bench = Bench::new(&[path]);
        bench.write("a", "a\n");
        fs::create_dir(bench.path("folder")).unwrap();
        let error = bench.read_to_end(&none()).unwrap_err();
        assert!(error.cure == Cure::Stop && error.message.contains(part), "{error}");
    }
}

#[test]
fn one_file_under_two_names_is_read_once_and_odd_names_are_taken_literally() {
    let bench = Bench::new(&["*.tsv", "./a.tsv", "x[1].log"]);
    bench.write("a.tsv", "a\n");
    bench.write("x[1].log", "x\n");
    fs::hard_link(bench.path("a.tsv"), bench.path("b.tsv")).unwrap();
    let (chunks, positions) = bench.read_to_end(&none()).unwrap();
    assert_eq!(texts(&chunks), [("a.tsv".into(), "a\n".into()), ("x[1].log".into(), "x\n".into())].into());
    assert_eq!(positions.len(), 2);
}

#[test]
fn more_files_than_may_be_open_wait_at_their_start_in_order_of_name() {
    let bench = Bench::new(&["*.log"]).with("max_open_files", 2);
    for name in ["c.log", "a.log", "d.log", "b.log"] {
        bench.write(name, format!("{name}\n"));
    }
    let (chunks, _) = bench.read_to_end(&none()).unwrap();
    let order: Vec<&str> = chunks.iter().map(|chunk| &*chunk.origin.partition).collect();
    assert_eq!(order, ["a.log", "b.log", "c.log", "d.log"]);
}

#[test]
fn a_position_of_something_else_is_refused() {
    let bench = Bench::new(&["a"]);
    bench.write("a", "a\n");
    let position = PartitionPosition { next: 1, resume: "{}".into(), ended: false };
    let error = bench.read_to_end(&[("a".into(), position)].into()).unwrap_err();
    assert!(error.cure == Cure::Stop && error.message.contains("--fresh"), "{error}");
}

#[test]
fn the_folder_of_a_topology_named_without_one_is_shown_as_a_point() {
    let patterns = crate::ingest::file::patterns::Patterns::new(Path::new(""), vec!["no-such-file-*.tsv".to_owned()]);
    let message = patterns.expand(true).err().map(|error| error.message);
    let wanted = "no file matches `no-such-file-*.tsv` in .; put the files there or correct `paths`";
    assert_eq!(message.as_deref(), Some(wanted));
}

#[test]
fn an_error_does_not_name_the_source_since_the_runtime_does() {
    let error = Bench::new(&["none/*.tsv"]).read_to_end(&none()).unwrap_err();
    assert!(error.message.starts_with("no file matches `none/*.tsv` in /"), "{error}");
}
