//! Files in an order, and where a run to the end ends.

use std::time::{Duration, SystemTime};

use super::*;

/// Partitions in the order in which they were read, each named once for chunks in a row.
fn turns(chunks: &[RawChunk]) -> Vec<String> {
    let mut turns: Vec<String> = chunks.iter().map(|chunk| chunk.origin.partition.to_string()).collect();
    turns.dedup();
    turns
}

fn three(order: &str) -> Bench {
    let bench = Bench::new(&["*.tsv"]).with("order", order).with("read_size", 512);
    for name in ["b.tsv", "a.tsv", "c.tsv"] {
        bench.write(name, numbered_lines(400));
    }
    bench
}

#[test]
fn files_are_read_one_after_the_other_by_name_or_by_their_last_change() {
    let bench = three("name");
    let (chunks, _) = bench.read_to_end(&none()).unwrap();
    assert_eq!(turns(&chunks), ["a.tsv", "b.tsv", "c.tsv"]);
    let bench = three("modified");
    for (name, ago) in [("a.tsv", 10), ("b.tsv", 30), ("c.tsv", 20)] {
        let file = fs::File::options().append(true).open(bench.path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
    }
    let (chunks, _) = bench.read_to_end(&none()).unwrap();
    assert_eq!(turns(&chunks), ["b.tsv", "c.tsv", "a.tsv"]);
    let (chunks, _) = three("none").read_to_end(&none()).unwrap();
    assert!(turns(&chunks).len() > 3, "without an order they take turns");
}

#[test]
fn a_restart_goes_on_where_the_order_was() {
    let bench = three("name");
    let mut source = bench.open(true, &none()).unwrap();
    let mut chunks: Vec<RawChunk> = Vec::new();
    while turns(&chunks).len() < 2 {
        if let Polled::Chunk(chunk) = source.poll().unwrap() {
            chunks.push(chunk);
        }
    }
    let (rest, _) = bench.read_to_end(&source.positions()).unwrap();
    assert_eq!(turns(&rest), ["b.tsv", "c.tsv"]);
    chunks.extend(rest);
    assert!(texts(&chunks).values().all(|text| *text == numbered_lines(400)));
}

#[test]
fn files_whose_turn_has_not_come_hold_nothing_beside_the_one_that_is_read() {
    let bench = three("name");
    let mut source = bench.open(false, &none()).unwrap();
    assert!(matches!(source.poll().unwrap(), Polled::Chunk(_)));
    assert_eq!(source.idle_partitions().keys().map(|name| &**name).collect::<Vec<_>>(), ["b.tsv", "c.tsv"]);
    let bench = three("none");
    let mut beside = bench.open(false, &none()).unwrap();
    assert!(matches!(beside.poll().unwrap(), Polled::Chunk(_)));
    assert!(beside.idle_partitions().is_empty(), "without an order each holds its own");
}

#[test]
fn a_run_to_the_end_goes_to_the_ends_that_it_began_with_over_all_its_processes() {
    let bench = Bench::new(&["*.tsv"]);
    bench.write("a.tsv", "one\n");
    bench.write("b.tsv", "two\n");
    let ends = bench.open(true, &none()).unwrap().ends().expect("they are known at once");
    assert_eq!(ends, BTreeMap::from([("a.tsv".into(), 4), ("b.tsv".into(), 4)]));
    bench.append("a.tsv", "more\n");
    bench.write("c.tsv", "new\n");
    let mut again = bench.open_with(true, &none(), Some(ends.clone())).unwrap();
    let chunks = drain(&mut again).unwrap();
    assert_eq!(texts(&chunks), BTreeMap::from([("a.tsv".into(), "one\n".into()), ("b.tsv".into(), "two\n".into())]));
    // The next run reads what came meanwhile.
    let (chunks, _) = bench.read_to_end(&again.positions()).unwrap();
    assert_eq!(texts(&chunks), BTreeMap::from([("a.tsv".into(), "more\n".into()), ("c.tsv".into(), "new\n".into())]));
}

#[test]
fn a_file_that_the_run_began_with_and_that_is_gone_is_no_end() {
    let bench = Bench::new(&["*.tsv"]);
    bench.write("a.tsv", "one\n");
    bench.write("b.tsv", "two\n");
    let ends = bench.open(true, &none()).unwrap().ends();
    fs::remove_file(bench.path("a.tsv")).unwrap();
    let mut source = bench.open_with(true, &none(), ends).unwrap();
    assert!(matches!(source.poll().unwrap(), Polled::Chunk(_)), "the other is read");
    let error = drain(&mut source).unwrap_err();
    assert_eq!(error.cure, tidemill_core::Cure::GiveUp);
    assert!(error.message.contains("`a.tsv`") && error.message.contains("nothing is sealed"), "{error}");
}
