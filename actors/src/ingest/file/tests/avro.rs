//! `framing = "avro"`.

use apache_avro::types::Value as Avro;
use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer};

use tidemill_core::Cure;

use super::*;

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}]}"#;

fn container(records: i64, codec: Codec) -> Vec<u8> {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::builder().schema(&schema).codec(codec).block_size(500).writer(Vec::new()).build().unwrap();
    for number in 0..records {
        writer.append_value(Avro::Record(vec![("n".into(), Avro::Long(number))])).unwrap();
    }
    writer.into_inner().unwrap()
}

fn bench(name: &str) -> Bench {
    Bench::new(&[name]).with("framing", "avro").with("read_size", 4_096)
}

/// The records of the chunks, as an independent reader sees header and blocks.
fn records(chunks: &[RawChunk]) -> Vec<i64> {
    let mut numbers = Vec::new();
    for chunk in chunks {
        let Framing::AvroBlocks { header } = &chunk.framing else { panic!("Avro blocks") };
        let file = [header.as_slice(), chunk.bytes.as_slice()].concat();
        for record in Reader::new(&file[..]).unwrap() {
            let Avro::Record(fields) = record.unwrap() else { unreachable!() };
            let Avro::Long(number) = fields[0].1 else { unreachable!() };
            numbers.push(number);
        }
    }
    numbers
}

fn error_of(bench: &Bench) -> SourceError {
    bench.read_to_end(&none()).unwrap_err()
}

#[test]
fn chunks_are_whole_blocks_and_reading_goes_on_at_any_of_them() {
    let bytes = container(20_000, Codec::Deflate(DeflateSettings::default()));
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    for (name, contents) in [("plain.avro", &bytes), ("packed.avro.zst", &packed)] {
        let bench = bench(name);
        bench.write(name, contents);
        let (chunks, positions) = bench.read_to_end(&none()).unwrap();
        assert!(chunks.len() > 3, "{name}: {} chunks", chunks.len());
        assert_eq!(records(&chunks), (0..20_000).collect::<Vec<_>>(), "{name}");
        assert_eq!(positions[name].next, bytes.len() as u64, "{name}");
        for cut in 1..chunks.len() {
            let position = PartitionPosition { next: chunks[cut].origin.first, ..positions[name].clone() };
            let (rest, _) = bench.read_to_end(&[(name.into(), position)].into()).unwrap();
            assert_eq!([records(&chunks[..cut]), records(&rest)].concat().len(), 20_000, "{name}, chunk {cut}");
            assert_eq!(rest[0].origin.first, chunks[cut].origin.first);
        }
    }
}

#[test]
fn a_block_longer_than_a_read_is_taken_whole() {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::builder().schema(&schema).block_size(200_000).writer(Vec::new()).build().unwrap();
    for number in 0..100_000 {
        writer.append_value(Avro::Record(vec![("n".into(), Avro::Long(number))])).unwrap();
    }
    let bench = bench("a.avro");
    bench.write("a.avro", writer.into_inner().unwrap());
    assert_eq!(records(&bench.read_to_end(&none()).unwrap().0).len(), 100_000);
}

#[test]
fn a_header_without_blocks_and_an_empty_file_are_no_records() {
    for bytes in [container(0, Codec::Null), Vec::new()] {
        let bench = bench("a.avro");
        bench.write("a.avro", &bytes);
        let (chunks, positions) = bench.read_to_end(&none()).unwrap();
        assert!(chunks.is_empty() && positions["a.avro"].ended);
    }
}

#[test]
fn a_file_that_ends_in_a_block_or_in_its_header_is_named() {
    let bytes = container(2_000, Codec::Null);
    for (length, part) in [(bytes.len() - 1, "its last block"), (20, "its header")] {
        let bench = bench("a.avro");
        bench.write("a.avro", &bytes[..length]);
        let error = error_of(&bench);
        assert!(
            error.cure == Cure::Stop && error.message.contains("a.avro") && error.message.contains(part),
            "{error}"
        );
    }
}

#[test]
fn damage_is_named_with_its_place_after_the_blocks_before_it() {
    let bytes = container(2_000, Codec::Null);
    let bench = bench("a.avro");
    let (chunks, _) = {
        bench.write("a.avro", &bytes);
        bench.read_to_end(&none()).unwrap()
    };
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    bench.write("a.avro", damaged);
    let mut source = bench.open(true, &none()).unwrap();
    let mut before = Vec::new();
    let error = loop {
        match source.poll() {
            Ok(Polled::Chunk(chunk)) => before.push(chunk),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.cure == Cure::Stop && error.message.contains("sync marker"), "{error}");
    assert!(error.message.contains(&format!("byte {}", before.last().unwrap().origin.next)), "{error}");
    assert!(records(&before).len() < records(&chunks).len() && !before.is_empty());
}

#[test]
fn what_is_no_container_file_is_an_error() {
    let bench = bench("a.avro");
    bench.write("a.avro", "just text\n");
    let error = error_of(&bench);
    assert!(error.cure == Cure::Stop && error.message.contains("not an Avro container file"), "{error}");
}

#[test]
fn a_growing_container_file_waits_for_whole_blocks() {
    let bytes = container(5_000, Codec::Null);
    let bench = bench("a.avro");
    bench.write("a.avro", "");
    let mut source = bench.open(false, &none()).unwrap();
    let mut read = Vec::new();
    for part in bytes.chunks(777) {
        bench.append("a.avro", part);
        read.extend(drain(&mut source).unwrap());
    }
    assert_eq!(records(&read), (0..5_000).collect::<Vec<_>>());
}
