//! `filter` against an interpreter that looks at one row at a time.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::json;
use tidemill_core::{Batch, EventType, Finding};

use super::kind;
use super::parser::{Compare, Node, Operand, Value, parse};
use crate::dedup::support::{Logs, batch, build, event_type, input, limits, process};

const SYMBOLS: [&str; 3] = ["low", "mid", "high"];

fn events() -> Arc<EventType> {
    let fields = r#"{"name":"n","type":["null","int"]},{"name":"big","type":"long"},{"name":"f","type":["null","float"]},
        {"name":"d","type":"double"},{"name":"text","type":["string","null"]},{"name":"flag","type":["null","boolean"]},
        {"name":"level","type":["null",{"type":"enum","name":"Level","symbols":["low","mid","high"]}]},
        {"name":"micros","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"day","type":{"type":"int","logicalType":"date"}},{"name":"raw","type":"bytes"}"#;
    event_type("event", fields, &[])
}

/// One value of a row, for the interpreter.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Whole(i128),
    Real(f64),
    Text(String),
    Boolean(bool),
}

type Row = Vec<(&'static str, Cell)>;

fn rows(seed: u64, count: usize) -> (Vec<Row>, Batch) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut below = move |most: u64| (random.next_u64() % most) as i64;
    let texts = ["", "se", "SE", "twelve bytes", "thirteen byte", "a text that is much longer"];
    let reals = [0.0, -0.0, 1.5, -2.0, f64::NAN, f64::INFINITY];
    let made: Vec<Row> = (0..count)
        .map(|_| {
            let nulls: Vec<bool> = (0..6).map(|_| below(4) == 0).collect();
            let nullable = |at: usize, cell: Cell| if nulls[at] { Cell::Null } else { cell };
            vec![
                ("at", Cell::Whole(i128::from(below(4)) * 1_000)),
                ("n", nullable(0, Cell::Whole((below(7) - 3).into()))),
                ("big", Cell::Whole([0, i64::MAX, i64::MIN, 2][below(4) as usize].into())),
                ("f", nullable(1, Cell::Real(reals[below(6) as usize]))),
                ("d", Cell::Real(reals[below(6) as usize])),
                ("text", nullable(2, Cell::Text(texts[below(6) as usize].into()))),
                ("flag", nullable(3, Cell::Boolean(below(2) == 0))),
                ("level", nullable(4, Cell::Text(SYMBOLS[below(3) as usize].into()))),
                ("micros", nullable(5, Cell::Whole((below(8) * 500).into()))),
                ("day", Cell::Whole((below(4) - 2).into())),
            ]
        })
        .collect();
    let batch = to_batch(&made);
    (made, batch)
}

fn to_batch(rows: &[Row]) -> Batch {
    let whole = |at: usize| {
        rows.iter().map(move |row| if let Cell::Whole(value) = row[at].1 { Some(value as i64) } else { None })
    };
    let int = |at: usize| whole(at).map(|value| value.map(|value| value as i32));
    let real =
        |at: usize| rows.iter().map(move |row| if let Cell::Real(value) = row[at].1 { Some(value) } else { None });
    let text = |at: usize| {
        rows.iter().map(move |row| if let Cell::Text(value) = &row[at].1 { Some(value.as_str()) } else { None })
    };
    let codes: Int32Array =
        text(7).map(|value| SYMBOLS.iter().position(|symbol| Some(*symbol) == value).map(|at| at as i32)).collect();
    let symbols = StringArray::from_iter_values(SYMBOLS);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            whole(0)
                .map(|value| value.map(|micros| micros / 1_000))
                .collect::<TimestampMillisecondArray>()
                .with_timezone("UTC"),
        ),
        Arc::new(int(1).collect::<Int32Array>()),
        Arc::new(whole(2).collect::<Int64Array>()),
        Arc::new(real(3).map(|value| value.map(|value| value as f32)).collect::<Float32Array>()),
        Arc::new(real(4).collect::<Float64Array>()),
        Arc::new(text(5).collect::<StringViewArray>()),
        Arc::new(
            rows.iter()
                .map(|row| if let Cell::Boolean(value) = row[6].1 { Some(value) } else { None })
                .collect::<BooleanArray>(),
        ),
        Arc::new(DictionaryArray::<Int32Type>::new(codes, Arc::new(symbols))),
        Arc::new(whole(8).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(int(9).collect::<Date32Array>()),
        Arc::new(arrow_array::BinaryViewArray::from_iter_values(rows.iter().map(|_| b"x"))),
    ];
    batch(&events(), columns)
}

fn cell(operand: &Operand, row: &Row, other: &Operand) -> Cell {
    let of_time = |text: &str, unit: &str| match unit {
        "day" => Cell::Whole(["1969-12-31", "1970-01-01"].iter().position(|day| *day == text).unwrap() as i128 - 1),
        _ => Cell::Whole(text.parse::<jiff::Timestamp>().unwrap().as_microsecond().into()),
    };
    match (&operand.value, &other.value) {
        (Value::Field(name), _) => row.iter().find(|(known, _)| known == name).unwrap().1.clone(),
        (Value::Integer(value), _) => Cell::Whole((*value).into()),
        (Value::Float(value), _) => Cell::Real(*value),
        (Value::Boolean(value), _) => Cell::Boolean(*value),
        (Value::Text(text), Value::Field(field)) if ["day", "at", "micros"].contains(&field.as_str()) => {
            of_time(text, field)
        }
        (Value::Text(text), _) => Cell::Text(text.clone()),
    }
}

fn compare(a: &Cell, op: Compare, b: &Cell) -> Option<bool> {
    let order = match (a, b) {
        (Cell::Null, _) | (_, Cell::Null) => return None,
        (Cell::Whole(a), Cell::Whole(b)) => Some(a.cmp(b)),
        (Cell::Real(a), Cell::Real(b)) => a.partial_cmp(b),
        // All whole numbers of these tests that meet a float are exact as doubles, or far from it.
        (Cell::Whole(a), Cell::Real(b)) => (*a as f64).partial_cmp(b),
        (Cell::Real(a), Cell::Whole(b)) => a.partial_cmp(&(*b as f64)),
        (Cell::Text(a), Cell::Text(b)) => Some(a.cmp(b)),
        (Cell::Boolean(a), Cell::Boolean(b)) => Some(a.cmp(b)),
        _ => panic!("{a:?} and {b:?}"),
    };
    let is = |wanted: &[Ordering]| order.is_some_and(|order| wanted.contains(&order));
    Some(match op {
        Compare::Equal => is(&[Ordering::Equal]),
        Compare::NotEqual => !is(&[Ordering::Equal]),
        Compare::Less => is(&[Ordering::Less]),
        Compare::LessOrEqual => is(&[Ordering::Less, Ordering::Equal]),
        Compare::Greater => is(&[Ordering::Greater]),
        Compare::GreaterOrEqual => is(&[Ordering::Greater, Ordering::Equal]),
    })
}

fn interpret(node: &Node, row: &Row) -> Option<bool> {
    match node {
        Node::Not(inner) => interpret(inner, row).map(|value| !value),
        Node::And(parts) => {
            let values: Vec<_> = parts.iter().map(|part| interpret(part, row)).collect();
            if values.contains(&Some(false)) { Some(false) } else { (!values.contains(&None)).then_some(true) }
        }
        Node::Or(parts) => {
            let values: Vec<_> = parts.iter().map(|part| interpret(part, row)).collect();
            if values.contains(&Some(true)) { Some(true) } else { (!values.contains(&None)).then_some(false) }
        }
        Node::IsNull { operand, negated } => Some((cell(operand, row, operand) == Cell::Null) != *negated),
        Node::Test(operand) => compare(&cell(operand, row, operand), Compare::Equal, &Cell::Boolean(true)),
        Node::Compare { left, op, right } => compare(&cell(left, row, right), *op, &cell(right, row, left)),
        Node::In { left, items } => {
            let value = cell(left, row, left);
            let equal: Option<Vec<bool>> =
                items.iter().map(|item| compare(&value, Compare::Equal, &cell(item, row, left))).collect();
            equal.map(|equal| equal.contains(&true))
        }
    }
}

fn passed(condition: &str, batch: Batch) -> Vec<usize> {
    let planned = input("filter", json!({ "where": condition }), &[events()], limits());
    let mut stage =
        build(&*kind(), &planned, None, &Logs::default()).unwrap_or_else(|error| panic!("{condition}: {error}"));
    let effects = process(&mut *stage, batch);
    assert_eq!(effects.tally.filtered, effects.tally.received - effects.tally.sent);
    effects.batches.iter().flat_map(|batch| batch.indexes().collect::<Vec<_>>()).collect()
}

#[test]
fn random_expressions_let_the_same_rows_pass_as_an_interpreter() {
    let atoms = [
        "n OP 1",
        "n OP -0.5",
        "1 OP n",
        "n OP 1e30",
        "big OP 9223372036854775807",
        "big OP 2",
        "big OP -1e30",
        "f OP 1.5",
        "f OP 0",
        "d OP 1.5",
        "d OP -2",
        "text OP 'se'",
        "text OP \"twelve bytes\"",
        "text OP 'thirteen byte'",
        "level OP 'mid'",
        "micros OP '1970-01-01T00:00:00.001Z'",
        "at OP '1970-01-01T00:00:00.0015Z'",
        "at OP '1970-01-01T00:00:00.002Z'",
        "day OP '1970-01-01'",
        "n OP big",
        "f OP d",
        "n OP d",
        "text OP level",
        "at OP micros",
    ];
    let fixed = [
        "flag",
        "flag == true",
        "flag != true",
        "false != flag",
        "true",
        "n is null",
        "n is not null",
        "text is null",
        "level is null",
        "at is null",
        "n in (1, 2.0, -3, 0.5)",
        "text in ('se', 'a text that is much longer')",
        "level in ('low', 'high')",
        "d in (1.5, 0)",
        "f in (0, -2)",
        "day in ('1970-01-01')",
        "raw is not null",
        "micros in ('1970-01-01T00:00:00.001Z', '1970-01-01T00:00:00.002Z')",
    ];
    let ops = ["==", "!=", "<", "<=", ">", ">="];
    let mut random = Xoshiro256PlusPlus::seed_from_u64(11);
    let mut below = move |most: usize| (random.next_u64() % most as u64) as usize;
    let mut expressions: Vec<String> = fixed.iter().map(|atom| (*atom).to_owned()).collect();
    expressions.extend(atoms.iter().flat_map(|atom| ops.map(|op| atom.replace("OP", op))));
    let simple = expressions.len();
    for _ in 0..300 {
        let (a, b) = (below(expressions.len()), below(simple));
        expressions.push(match below(4) {
            0 => format!("not ({})", expressions[a]),
            1 => format!("({}) and {}", expressions[a], expressions[b]),
            2 => format!("not {} and {} or {}", expressions[b], expressions[b], expressions[below(simple)]),
            _ => format!("{} or ({})", expressions[b], expressions[a]),
        });
        if expressions.last().is_some_and(|last| last.len() > 400) {
            expressions.pop();
        }
    }
    let (mut rows, batch) = rows(5, 333);
    rows.iter_mut().for_each(|row| row.push(("raw", Cell::Text("x".into()))));
    for expression in &expressions {
        let node = parse(expression).unwrap_or_else(|fault| panic!("{expression}: {fault:?}"));
        let expected: Vec<usize> = (0..rows.len()).filter(|row| interpret(&node, &rows[*row]) == Some(true)).collect();
        assert_eq!(passed(expression, batch.clone()), expected, "{expression}");
        let some: Vec<u32> = (0..rows.len() as u32).step_by(3).collect();
        let narrowed: Vec<usize> = expected.iter().copied().filter(|row| row % 3 == 0).collect();
        assert_eq!(passed(expression, batch.select(some)), narrowed, "{expression} of a selection");
    }
}

#[test]
fn a_batch_that_passes_whole_is_not_selected() {
    let (_, batch) = rows(1, 10);
    let planned = input("filter", json!({ "where": "at is not null" }), &[events()], limits());
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    let effects = process(&mut *stage, batch.clone());
    assert!(effects.batches[0].selection.is_none());
    assert!(passed("at is null", batch).is_empty());
}

fn findings(condition: &str) -> Vec<Finding> {
    kind().plan(&input("filter", json!({ "where": condition }), &[events()], limits())).unwrap_err()
}

#[test]
fn faults_name_the_field_and_point_at_it() {
    let only = |condition: &str| {
        let mut findings = findings(condition);
        assert_eq!(findings.len(), 1, "{condition}: {findings:?}");
        let finding = findings.remove(0);
        let at = condition[finding.range.clone().unwrap()].to_owned();
        (finding.code, at, finding.help.unwrap_or_default())
    };
    assert_eq!(only("flagg and n == 1"), ("unknown-field", "flagg".into(), "did you mean `flag`?".into()));
    assert_eq!(only("n == 'x'").1, "'x'");
    assert_eq!(only("text > 1").0, "type-mismatch");
    assert_eq!(only("n").0, "type-mismatch");
    assert_eq!(only("level == 'hgih'"), ("unknown-symbol", "'hgih'".into(), "did you mean \"high\"?".into()));
    assert_eq!(only("level in ('low', 'x')").1, "'x'");
    assert_eq!(only("at > 'yesterday'").1, "'yesterday'");
    assert_eq!(only("day == '2024-02-30'").1, "'2024-02-30'");
    assert_eq!(only("raw == 'x'").1, "raw");
    assert_eq!(only("n == text").1, "text");
    assert_eq!(only("flag < true").0, "type-mismatch");
    assert_eq!(only("flag in (true)").1, "flag");
    assert_eq!(only("1 == 1").1, "1 == 1");
    assert_eq!(only("d == 9007199254740993").1, "9007199254740993");
    assert_eq!(only("n = 1").0, "bad-expression");
    assert_eq!(findings("a == 1 and not (b == 2 or n == 'x')").len(), 3, "every fault is found");
}
