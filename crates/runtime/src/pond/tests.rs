//! Records there and back, and segments over random lives of a pond.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryViewArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Int32Array, ListArray,
    RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray,
};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::DataType;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tidemill_core::{
    Batch, Effects, EventType, Horizon, Hour, HourNote, Input, LogName, Origin, PartitionPosition, RowOrigins,
    SealReason, Seals, Stage, StageInput,
};
use tidemill_testkit::{Start, build, origin, seals};
use tidemill_topology::{Pond, PondOptions, WhenFull};

use super::reader::{PARTITION, PondReader};
use super::record::{self, Barrier, HEADER_BYTES, Record, RecordError};
use super::shared::{PondShared, segment_bytes};
use super::writer::PondKind;
use super::{extent, segment_base, segment_log};
use crate::host::System;
use crate::intake::{Intake, Taken};

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"s","type":"string"},
    {"name":"o","type":["null","string"]},
    {"name":"b","type":"bytes"},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["x","y"]}},
    {"name":"f","type":{"type":"fixed","name":"F","size":2}},
    {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},
    {"name":"l","type":{"type":"array","items":"string"}}
]}"#;

fn event_type(schema: &str) -> Arc<EventType> {
    Arc::new(EventType::new("r", schema, "t", &[], None).expect("an event type"))
}

/// Three rows; their strings lie in bytes that hold much more.
fn batch(event_type: &Arc<EventType>) -> Batch {
    let text = ["short", "a text that is longer than a view has room for", ""];
    let kind = |name: &str| event_type.arrow.field_with_name(name).expect("the field").data_type().clone();
    let DataType::List(item) = kind("l") else { panic!("a list") };
    let lists = ListArray::new(
        item,
        OffsetBuffer::new(vec![0, 2, 2, 3].into()),
        Arc::new(StringViewArray::from(vec!["one", "another one that is long", "three"])),
        None,
    );
    let symbols =
        DictionaryArray::new(Int32Array::from(vec![1, 0, 1]), Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3]).with_timezone("UTC")),
        Arc::new(StringViewArray::from(text.to_vec())),
        Arc::new(StringViewArray::from(vec![None, Some("there"), None])),
        Arc::new(BinaryViewArray::from_iter_values([&b"\x00\xff"[..], b"", b"bytes that are longer than twelve"])),
        Arc::new(symbols),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4], [5, 6]].iter()).expect("of one size")),
        Arc::new(Decimal128Array::from(vec![-1, 0, 12_345]).with_precision_and_scale(10, 2).expect("it fits")),
        Arc::new(lists),
    ];
    Batch {
        event_type: event_type.clone(),
        records: RecordBatch::try_new(event_type.arrow.clone(), columns).expect("columns as in the schema"),
        selection: None,
        rows: RowOrigins {
            raw: Some(Buffer::from(&b"first\nsecond\nthird\n"[..])),
            starts: [0, 6, 13].into(),
            lens: [5, 6, 5].into(),
            positions: None,
        },
        origin: Arc::new(origin(100, 119)),
        arrived_at_ms: 77,
        payload_bytes: 16,
        counts: None,
    }
}

fn read(bytes: &[u8], types: &[Arc<EventType>]) -> Result<Record, RecordError> {
    let (header, payload) = bytes.split_at(HEADER_BYTES);
    let header: &[u8; HEADER_BYTES] = header.try_into().expect("a header");
    assert_eq!(record::payload_bytes(header), payload.len());
    record::read(header, payload, types)
}

fn rows(bytes: &[u8], types: &[Arc<EventType>]) -> Batch {
    match read(bytes, types) {
        Ok(Record::Rows(batch)) => batch,
        Ok(_) => panic!("it holds no rows"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_batch_comes_back_as_it_went_in_with_its_selected_rows_only() {
    let event_type = event_type(SCHEMA);
    let whole = batch(&event_type);
    for (given, wanted) in [(whole.clone(), vec![0, 1, 2]), (whole.select(vec![1, 2]), vec![1, 2])] {
        let found = rows(&record::rows(&given).unwrap(), std::slice::from_ref(&event_type));
        assert_eq!(found.records, given.compact());
        assert_eq!((&found.origin, found.arrived_at_ms, found.payload_bytes), (&given.origin, 77, given.payload_bytes));
        let told = |batch: &Batch, row: usize| (batch.position(row), batch.received(row).to_vec());
        for (row, original) in wanted.into_iter().enumerate() {
            assert_eq!(told(&found, row), told(&whole, original));
        }
    }
}

#[test]
fn rows_that_a_stage_has_made_come_back_without_received_bytes() {
    let event_type = event_type(SCHEMA);
    let made = Batch { rows: RowOrigins::default(), ..batch(&event_type) };
    let found = rows(&record::rows(&made).unwrap(), &[event_type]);
    assert!(found.rows.raw.is_none() && found.received(1).is_empty());
}

#[test]
fn a_field_that_may_be_null_can_be_added_and_any_other_change_is_told_with_the_field() {
    let old = record::rows(&batch(&event_type(SCHEMA))).unwrap();
    let with = |field: &str| event_type(&SCHEMA.replace("\n]}", &format!(",{field}\n]}}")));
    let grown = with(r#"{"name":"n","type":["null","long"]}"#);
    let found = rows(&old, &[grown]);
    assert_eq!(found.records.column_by_name("n").expect("the field").null_count(), 3);
    let needy = with(r#"{"name":"n","type":"long"}"#);
    assert!(matches!(read(&old, &[needy]), Err(RecordError::OtherSchema { field, .. }) if field == "n"));
    let other = event_type(&SCHEMA.replace(r#""name":"s","type":"string""#, r#""name":"s","type":"bytes""#));
    assert!(matches!(read(&old, &[other]), Err(RecordError::OtherSchema { field, .. }) if field == "s"));
    assert!(matches!(read(&old, &[]), Err(RecordError::UnknownType(name)) if *name == *"r"));
}

#[test]
fn a_flipped_bit_anywhere_in_kind_or_payload_is_found() {
    let event_type = event_type(SCHEMA);
    let bytes = record::rows(&batch(&event_type)).unwrap();
    for at in 4..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(matches!(read(&damaged, std::slice::from_ref(&event_type)), Err(RecordError::Checksum)), "byte {at}");
    }
}

#[test]
fn bytes_that_are_no_arrow_stream_are_refused_although_their_checksum_fits() {
    let event_type = event_type(SCHEMA);
    let bytes = record::rows(&batch(&event_type)).unwrap();
    let mut apart = 0;
    for at in HEADER_BYTES..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let checksum = crc32c::crc32c(&damaged[HEADER_BYTES - 1..]);
        damaged[4..8].copy_from_slice(&checksum.to_le_bytes());
        let found = read(&damaged, std::slice::from_ref(&event_type));
        apart += usize::from(matches!(found, Err(RecordError::Malformed(why)) if why.contains("do not fit together")));
    }
    assert!(apart > 0);
}

#[test]
fn a_record_that_counts_more_bytes_than_a_chunk_can_have_is_refused() {
    let event_type = event_type(SCHEMA);
    let huge = |payload_bytes| Batch { payload_bytes, ..batch(&event_type) };
    let bytes = record::rows(&huge(usize::MAX)).unwrap();
    assert_eq!(rows(&bytes, std::slice::from_ref(&event_type)).payload_bytes, u32::MAX as usize);
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let at = bytes.windows(most.len()).position(|window| window == most).expect("the number");
    let mut damaged = [&bytes[..at], &[0xff; 9], &[0x01], &bytes[at + most.len()..]].concat();
    let length = (damaged.len() - HEADER_BYTES) as u32;
    damaged[..4].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&damaged[HEADER_BYTES - 1..]);
    damaged[4..8].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(read(&damaged, &[event_type]), Err(RecordError::Malformed(_))));
}

fn writer(event_type: &Arc<EventType>, options: PondOptions, snapshot: Option<&[u8]>) -> Box<dyn Stage> {
    let limits = tidemill_testkit::limits();
    let input = StageInput {
        name: "out.main".into(),
        options: Default::default(),
        types: vec![event_type.clone()],
        limits: Arc::new(limits),
    };
    build(&PondKind { options, carries: Vec::new() }, &input, Start { snapshot, ..Start::default() }).expect("a writer")
}

/// Snapshot, model and files at a barrier.
type Cut = (Vec<u8>, Vec<u8>, BTreeMap<LogName, Vec<u8>>);

/// Random lives of a pond against a model, which is the one long text of all records: what is on disk is always the end of it, nothing that
/// was not consumed is retired, what a restored writer appends goes on where the cut ended, and in a pond that refuses, there is never
/// more than it may hold.
#[test]
fn segments_hold_the_end_of_what_was_written_over_random_barriers_restarts_and_consumption() {
    let event_type = event_type(SCHEMA);
    let options = PondOptions { max_bytes: 1 << 20, when_full: WhenFull::DeadLetter };
    let (mut refused, mut retired) = (0, 0);
    for seed in 0..30 {
        let mut random = SplitMix64::seed_from_u64(seed);
        let mut below = |bound: u64| random.next_u64() % bound;
        let mut stage = writer(&event_type, options, None);
        let mut text: Vec<u8> = Vec::new();
        let mut files: BTreeMap<LogName, Vec<u8>> = BTreeMap::new();
        let mut cut: Option<Cut> = None;
        let mut consumed = 0;
        for step in 0..120u64 {
            let mut effects = Effects::default();
            let choice = below(10);
            match choice {
                0..6 => {
                    let mut many = batch(&event_type);
                    let text = "x".repeat(below(60_000) as usize);
                    let mut columns = many.records.columns().to_vec();
                    columns[1] = Arc::new(StringViewArray::from(vec![text.as_str(); 3]));
                    many.records = RecordBatch::try_new(event_type.arrow.clone(), columns).expect("as before");
                    stage.process(&Input::Rows(many), &mut effects).expect("it is taken");
                }
                6 => {
                    let hour = Hour { start_ms: 0, width_ms: 1 };
                    let note = HourNote { duplicates: step, ..HourNote::on("r".into(), hour) };
                    stage.process(&Input::Note(note), &mut effects).expect("it is taken");
                }
                7 | 8 => {
                    let horizon = Horizon::new("r".into(), step as i64, SealReason::Watermark);
                    // Readers see what a cut has.
                    let committed = cut.as_ref().map_or(0, |(_, text, _)| text.len() as u64);
                    consumed += below(committed.saturating_sub(consumed) + 1);
                    let seals = Seals {
                        cut: step,
                        horizons: if choice == 7 { vec![horizon] } else { Vec::new() },
                        consumed: BTreeMap::from([("out.main".into(), consumed)]),
                        ..seals()
                    };
                    stage.seal(&seals, &mut effects).expect("a barrier");
                }
                _ => {
                    // Back to the last cut, in another process.
                    if let Some((snapshot, before, lengths)) = &cut {
                        (text, files) = (before.clone(), lengths.clone());
                        stage = writer(&event_type, options, Some(snapshot));
                    }
                    continue;
                }
            }
            assert!(effects.tally.is_conserved(), "seed {seed}, step {step}");
            refused += effects.tally.dead;
            for (log, bytes) in &effects.appends {
                let at = segment_base(log).expect("a segment") + files.get(log).map_or(0, |file| file.len() as u64);
                assert_eq!(at, text.len() as u64, "seed {seed}, step {step}: it goes on where it ended");
                files.entry(log.clone()).or_default().extend(bytes);
                text.extend(bytes);
            }
            for log in &effects.retired {
                let (base, length) = (segment_base(log).expect("a segment"), files[log].len() as u64);
                assert!(base + length <= consumed, "seed {seed}, step {step}: somebody needs it");
                files.remove(log);
                retired += 1;
            }
            let lengths = files.iter().map(|(log, file)| (log.clone(), file.len() as u64)).collect();
            let (first, end) = extent(&lengths);
            let lies: Vec<u8> = files.values().flatten().copied().collect();
            assert_eq!(
                (lies.as_slice(), end),
                (&text[first as usize..], text.len() as u64),
                "seed {seed}, step {step}"
            );
            assert!(files.values().all(|file| file.len() as u64 <= segment_bytes(options) + (1 << 18)));
            if effects.tally.sent > 0 {
                assert!(lies.len() as u64 <= options.max_bytes, "seed {seed}, step {step}: {} bytes", lies.len());
            }
            if matches!(choice, 7 | 8) {
                let snapshot = stage.snapshot(&mut Effects::default()).expect("a snapshot");
                cut = Some((snapshot, text.clone(), files.clone()));
            }
        }
    }
    assert!(refused > 10 && retired > 10, "{refused} rows refused, {retired} segments retired: too little was shown");
}

#[test]
fn a_barrier_is_recorded_with_positions_behind_what_came_and_not_again_when_nothing_came() {
    let event_type = event_type(SCHEMA);
    let mut stage = writer(&event_type, PondOptions::default(), None);
    let seals = Seals { positions: BTreeMap::from([("s".into(), Arc::default())]), ..seals() };
    let mut effects = Effects::default();
    stage.seal(&seals, &mut effects).unwrap();
    assert!(effects.appends.is_empty(), "nothing came");
    stage.process(&Input::Rows(batch(&event_type)), &mut effects).unwrap();
    stage.seal(&seals, &mut effects).unwrap();
    stage.seal(&seals, &mut effects).unwrap();
    assert_eq!(effects.appends.len(), 2);
    let Ok(Record::Barrier(Barrier { horizons, positions, revised, .. })) = read(&effects.appends[1].1, &[]) else {
        panic!("a barrier")
    };
    assert!(horizons.is_empty() && revised.is_empty() && positions == seals.positions);

    let revised = vec![event_type.name.clone(), "another".into()];
    stage.seal(&Seals { revised, ..seals }, &mut effects).unwrap();
    let Ok(Record::Barrier(barrier)) = read(&effects.appends[2].1, &[]) else { panic!("a barrier") };
    assert_eq!(barrier.revised, std::slice::from_ref(&event_type.name), "only what can come through the pond");
}

/// A pond with one segment, which holds these records.
fn pond_of(text: &[u8], dir: &std::path::Path) -> Arc<PondShared> {
    std::fs::write(dir.join("segment-0000000000000000.staged"), text).unwrap();
    let (options, carries) = (PondOptions::default(), Vec::new());
    let pond = Pond { name: "p".into(), node: "n".into(), from: 0, to: 1, options, carries };
    let lengths = BTreeMap::from([(segment_log(0), text.len() as u64)]);
    PondShared::new(&pond, 1 << 20, dir.to_owned(), &lengths)
}

/// What an intake gives, in short: parts that come together, and what else.
fn taken(intake: &mut Intake) -> String {
    match intake.take(3_600_000, 4 << 20) {
        Ok(Taken::Parts { parts, .. }) => format!("{} together", parts.len()),
        Ok(Taken::Seals(_)) => "seals".to_owned(),
        Ok(Taken::Idle(_)) => "nothing".to_owned(),
        Ok(_) => "something else".to_owned(),
        Err(error) => error.message,
    }
}

#[test]
fn records_come_together_up_to_seals_and_damage_and_never_more_than_fill_a_chunk() {
    let event_type = event_type(SCHEMA);
    let seals = Horizon::new("r".into(), 0, SealReason::Watermark);
    let events = record::rows(&batch(&event_type)).unwrap();
    let barrier =
        |horizons: &[Horizon]| record::barrier(&Barrier { horizons: horizons.to_vec(), ..Barrier::default() }).unwrap();
    let mut text = [events.clone(), events.clone(), barrier(&[]), events.clone(), barrier(&[seals])].concat();
    let behind_seals = text.len();
    let many = (1 << 20) / events.len() + 1;
    text.extend(events.repeat(many + 3));
    let damaged = text.len() + events.len() + HEADER_BYTES;
    text.extend(events.repeat(2));
    text[damaged] ^= 1;

    let dir = tempfile::tempdir().unwrap();
    let shared = pond_of(&text, dir.path());
    let reader = PondReader::open(Arc::new(System), shared, "id", vec![event_type], None, 1_000).unwrap();
    let mut intake = Intake::Pond(Box::new(reader));
    assert_eq!(taken(&mut intake), "3 together");
    assert_eq!([taken(&mut intake), taken(&mut intake)], ["seals", "seals"], "until they are passed");
    intake.pass();
    assert_eq!(intake.place().unwrap().moved.positions[PARTITION].next, behind_seals as u64);
    assert_eq!(taken(&mut intake), format!("{many} together"));
    assert_eq!(taken(&mut intake), "4 together");
    assert!(taken(&mut intake).contains("can't be read"), "and what came before the damage has come");
}

/// What the audit says of a pond whose records are these; and from a later position on.
fn damage_of(records: &[&[u8]], position: Option<&PartitionPosition>) -> Vec<String> {
    let event_type = event_type(SCHEMA);
    let text = records.concat();
    let dir = tempfile::tempdir().unwrap();
    let shared = pond_of(&text, dir.path());
    let reader = PondReader::open(Arc::new(System), shared, "id", vec![event_type], position, 3_600_000).unwrap();
    match Intake::Pond(Box::new(reader)).take(3_600_000, 4 << 20) {
        Ok(Taken::Parts { books, .. }) => books.damage.iter().map(ToString::to_string).collect(),
        _ => panic!("records"),
    }
}

#[test]
fn a_record_that_is_not_read_or_read_twice_is_noticed_at_the_next_barrier_of_a_pond() {
    let event_type = event_type(SCHEMA);
    let mut stage = writer(&event_type, PondOptions::default(), None);
    let mut effects = Effects::default();
    for _ in 0..2 {
        stage.process(&Input::Rows(batch(&event_type)), &mut effects).unwrap();
    }
    stage.seal(&seals(), &mut effects).unwrap();
    let records: Vec<&[u8]> = effects.appends.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let [first, second, barrier] = records[..] else { panic!("two of events, and a barrier") };
    assert_eq!(damage_of(&[first, second, barrier], None), Vec::<String>::new());
    let said = damage_of(&[first, barrier], None);
    let hour = Hour { start_ms: 0, width_ms: 3_600_000 };
    assert_eq!(said, [format!("in pond `p`, type `r`, hour {hour}: 6 expected, 3 found (3 lost)")]);
    let said = damage_of(&[first, second, first, barrier], None);
    assert_eq!(said, [format!("in pond `p`, type `r`, hour {hour}: 6 expected, 9 found (3 too many)")]);
    // Somebody who began to read in between knows nothing of what came before.
    let position = PartitionPosition {
        next: first.len() as u64,
        resume: "{\"horizons\":{},\"positions\":{},\"is_whole\":false}".into(),
        ended: false,
    };
    assert_eq!(damage_of(&[first, second, barrier], Some(&position)), Vec::<String>::new());
}

#[test]
fn replayed_letters_keep_the_stage_where_they_enter() {
    let event_type = event_type(SCHEMA);
    let mut letters = batch(&event_type);
    letters.origin = Arc::new(Origin { enters: Some("out".into()), ..(*letters.origin).clone() });
    let found = rows(&record::rows(&letters).unwrap(), &[event_type]);
    assert_eq!((found.records, found.origin), (letters.records, letters.origin));
}
