use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::{Effects, EventType, Framing, Reason};

use super::Json;
use crate::parse::testing::*;

const T: &str = "2013-01-01T10:15:00Z";

fn play() -> Arc<EventType> {
    let fields = r#"{"name":"user","type":"string"},{"name":"ms","type":["null","int"]}"#;
    event_type("play", &format!("{AT},{fields}"))
}

fn rich() -> Arc<EventType> {
    let fields = r#"{"name":"b","type":["null","boolean"]},{"name":"l","type":["null","long"]},{"name":"f","type":["null","float"]},{"name":"d","type":["null","double"]},
        {"name":"by","type":["null","bytes"]},{"name":"u","type":["null",{"type":"string","logicalType":"uuid"}]},
        {"name":"da","type":["null",{"type":"int","logicalType":"date"}]},{"name":"e","type":["null",{"type":"enum","name":"E","symbols":["A","BB"]}]},
        {"name":"fx","type":["null",{"type":"fixed","name":"F","size":2}]},
        {"name":"de","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
        {"name":"us","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"list","type":["null",{"type":"array","items":["null","int"]}]},{"name":"map","type":["null",{"type":"map","values":"string"}]},
        {"name":"rec","type":["null",{"type":"record","name":"R","fields":[{"name":"x","type":"int"},{"name":"y","type":["null",{"type":"array","items":{"type":"record","name":"S","fields":[{"name":"z","type":"string"}]}}]}]}]}"#;
    event_type("rich", &format!("{AT},{fields}"))
}

fn parse(options: Value, types: &[Arc<EventType>], text: &str) -> Effects {
    lines(&mut *build(&Json, options, types), text.as_bytes())
}

#[test]
fn members_are_fields_by_name_in_any_order() {
    let text = format!(
        "{{\"at\":\"{T}\",\"user\":\"ann\",\"ms\":1}}\r\n\n{{\"x\":{{\"user\":[1]}},\"ms\":null,\"us\\u0065r\":\"b\\u00f6rje\\n\",\"at\":\"{T}\"}}\n{{\"user\":\"c\",\"at\":\"{T}\"}}"
    );
    let effects = parse(json!({}), &[play()], &text);
    let at = "1357035300000";
    assert_eq!(cells(&effects), [[at, "ann", "1"], [at, "börje\n", "null"], [at, "c", "null"]]);
    assert_eq!(rows(&effects)[1].1, text.find("{\"x\"").unwrap() as u64);
    assert!(effects.batches[0].rows.positions.is_none());
}

#[test]
fn every_kind_has_its_json() {
    let one = |member: &str| {
        let effects = parse(json!({}), &[rich()], &format!("{{\"at\":\"{T}\",{member}}}\n"));
        let name = member.split('"').nth(1).unwrap();
        let (at, _) = rich().field(name).map(|(at, field)| (at, field.clone())).unwrap();
        match &effects.dead[..] {
            [] => cells(&effects)[0][at].clone(),
            letters => letters[0].message.clone(),
        }
    };
    for (member, expected) in [
        (r#""b":true"#, "true"),
        (r#""l":-9223372036854775808"#, "-9223372036854775808"),
        (r#""f":1"#, "1"),
        (r#""d":-0.5e1"#, "-5"),
        (r#""by":"00fF""#, "[00, ff]"),
        (r#""u":"123e4567-e89b-12d3-a456-426614174000""#, "123e4567-e89b-12d3-a456-426614174000"),
        (r#""da":"1970-01-02""#, "1"),
        (r#""e":"BB""#, "BB"),
        (r#""fx":"0a0b""#, "[0a, 0b]"),
        (r#""de":"12.5""#, "1250"),
        (r#""de":12"#, "1200"),
        (r#""us":"1970-01-01T00:00:00.000001Z""#, "1"),
        (r#""list":[1,null,-2]"#, "[1,null,-2]"),
        (r#""list":[]"#, "[]"),
        (r#""list":null"#, "null"),
        (r#""map":{"a":"1","b":"2"}"#, "{a=1,b=2}"),
        (r#""rec":{"x":1,"y":[{"z":"p"},{"z":"q"}],"more":{}}"#, "(1,[(p),(q)])"),
        (r#""rec":{"x":1}"#, "(1,null)"),
    ] {
        assert_eq!(one(member), expected, "{member}");
    }
    for (member, expected) in [
        (r#""b":1"#, "field `b`: \"1\" is not true, false, 1 or 0, or null"),
        (r#""l":9223372036854775808"#, "field `l`: \"9223372036854775808\" is not a whole number of 64 bits, or null"),
        (r#""l":1.0"#, "field `l`: \"1\" is not a whole number of 64 bits, or null"),
        (r#""l":[1]"#, "field `l`: \"[...]\" is not"),
        (r#""l":{}"#, "field `l`: \"{...}\" is not"),
        (r#""f":1e39"#, "field `f`: \"1"),
        (r#""de":12.5"#, "field `de`: \"12.5\" is not a decimal number"),
        (r#""fx":"0a""#, "field `fx`: \"0a\" is not 2 bytes in hex"),
        (r#""e":"C""#, "field `e`: \"C\" is not one of A, BB, or null"),
        (r#""us":1"#, "field `us`: \"1\" is not a time such as"),
        (r#""list":[1,"x"]"#, "field `list.item`: \"x\" is not a whole number"),
        (r#""map":{"a":null}"#, "field `map.value`: \"null\" is not text"),
        (r#""rec":{"y":[]}"#, "field `rec.x`: it is missing"),
        (r#""rec":{"x":1,"y":[{"z":1}]}"#, "field `rec.y.item.z`: \"1\" is not text"),
        (r#""b":true,"b":true"#, "field `b`: it is given twice"),
        (r#""d":1e999"#, "it is not a JSON object: number out of range"),
    ] {
        assert!(one(member).starts_with(expected), "{member}: {}", one(member));
    }
}

#[test]
fn a_double_of_17_digits_is_the_one_that_was_written() {
    let numbers = [94.52706955539223, 23.308445025757262, 1.4559974924812313, 0.1 + 0.2, f64::MAX, f64::MIN_POSITIVE];
    let text: String = numbers.iter().map(|number| format!("{{\"at\":\"{T}\",\"d\":{number:?}}}\n")).collect();
    let effects = parse(json!({}), &[rich()], &text);
    let (at, _) = rich().field("d").map(|(at, field)| (at, field.clone())).unwrap();
    let found: Vec<String> = cells(&effects).into_iter().map(|mut row| row.swap_remove(at)).collect();
    assert_eq!(found, numbers.map(|number| number.to_string()));
}

#[test]
fn a_row_with_a_fault_inside_leaves_its_neighbours_whole() {
    let right =
        |n: usize| format!("{{\"at\":\"{T}\",\"list\":[{n},{n}],\"rec\":{{\"x\":{n},\"y\":[{{\"z\":\"{n}\"}}]}}}}\n");
    let wrong = format!("{{\"at\":\"{T}\",\"list\":[7,7,7],\"rec\":{{\"x\":7,\"y\":[{{\"z\":\"7\"}},{{}}]}}}}\n");
    let text = (0..50).map(|n| right(n) + if n % 3 == 0 { &wrong } else { "" }).collect::<String>();
    let mut stage = build(&Json, json!({}), &[rich()]);
    let effects = lines(&mut *stage, text.as_bytes());
    let found: Vec<String> = cells(&effects).into_iter().map(|row| row[12].clone() + &row[14]).collect();
    assert_eq!(found, (0..50).map(|n| format!("[{n},{n}]({n},[({n})])")).collect::<Vec<_>>());
    assert_eq!(effects.tally.dead, 17);
    let whole = chunk(text.as_bytes(), 0, Framing::Lines);
    assert_eq!(in_parts(&mut *stage, whole), summary(&effects));
}

#[test]
fn what_is_no_object_is_malformed() {
    let deep = format!("{{\"at\":\"{T}\",\"rec\":{}", "[".repeat(150));
    let twice = format!("{{\"at\":\"{T}\",\"user\":\"x\"}} {{}}");
    for text in ["{", "[]", "1", "null", &twice, "\u{1}", "{\"at\":\"\x01\"}", "{'a':1}"] {
        let found = parse(json!({}), &[play()], text);
        assert_eq!(dead(&found), [(0, Reason::Malformed)], "{text}");
    }
    assert_eq!(dead(&parse(json!({}), &[play()], &deep)), [(0, Reason::Malformed)]);
    let mut stage = build(&Json, json!({}), &[play()]);
    let bad = [b"{\"at\":\"", T.as_bytes(), b"\",\"user\":\"\xff\"}\n"].concat();
    assert_eq!(dead(&lines(&mut *stage, &bad)), [(0, Reason::Malformed)]);
    assert_eq!(dead(&parse(json!({}), &[play()], "{}\n{\"at\":null}")), [(0, Reason::BadValue), (3, Reason::BadValue)]);
    let long = format!("{{\"at\":\"{T}\",\"user\":\"{}\"}}", "x".repeat(300));
    assert_eq!(dead(&parse(json!({}), &[play()], &long)), [(0, Reason::TooLarge)]);
}

#[test]
fn the_type_is_told_by_a_member_or_is_always_the_same() {
    let text = format!(
        "{{\"user\":\"ann\",\"at\":\"{T}\",\"type\":\"play\"}}\n{{\"type\":\"rich\",\"at\":\"{T}\"}}\n{{\"type\":\"stop\"}}\n{{\"type\":1}}\n{{\"a\":1}}\n"
    );
    let effects = parse(json!({"type_from": {"field": "type"}}), &[rich(), play()], &text);
    assert_eq!(effects.batches.iter().map(|batch| &*batch.event_type.name).collect::<Vec<_>>(), ["rich", "play"]);
    let reasons: Vec<Reason> = effects.dead.iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons, [Reason::UnknownType, Reason::Malformed, Reason::Malformed]);
    let effects = parse(json!({"type_from": {"const": "play"}}), &[rich(), play()], &text);
    assert_eq!(effects.tally.sent, 1);
    assert_eq!(findings(&Json, json!({}), &[rich(), play()])[0].code, "missing-type-from");
    assert_eq!(findings(&Json, json!({"type_from": {"column": 1}}), &[play()])[0].code, "bad-type-from");
}

#[test]
fn epochs_are_numbers_or_text() {
    let at = |unit: &str, value: &str| {
        let effects = parse(json!({"time": unit}), &[play()], &format!("{{\"user\":\"x\",\"at\":{value}}}"));
        match &effects.dead[..] {
            [] => cells(&effects)[0][0].clone(),
            letters => format!("{:?}", letters[0].reason),
        }
    };
    assert_eq!(at("epoch_s", "1357035300.123"), "1357035300123");
    assert_eq!(at("epoch_s", "-1"), "-1000");
    assert_eq!(at("epoch_ms", "\"5\""), "5");
    assert_eq!(at("epoch_us", "-1"), "-1");
    assert_eq!(at("epoch_s", "9223372036854775807"), "TimeOutOfRange");
    assert_eq!(at("epoch_s", "18446744073709551615"), "TimeOutOfRange");
    assert_eq!(at("epoch_ms", "253402300800000"), "TimeOutOfRange");
    assert_eq!(at("epoch_ms", "1357084800000000"), "TimeOutOfRange");
    assert_eq!(at("epoch_ms", "1357090000000"), "TooFarAhead");
    assert_eq!(at("iso8601", "1357035300"), "BadValue");
}
