//! Every kind of field, in every order of nullability, with every codec, read back by `apache_avro`.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType;
use serde_json::{Value, json};
use tidemill_core::{Batch, EventType, Field, FieldKind};

use super::{HOUR, Rig, Root, input, limits, typed};
use crate::sink::cat::cat;
use crate::sink::json::json_of;

/// A schema with a field for every kind and order of nullability, and some that are nested deeply.
fn all_kinds() -> Arc<EventType> {
    let mut fields = vec![json!({"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}})];
    let logical = |base: &str, logical: &str| json!({"type": base, "logicalType": logical});
    for order in ["required", "null_first", "null_last"] {
        let decimal_fixed = |size: u32, precision: u32| {
            json!({"type": "fixed", "name": format!("dec{size}_{order}"), "size": size,
                "logicalType": "decimal", "precision": precision, "scale": 3})
        };
        let inner = json!({"type": "record", "name": format!("inner_{order}"), "fields": [
            {"name": "a", "type": "string"}, {"name": "b", "type": ["null", "long"]}, {"name": "c", "type": ["double", "null"]}]});
        let deep = json!({"type": "record", "name": format!("deep_{order}"), "fields": [
            {"name": "x", "type": {"type": "array", "items": {"type": "array", "items": ["int", "null"]}}},
            {"name": "y", "type": {"type": "map", "values": {"type": "array", "items": "bytes"}}}]});
        let kinds = [
            ("boolean", json!("boolean")),
            ("int", json!("int")),
            ("long", json!("long")),
            ("float", json!("float")),
            ("double", json!("double")),
            ("bytes", json!("bytes")),
            ("string", json!("string")),
            ("uuid", logical("string", "uuid")),
            ("millis", logical("long", "timestamp-millis")),
            ("micros", logical("long", "timestamp-micros")),
            ("date", logical("int", "date")),
            ("enum", json!({"type": "enum", "name": format!("enum_{order}"), "symbols": ["A", "B", "C"]})),
            ("fixed", json!({"type": "fixed", "name": format!("fixed_{order}"), "size": 5})),
            ("decimal", json!({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9})),
            ("decimal8", decimal_fixed(8, 18)),
            ("decimal16", decimal_fixed(16, 38)),
            ("array", json!({"type": "array", "items": ["null", "string"]})),
            ("map", json!({"type": "map", "values": ["long", "null"]})),
            ("record", inner),
            ("deep", deep),
        ];
        for (name, kind) in kinds {
            let of_order = match order {
                "required" => kind,
                "null_first" => json!(["null", kind]),
                _ => json!([kind, "null"]),
            };
            fields.push(json!({"name": format!("{name}_{order}"), "type": of_order}));
        }
    }
    let schema = json!({"type": "record", "name": "All", "fields": fields}).to_string();
    typed(
        "all",
        &schema,
        &[
            "string_required",
            "uuid_required",
            "enum_required",
            "fixed_required",
            "decimal_required",
            "decimal8_required",
            "boolean_required",
            "float_required",
            "double_required",
            "date_required",
            "int_required",
            "micros_required",
            "bytes_required",
            "at",
        ],
    )
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes())
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number with any count of bits.
    fn any(&mut self) -> i64 {
        let shift = self.below(64);
        (self.next() as i64) >> shift
    }

    fn text(&mut self) -> String {
        let len = self.below(30);
        (0..len).map(|_| ['a', 'é', '日', '"', '\n', '7'][self.below(6) as usize]).collect()
    }
}

/// A random column of `rows` values; a third is null where the field may be.
fn column(field: &Field, rows: usize, random: &mut Random) -> ArrayRef {
    let nulls: Option<NullBuffer> =
        field.is_nullable().then(|| (0..rows).map(|_| random.below(3) > 0).collect::<Vec<bool>>().into());
    let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let lengths: Vec<usize> = (0..rows).map(|row| if is_null(row) { 0 } else { random.below(4) as usize }).collect();
    let total: usize = lengths.iter().sum();
    let offsets = || OffsetBuffer::<i32>::from_lengths(lengths.iter().copied());
    let mut many =
        |value: &mut dyn FnMut(&mut Random) -> i64| -> Vec<i64> { (0..rows).map(|_| value(random)).collect() };
    match &field.kind {
        FieldKind::Boolean => {
            Arc::new(BooleanArray::new(many(&mut Random::any).iter().map(|v| v % 2 == 0).collect(), nulls))
        }
        FieldKind::Int => {
            Arc::new(Int32Array::new(many(&mut Random::any).into_iter().map(|v| v as i32).collect(), nulls))
        }
        FieldKind::Long => Arc::new(Int64Array::new(many(&mut Random::any).into(), nulls)),
        FieldKind::Float => {
            let values = many(&mut Random::any).into_iter().map(|v| if v == 0 { f32::NAN } else { v as f32 / 7.0 });
            Arc::new(Float32Array::new(values.collect(), nulls))
        }
        FieldKind::Double => {
            let values =
                many(&mut Random::any).into_iter().map(|v| if v == -1 { f64::NEG_INFINITY } else { v as f64 / 7.0 });
            Arc::new(Float64Array::new(values.collect(), nulls))
        }
        FieldKind::Bytes => {
            Arc::new((0..rows).map(|row| (!is_null(row)).then(|| random.text())).collect::<BinaryViewArray>())
        }
        FieldKind::String => {
            Arc::new((0..rows).map(|row| (!is_null(row)).then(|| random.text())).collect::<StringViewArray>())
        }
        FieldKind::Uuid => {
            // Upper case, which a reader that knows uuids would turn into lower case.
            let mut uuid =
                || format!("{:08X}-0000-4000-8000-{:012X}", random.next() as u32, random.next() & 0xffff_ffff_ffff);
            Arc::new((0..rows).map(|row| (!is_null(row)).then(&mut uuid)).collect::<StringViewArray>())
        }
        FieldKind::TimestampMillis => {
            let values = many(&mut |random| random.any() % 60_000_000_000_000);
            Arc::new(TimestampMillisecondArray::new(values.into(), nulls).with_timezone("UTC"))
        }
        FieldKind::TimestampMicros => {
            let values = many(&mut |random| random.any() % 60_000_000_000_000_000);
            Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
        }
        FieldKind::Date => {
            let values = many(&mut |random| random.any() % 700_000);
            Arc::new(Date32Array::new(values.into_iter().map(|v| v as i32).collect(), nulls))
        }
        FieldKind::Enum(symbols) => {
            let keys = many(&mut |random| random.below(3) as i64).into_iter().map(|v| v as i32).collect();
            let symbols = StringArray::from_iter_values(symbols.iter());
            Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::new(keys, nulls), Arc::new(symbols)))
        }
        FieldKind::Fixed(size) => {
            let bytes: Vec<u8> = (0..rows * size).map(|_| random.next() as u8).collect();
            Arc::new(FixedSizeBinaryArray::new(*size as i32, Buffer::from(bytes), nulls))
        }
        FieldKind::Decimal { precision, scale, .. } => {
            let limit = 10i128.pow(u32::from(*precision) - 1);
            let value = |random: &mut Random| (i128::from(random.any()) * i128::from(random.any())) % limit;
            let values = (0..rows).map(|_| value(random)).collect();
            Arc::new(Decimal128Array::new(values, nulls).with_precision_and_scale(*precision, *scale).unwrap())
        }
        FieldKind::Array(item) => {
            let values = column(item, total, random);
            Arc::new(ListArray::new(Arc::new(item.arrow()), offsets(), values, nulls))
        }
        FieldKind::Map(value) => {
            let DataType::Map(entries, _) = field.kind.arrow() else { unreachable!() };
            let DataType::Struct(fields) = entries.data_type() else { unreachable!() };
            let keys = StringViewArray::from_iter_values((0..total).map(|n| format!("key {n:05}")));
            let columns: Vec<ArrayRef> = vec![Arc::new(keys), column(value, total, random)];
            let structs = StructArray::new(fields.clone(), columns, None);
            Arc::new(MapArray::new(entries.clone(), offsets(), structs, nulls, false))
        }
        FieldKind::Record(fields) => {
            let columns = fields.iter().map(|field| column(field, rows, random)).collect();
            let DataType::Struct(arrow) = field.kind.arrow() else { unreachable!() };
            Arc::new(StructArray::new(arrow, columns, nulls))
        }
    }
}

fn random_batch(event_type: &Arc<EventType>, rows: usize, random: &mut Random) -> Batch {
    let mut columns: Vec<ArrayRef> = event_type.fields.iter().map(|field| column(field, rows, random)).collect();
    let times = (0..rows as i64).map(|row| row % HOUR);
    columns[0] = Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"));
    tidemill_testkit::batch(event_type, columns)
}

#[test]
fn every_kind_of_field_comes_back_with_every_codec() {
    let event_type = all_kinds();
    for (codec, level) in [
        ("null", None),
        ("deflate", None),
        ("deflate", Some(9)),
        ("snappy", None),
        ("zstandard", None),
        ("zstandard", Some(7)),
    ] {
        let mut random = Random(7);
        let options = json!({"codec": codec, "level": level, "block_size": 8_192});
        let mut rig = Rig::of(input(options, std::slice::from_ref(&event_type), limits(HOUR)));
        let batch = random_batch(&event_type, 500, &mut random);
        // Only some rows count, as behind dedup.
        let batch = batch.select((0..500).filter(|row| row % 7 != 3).collect());
        let expected: Vec<Value> = batch
            .indexes()
            .map(|row| {
                let member = |(field, column): (&Field, &ArrayRef)| (field.name.clone(), json_of(field, column, row));
                Value::Object(event_type.fields.iter().zip(batch.records.columns()).map(member).collect())
            })
            .collect();
        rig.write(batch);
        let report = rig.verified();
        assert_eq!((report.files, report.rows as usize), (1, expected.len()));

        let root = Root::new();
        rig.disk.write_to(root.path());
        let path = rig.disk.published.keys().find(|path| path.ends_with(".avro")).unwrap();
        let mut out = Vec::new();
        assert_eq!(cat(&root.path().join(path), None, &mut out).unwrap(), expected.len() as u64);
        let lines = String::from_utf8(out).unwrap();
        for (line, expected) in lines.lines().zip(&expected) {
            assert_eq!(line, expected.to_string(), "{codec}");
        }
        let mut out = Vec::new();
        assert_eq!(cat(&root.path().join(path), Some(3), &mut out).unwrap(), 3);
        assert_eq!(out, lines.split_inclusive('\n').take(3).collect::<String>().as_bytes());
    }
}

#[test]
fn a_null_where_none_may_be_is_an_error() {
    let event_type = super::play();
    let mut batch = super::plays(0, 3, 0);
    let ids: ArrayRef = Arc::new(StringViewArray::from_iter([Some("a"), None, Some("c")]));
    let open = arrow_schema::Schema::new(
        event_type.fields.iter().map(|field| field.arrow().with_nullable(true)).collect::<Vec<_>>(),
    );
    let columns = vec![ids, batch.records.column(1).clone(), batch.records.column(2).clone()];
    batch.records = arrow_array::RecordBatch::try_new(Arc::new(open), columns).unwrap();
    let mut rig = Rig::new(json!({}));
    let failed = rig.stage.process(&tidemill_core::Input::Rows(batch), &mut tidemill_core::Effects::default());
    assert!(failed.unwrap_err().message.contains("`id` is null"));
}
