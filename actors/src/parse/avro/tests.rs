use std::io::Write;
use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Codec, Schema, Writer};
use arrow_buffer::Buffer;
use serde_json::json;
use tidemill_core::{Effects, EventType, Framing, Reason};

use super::Avro;
use crate::parse::testing::*;

const AT_MS: i64 = 1_357_035_300_000;
const SYNC: [u8; 16] = *b"0123456789abcdef";

fn written(schema: &Schema, value: Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn long(number: i64) -> Vec<u8> {
    written(&Schema::Long, Value::Long(number))
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    [long(bytes.len() as i64), bytes.to_vec()].concat()
}

fn header(schema: &str, codec: &str) -> Vec<u8> {
    let entries = [blob(b"avro.codec"), blob(codec.as_bytes()), blob(b"avro.schema"), blob(schema.as_bytes())];
    [b"Obj\x01".to_vec(), long(2), entries.concat(), long(0), SYNC.to_vec()].concat()
}

fn block(count: i64, data: &[u8]) -> Vec<u8> {
    [long(count), blob(data), SYNC.to_vec()].concat()
}

fn schema(name: &str, fields: &str) -> String {
    format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
}

fn datum(schema: &str, fields: Vec<(&str, Value)>) -> Vec<u8> {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    written(&Schema::parse_str(schema).unwrap(), Value::Record(fields))
}

fn parse(types: &[Arc<EventType>], header: &[u8], blocks: &[u8]) -> Effects {
    let framing = Framing::AvroBlocks { header: Buffer::from(header) };
    run(&mut *build(&Avro, json!({}), types), chunk(blocks, header.len() as u64, framing))
}

const PLAY: &str =
    r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"user","type":"string"}"#;

fn play() -> Arc<EventType> {
    event_type("play", PLAY)
}

fn event(at: i64, user: &str) -> Vec<u8> {
    datum(&schema("play", PLAY), vec![("at", Value::TimestampMillis(at)), ("user", Value::String(user.into()))])
}

#[test]
fn blocks_of_every_codec_are_read() {
    let data = [event(AT_MS, "ann"), event(AT_MS + 1, &"long name ".repeat(5))].concat();
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&data).unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&data);
    let snappy = [snap::raw::Encoder::new().compress_vec(&data).unwrap(), crc.sum().to_be_bytes().to_vec()].concat();
    let all = [
        ("null", data.clone()),
        ("deflate", deflate.finish().unwrap()),
        ("snappy", snappy.clone()),
        ("zstandard", zstd::encode_all(&data[..], 1).unwrap()),
    ];
    for (codec, packed) in &all {
        let head = header(&schema("play", PLAY), codec);
        let one = block(2, packed);
        let effects = parse(&[play()], &head, &[one.clone(), one.clone()].concat());
        let users: Vec<String> = cells(&effects).into_iter().map(|mut row| row.remove(1)).collect();
        assert_eq!(users, ["ann", &"long name ".repeat(5), "ann", &"long name ".repeat(5)], "{codec}");
        let positions: Vec<u64> = rows(&effects).iter().map(|row| row.1).collect();
        let second = (head.len() + one.len()) as u64;
        assert_eq!(positions, [head.len() as u64, head.len() as u64, second, second]);
        assert_eq!(rows(&effects)[2].3, event(AT_MS, "ann"));
        for at in 0..packed.len().min(40) {
            let mut broken = packed.clone();
            broken[at] ^= 0x55;
            let effects = parse(&[play()], &head, &block(2, &broken));
            assert!(effects.tally.received == 1 || effects.tally.received == 2, "{codec} {at}");
        }
    }
    let mut broken = snappy;
    *broken.last_mut().unwrap() ^= 1;
    let effects = parse(&[play()], &header(&schema("play", PLAY), "snappy"), &block(2, &broken));
    assert!(effects.dead[0].message.contains("CRC-32"), "{}", effects.dead[0].message);
}

#[test]
fn files_of_another_writer_are_read() {
    let text = schema("play", PLAY);
    let own = Schema::parse_str(&text).unwrap();
    let mut writer = Writer::with_codec(&own, Vec::new(), Codec::Deflate(Default::default())).unwrap();
    for at in 0..1_000 {
        let fields = vec![
            ("at".into(), Value::TimestampMillis(AT_MS + at)),
            ("user".into(), Value::String(format!("user number {at}"))),
        ];
        writer.append_value(Value::Record(fields)).unwrap();
        if at % 100 == 99 {
            writer.flush().unwrap();
        }
    }
    let file = writer.into_inner().unwrap();
    let sync = &file[file.len() - 16..];
    let end = file.windows(16).position(|window| window == sync).unwrap() + 16;
    let framing = Framing::AvroBlocks { header: Buffer::from(&file[..end]) };
    let whole = chunk(&file[end..], end as u64, framing);
    let mut stage = build(&Avro, json!({}), &[play()]);
    let effects = run(&mut *stage, whole.clone());
    assert_eq!(effects.tally.sent, 1_000);
    assert_eq!(cells(&effects)[777][1], "user number 777");
    assert_eq!(in_parts(&mut *stage, whole), summary(&effects));
}

#[test]
fn records_are_resolved_to_the_type_s_schema() {
    let own = format!(
        r#"{AT},{{"name":"n","type":"double","aliases":["number"]}},{{"name":"new","type":["null","string"],"default":null}},
        {{"name":"level","type":"int","default":-3}},{{"name":"e","type":{{"type":"enum","name":"E","symbols":["A","B","Z"],"default":"Z"}}}},
        {{"name":"o","type":["null","long"]}},{{"name":"u","type":{{"type":"string","logicalType":"uuid"}}}},
        {{"name":"r","type":{{"type":"record","name":"R","fields":[{{"name":"l","type":{{"type":"array","items":["null","int"]}}}},{{"name":"m","type":{{"type":"map","values":"float"}},"default":{{"d":1.5}}}}]}}}},
        {{"name":"de","type":{{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}}}}"#
    );
    let file = schema(
        "play",
        r#"{"name":"gone","type":{"type":"array","items":{"type":"map","values":["null","bytes"]}}},{"name":"number","type":"int"},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["X","B"]}},{"name":"o","type":["int","null","string"]},
        {"name":"u","type":{"type":"fixed","name":"U","size":16}},{"name":"r","type":{"type":"record","name":"other.R","fields":[{"name":"l","type":{"type":"array","items":"int"}}]}},
        {"name":"r2","type":"other.R"},{"name":"de","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}"#,
    );
    let record = |e: u32, o: Value, de: &[u8]| {
        let map = Value::Map([("k".to_owned(), Value::Union(1, Box::new(Value::Bytes(vec![1, 2]))))].into());
        let inner = Value::Record(vec![("l".into(), Value::Array(vec![Value::Int(4), Value::Int(5)]))]);
        let symbol = ["X", "B"][e as usize].to_owned();
        datum(
            &file,
            vec![
                ("gone", Value::Array(vec![map.clone(), map])),
                ("number", Value::Int(7)),
                ("e", Value::Enum(e, symbol)),
                ("o", o),
                ("u", Value::Fixed(16, vec![0xab; 16])),
                ("r", inner.clone()),
                ("r2", inner),
                ("de", Value::Decimal(de.into())),
                ("at", Value::TimestampMicros(AT_MS * 1_000 + 999)),
            ],
        )
    };
    let union = |at, value| Value::Union(at, Box::new(value));
    let data = [
        record(1, union(0, Value::Int(9)), &[0xff]),
        record(0, union(2, Value::String("x".into())), &[1]),
        record(0, union(1, Value::Null), &[1]),
        record(0, union(1, Value::Null), &[0x7f, 0xff, 0xff]),
    ];
    let head = header(&file.replace(r#""name":"U","size":16"#, r#""name":"U","size":16,"logicalType":"uuid""#), "null");
    let effects = parse(&[event_type("play", &own)], &head, &block(4, &data.concat()));
    let at = AT_MS.to_string();
    let uuid = "abababab-abab-abab-abab-abababababab";
    let expected = |e, o, de| [&at, "7", "null", "-3", e, o, uuid, "([4,5],{d=1.5})", de].map(str::to_owned).to_vec();
    assert_eq!(cells(&effects), [expected("B", "9", "-1"), expected("Z", "null", "1")]);
    let messages: Vec<&str> = effects.dead.iter().map(|letter| letter.message.as_str()).collect();
    assert_eq!(messages[0], "field `o`: it has string, the type long");
    assert!(
        messages[1].starts_with("field `de`: ") && messages[1].ends_with("is not a decimal of the type's precision")
    );
    assert_eq!(effects.dead[0].payload, data[1]);
}

#[test]
fn a_block_that_can_t_be_decoded_is_one_dead_letter() {
    let head = header(&schema("play", PLAY), "null");
    let right = event(AT_MS, "ann");
    let bad = |bytes: Vec<u8>| {
        let effects = parse(&[play()], &head, &[bytes, block(1, &right)].concat());
        assert_eq!((effects.tally.received, effects.tally.sent), (2, 1), "{:?}", effects.dead);
        assert_eq!(dead(&effects), [(head.len() as u64, Reason::Malformed)]);
        effects.dead[0].message.clone()
    };
    assert!(bad(block(2, &right)).contains("the block of 2 records can't be decoded: record 1: "));
    assert!(bad(block(1, &[&right[..], b"x"].concat())).contains("1 bytes are left behind"));
    assert!(bad(block(1, &right[..right.len() - 1])).contains("record 0"));
    assert!(bad(block(-1, &right)).contains("left behind"));
    let mut other = block(1, &right);
    *other.last_mut().unwrap() = b'?';
    assert!(bad(other).contains("sync marker"));
    let torn = block(1, &right);
    let effects = parse(&[play()], &head, &[torn.clone(), torn[..torn.len() - 1].to_vec()].concat());
    assert_eq!(dead(&effects), [((head.len() + torn.len()) as u64, Reason::Malformed)]);
}

#[test]
fn a_few_bytes_can_t_claim_any_number_of_items() {
    let fields = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"l","type":{"type":"array","items":"null"}}"#;
    let head = header(&schema("play", fields), "null");
    let data = [long(AT_MS), long(1 << 40), long(0)].concat();
    let effects = parse(&[event_type("play", AT)], &head, &block(1, &data));
    assert!(effects.dead[0].message.contains("claims 1099511627776 items"), "{}", effects.dead[0].message);
    let empty = header(&schema("play", ""), "null");
    let own = r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":0}"#;
    let effects = parse(&[event_type("play", own)], &empty, &block(1 << 40, &[]));
    assert_eq!(effects.tally.received, 1);
    assert_eq!(parse(&[event_type("play", own)], &empty, &block(5, &[])).tally.sent, 5);
}

#[test]
fn single_records_are_refused_for_their_time_and_size() {
    let data = [event(AT_MS, "a"), event(i64::MAX, "b"), event(ARRIVED + 600_001, "c"), event(AT_MS, &"x".repeat(300))];
    let effects = parse(&[play()], &header(&schema("play", PLAY), "null"), &block(4, &data.concat()));
    let reasons: Vec<Reason> = effects.dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::TimeOutOfRange, Reason::TooFarAhead, Reason::TooLarge]);
    assert_eq!((effects.tally.received, effects.tally.sent), (4, 1));
}

#[test]
fn the_type_is_the_one_with_the_name_of_the_file_s_record() {
    let types = [event_type("stop", PLAY), play()];
    let data = block(1, &event(AT_MS, "ann"));
    let effects = parse(&types, &header(&schema("com.example.play", PLAY), "null"), &data);
    assert_eq!(&*effects.batches[0].event_type.name, "play");
    let effects = parse(&types, &header(&schema("else", PLAY), "null"), &data);
    assert_eq!(effects.dead[0].reason, Reason::UnknownType);
    let effects = parse(&[play()], &header(&schema("else", PLAY), "null"), &data);
    assert_eq!(effects.tally.sent, 1, "the only type there is");
    assert_eq!(findings(&Avro, json!({"type_from": {"field": "x"}}), &types)[0].code, "bad-type-from");
}

#[test]
fn a_file_that_can_t_be_read_says_why_for_each_block() {
    let data = [block(1, &event(AT_MS, "ann")), block(1, &event(AT_MS, "bob"))].concat();
    let recursive = schema("play", &format!(r#"{PLAY},{{"name":"next","type":["null","play"]}}"#));
    for (head, expected) in [
        (b"PAR1".to_vec(), "the file's header: it does not begin"),
        (header("{", "null"), "the writer's schema: "),
        (header(&schema("my-play", PLAY), "null"), "the writer's schema: Invalid schema name my-play"),
        (header(&schema("play", PLAY), "lzma"), "its codec is `lzma`"),
        (header(r#""string""#, "null"), "is no record"),
        (header(&schema("play", AT), "null"), "it has no field `user`, for which the type has no default"),
        (header(&schema("play", &PLAY.replace("string", "int")), "null"), "field `user`: it has int, the type string"),
        (header(&recursive, "null"), "record `play` refers to itself"),
    ] {
        let effects = parse(&[play()], &head, &data);
        assert_eq!(effects.tally.received, 2, "{expected}");
        assert!(effects.dead.iter().all(|letter| letter.message.contains(expected)), "{}", effects.dead[0].message);
    }
}
