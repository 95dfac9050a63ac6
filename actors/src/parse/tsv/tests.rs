use std::sync::Arc;

use serde_json::json;
use tidemill_core::{EventType, Framing, Reason};

use super::Tsv;
use crate::parse::testing::*;

fn play() -> Arc<EventType> {
    let fields = r#"{"name":"user","type":"string"},{"name":"ms","type":["null","int"]},{"name":"note","type":["null","string"]}"#;
    event_type("play", &format!("{AT},{fields}"))
}

fn one() -> Box<dyn tidemill_core::Stage> {
    build(&Tsv, json!({}), &[play()])
}

const T: &str = "2013-01-01T10:15:00Z";

#[test]
fn lines_become_rows_whatever_ends_them() {
    let text = format!("{T}\tann\t1\tx\n\r\n\n{T}\tbob\t\t\r\n{T}\tcarla\t-2\tlast");
    let effects = lines(&mut *one(), text.as_bytes());
    let at = "1357035300000";
    assert_eq!(cells(&effects), [[at, "ann", "1", "x"], [at, "bob", "null", ""], [at, "carla", "-2", "last"]]);
    let rows = rows(&effects);
    assert_eq!(rows[1].1, text.find("\n2013").unwrap() as u64 + 1, "position of the second record");
    assert_eq!(rows[1].3, format!("{T}\tbob\t\t").into_bytes(), "as received, without its line end");
    assert_eq!(effects.batches[0].payload_bytes, rows.iter().map(|row| row.3.len()).sum::<usize>());
    assert!(effects.batches[0].selection.is_none());
}

#[test]
fn a_bad_row_is_left_out_and_becomes_a_dead_letter() {
    let long = "x".repeat(300);
    let text = format!(
        "{T}\tann\t1\tx\n{T}\tbob\tmany\tx\n{T}\tbob\t1\n{T}\tbob\t1\tx\ty\n{T}\t{long}\t1\tx\n9999-12-31T23:59:59Z\tbob\t1\tx\n\
         2013-01-02T00:10:00.001Z\tbob\t1\tx\nnow\tbob\tnone\tx\n2013-01-02T00:10:00Z\tzoe\t1\tx\n"
    );
    let effects = lines(&mut *one(), text.as_bytes());
    let batch = &effects.batches[0];
    assert_eq!(batch.selection.as_deref(), Some(&[0, 5][..]));
    let users: Vec<String> = cells(&effects).into_iter().map(|mut row| row.remove(1)).collect();
    assert_eq!(users, ["ann", "zoe"]);
    let reasons: Vec<Reason> = effects.dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::BadValue,
            Reason::Malformed,
            Reason::Malformed,
            Reason::TooLarge,
            Reason::TooFarAhead,
            Reason::TooFarAhead,
            Reason::BadValue
        ]
    );
    let letter = &effects.dead[0];
    assert_eq!(letter.message, "field `ms`: \"many\" is not a whole number from -2147483648 to 2147483647");
    assert_eq!(letter.payload, format!("{T}\tbob\tmany\tx").into_bytes());
    assert_eq!(letter.position, text.find('\n').unwrap() as u64 + 1);
    assert!(effects.dead[1].message.contains("has 3 columns; type `play` has 4: at, user, ms, note"));
    assert!(effects.dead[6].message.starts_with("field `at`: \"now\""), "the first fault of a row is told");
}

#[test]
fn a_chunk_of_nothing_but_bad_rows_sends_no_batch() {
    let effects = lines(&mut *one(), b"a\tb\tc\td\n\xff\n");
    assert!(effects.batches.is_empty());
    assert_eq!(effects.tally.received, 2);
    assert!(lines(&mut *one(), b"").batches.is_empty());
    assert_eq!(lines(&mut *one(), b"\n\n\r\n").tally.received, 0);
}

#[test]
fn text_that_is_not_utf_8_is_refused_and_its_neighbours_are_not() {
    let text =
        [T.as_bytes(), b"\tb\xc3\t1\tx\n", T.as_bytes(), "\tbörje, with a long name\t1\té\n".as_bytes()].concat();
    let effects = lines(&mut *one(), &text);
    assert_eq!(dead(&effects), [(0, Reason::BadValue)]);
    assert_eq!(effects.dead[0].message, "field `user`: \"b\\xc3\" is not valid UTF-8");
    assert_eq!(cells(&effects)[0][1], "börje, with a long name");
    // A character that two fields share is whole for neither.
    let torn = [T.as_bytes(), b"\tb\xc3\t\xa9\tx\n"].concat();
    assert_eq!(dead(&lines(&mut *one(), &torn)), [(0, Reason::BadValue)]);
}

#[test]
fn null_texts_are_null_in_nullable_fields_only() {
    let mut stage = build(&Tsv, json!({"null": ["NA", "\\N"]}), &[play()]);
    let effects = lines(&mut *stage, format!("{T}\tNA\tNA\t\\N\n{T}\tx\t\t\n").as_bytes());
    let found: Vec<Vec<String>> = cells(&effects).into_iter().map(|row| row[1..].to_vec()).collect();
    assert_eq!(found, [["NA", "null", "null"], ["x", "null", ""]]);
    let refused = lines(&mut *stage, b"NA\tx\t1\tx\n");
    assert_eq!(dead(&refused), [(0, Reason::BadValue)]);
}

#[test]
fn the_time_of_an_event_is_of_the_years_1_to_9999() {
    let epoch = |unit: &str, text: &str| {
        let mut stage = build(&Tsv, json!({"time": unit}), &[play()]);
        lines(&mut *stage, format!("{text}\tx\t1\tx\n").as_bytes())
    };
    assert_eq!(cells(&epoch("epoch_s", "-1"))[0][0], "-1000");
    assert_eq!(cells(&epoch("epoch_ms", "-62135596800000"))[0][0], "-62135596800000");
    assert_eq!(dead(&epoch("epoch_ms", "-62135596800001")), [(0, Reason::TimeOutOfRange)]);
    assert_eq!(dead(&epoch("epoch_ms", "253402300800000")), [(0, Reason::TimeOutOfRange)]);
    assert_eq!(dead(&epoch("epoch_ms", "253402300799999")), [(0, Reason::TooFarAhead)]);
    assert_eq!(dead(&epoch("epoch_s", "9223372036854775807")), [(0, Reason::TimeOutOfRange)]);
    assert_eq!(dead(&epoch("epoch_us", "99999999999999999999999")), [(0, Reason::TimeOutOfRange)]);
    assert_eq!(dead(&epoch("epoch_ms", "1e3")), [(0, Reason::BadValue)]);
}

#[test]
fn every_scalar_has_its_column() {
    let fields = r#"{"name":"b","type":"boolean"},{"name":"l","type":"long"},{"name":"f","type":"float"},{"name":"d","type":"double"},
        {"name":"by","type":["null","bytes"]},{"name":"u","type":{"type":"string","logicalType":"uuid"}},
        {"name":"us","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},{"name":"da","type":{"type":"int","logicalType":"date"}},
        {"name":"e","type":["null",{"type":"enum","name":"E","symbols":["A","BB"]}]},{"name":"fx","type":{"type":"fixed","name":"F","size":2}},
        {"name":"de","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]}"#;
    let kinds = event_type("kinds", &format!("{AT},{fields}"));
    let mut stage = build(&Tsv, json!({}), &[kinds]);
    let uuid = "123e4567-e89b-12d3-a456-426614174000";
    let right = format!("{T}\ttrue\t-5\t1.5\t2.5\t00ff\t{uuid}\t{T}\t1970-01-02\tBB\t0aFF\t-1.5\n");
    let nulls = format!("{T}\t0\t-5\t1.5\t2.5\t\t{uuid}\t\t1970-01-02\t\t0aff\t\n");
    let effects = lines(&mut *stage, (right.clone() + &nulls).as_bytes());
    let expected = ["true", "-5", "1.5", "2.5", "[00, ff]", uuid, "1357035300000000", "1", "BB", "[0a, ff]", "-150"];
    assert_eq!(cells(&effects)[0][1..], expected);
    let expected = ["false", "-5", "1.5", "2.5", "null", uuid, "null", "1", "null", "[0a, ff]", "null"];
    assert_eq!(cells(&effects)[1][1..], expected);
    let columns: Vec<&str> = right.trim_end().split('\t').collect();
    for at in 0..columns.len() {
        let mut wrong = columns.clone();
        wrong[at] = "?";
        let effects = lines(&mut *stage, (right.clone() + &wrong.join("\t") + "\n").as_bytes());
        assert_eq!(dead(&effects), [(right.len() as u64, Reason::BadValue)], "column {at}");
        assert_eq!(effects.batches[0].len(), 1);
    }
}

fn twenty() -> Vec<Arc<EventType>> {
    let fields = |at: usize| (0..at % 4).map(|n| format!(r#",{{"name":"f{n}","type":"string"}}"#)).collect::<String>();
    (0..20).map(|at| event_type(&format!("type{at}"), &format!("{AT}{}", fields(at)))).collect()
}

fn interleaved(separator: &str) -> String {
    let mut text = String::new();
    let mut random = 1u32;
    for line in 0..2_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = (random >> 16) as usize % 21;
        let fields: Vec<String> = (0..at % 4).map(|n| format!("{separator}value {line} of {n}")).collect();
        let fields = if random >> 8 & 0x3f == 0 { "\tbroken\t".into() } else { fields.concat() };
        text += &format!("type{at}{separator}{T}{fields}{}", if random & 0x100 == 0 { "\n" } else { "\r\n\n" });
    }
    text
}

#[test]
fn interleaved_types_come_out_in_order_each_in_its_batch() {
    let mut stage = build(&Tsv, json!({"type_from": {"column": 0}}), &twenty());
    let effects = lines(&mut *stage, interleaved("\t").as_bytes());
    let names: Vec<&str> = effects.batches.iter().map(|batch| &*batch.event_type.name).collect();
    assert_eq!(names, twenty().iter().map(|known| known.name.to_string()).collect::<Vec<_>>());
    for batch in &effects.batches {
        let positions: Vec<u64> = batch.indexes().map(|row| batch.position(row)).collect();
        assert!(
            positions.is_sorted()
                && batch.indexes().all(|row| batch.received(row).starts_with(batch.event_type.name.as_bytes()))
        );
    }
    assert_eq!(effects.tally.received, 2_000);
    assert!(
        effects.dead.iter().any(|letter| letter.reason == Reason::UnknownType && letter.message.contains("\"type20\""))
    );
    assert!(effects.dead.is_sorted_by_key(|letter| letter.position));
}

#[test]
fn parts_of_a_chunk_give_the_rows_of_the_whole() {
    let mut stage = build(&Tsv, json!({"type_from": {"column": 0}, "separator": ";"}), &twenty());
    let whole = chunk(interleaved(";").as_bytes(), 77, Framing::Lines);
    let expected = summary(&run(&mut *stage, whole.clone()));
    assert!(expected.0.len() > 1_500 && expected.1.len() > 50);
    assert_eq!(in_parts(&mut *stage, whole), expected);
}

#[test]
fn the_type_may_be_in_any_column() {
    let mut stage = build(&Tsv, json!({"type_from": {"column": 4}}), &[play()]);
    let effects = lines(&mut *stage, format!("{T}\tann\t1\tx\tplay\r\n{T}\tann\t1\tx\tstop\r\n{T}\tann\n").as_bytes());
    assert_eq!(cells(&effects)[0][1..], ["ann", "1", "x"]);
    let reasons: Vec<Reason> = effects.dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::UnknownType, Reason::Malformed]);
}

#[test]
fn a_header_is_checked_where_a_file_begins_and_nowhere_else() {
    let options = json!({"header": true, "columns": ["user", "", "at"]});
    let mut stage = build(&Tsv, options, &[play()]);
    let effects = lines(&mut *stage, format!("\u{feff}user\tanything\tat\r\nann\t?\t{T}\n").as_bytes());
    assert_eq!(cells(&effects), [["1357035300000", "ann", "null", "null"]]);
    assert_eq!(effects.tally.received, 1);
    let effects = lines(&mut *stage, format!("at\tanything\tuser\nann\t?\t{T}\n").as_bytes());
    assert_eq!(dead(&effects), [(0, Reason::Malformed)]);
    assert!(effects.dead[0].message.contains("\"user\\t-\\tat\""), "{}", effects.dead[0].message);
    assert_eq!(effects.tally.sent, 1);
    let later = run(&mut *stage, chunk(b"user\tx\tat\n", 10, Framing::Lines));
    assert_eq!(dead(&later), [(10, Reason::BadValue)]);
}

#[test]
fn messages_have_their_own_positions() {
    let one = format!("{T}\tann\t1\tx");
    let bytes = format!("{one}\nBAD{one}");
    let starts = [0, one.len() as u32 + 1, one.len() as u32 + 4];
    let lens = [one.len() as u32 + 1, 3, one.len() as u32];
    let framing = messages(&[1_000, 1_002, 1_003], &starts, &lens);
    let mut stage = build(&Tsv, json!({}), &[play()]);
    let whole = chunk(bytes.as_bytes(), 1_000, framing);
    let effects = run(&mut *stage, whole.clone());
    assert_eq!(rows(&effects).iter().map(|row| row.1).collect::<Vec<_>>(), [1_000, 1_003]);
    assert_eq!(rows(&effects)[1].3, one.as_bytes());
    assert_eq!(dead(&effects), [(1_002, Reason::Malformed)]);
    assert_eq!(in_parts(&mut *stage, whole), summary(&effects));
}

#[test]
fn a_tombstone_is_a_dead_letter_and_an_empty_message_is_another() {
    let one = format!("{T}\tann\t1\tx");
    let framing = messages(&[5, 6, 7], &[0, 0, 0], &[one.len() as u32, u32::MAX, 0]);
    let effects = run(&mut *build(&Tsv, json!({}), &[play()]), chunk(one.as_bytes(), 5, framing));
    assert_eq!(dead(&effects), [(6, Reason::NoValue), (7, Reason::Malformed)]);
    assert_eq!((effects.tally.received, effects.tally.sent), (3, 1));
}

#[test]
fn garbage_is_all_accounted_for() {
    let mut random = 3u64;
    let bytes: Vec<u8> = (0..100_000)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 35) as u8
        })
        .collect();
    let effects = lines(&mut *one(), &bytes);
    assert_eq!(effects.tally.received, effects.tally.dead);
    assert!(effects.tally.dead > 100);
}

#[test]
fn plan_reports_what_columns_can_t_carry() {
    let nested = event_type("nested", &format!(r#"{AT},{{"name":"l","type":{{"type":"array","items":"int"}}}}"#));
    let codes = |options, types: &[Arc<EventType>]| -> Vec<&'static str> {
        findings(&Tsv, options, types).into_iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(json!({}), &[nested]), ["cannot-carry"]);
    assert_eq!(codes(json!({"separator": "ab"}), &[play()]), ["bad-separator"]);
    assert_eq!(
        codes(json!({"separator": "\n", "type_from": {"field": "x"}}), &[play()]),
        ["bad-separator", "bad-type-from"]
    );
    assert_eq!(codes(json!({}), &twenty()), ["missing-type-from"]);
    assert_eq!(codes(json!({"type_from": {"const": "stop"}}), &[play()]), ["unknown-type"]);
    assert_eq!(codes(json!({"type_from": {"column": 5}}), &[play()]), ["unknown-column"]);
    assert_eq!(
        codes(json!({"columns": ["at", "at", "who"]}), &[play()]),
        ["repeated-column", "unknown-field", "missing-column"]
    );
    assert_eq!(codes(json!({"header": true, "type_from": {"column": 0}}), &twenty()), ["ambiguous-header"]);
    assert_eq!(codes(json!({}), &[]), ["no-types"]);
}
