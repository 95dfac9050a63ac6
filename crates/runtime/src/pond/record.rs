//! What lies in a pond.
//!
//! A record is: length of the payload (u32, little-endian), CRC32C of kind and payload (u32, little-endian), kind (u8), payload:
//!
//! | kind | payload |
//! | --- | --- |
//! | 1, events | [`Head`] in postcard, then one Arrow IPC stream with one batch: the fields of the type, strings and bytes without views; then, of events that were received, the bytes and the position of each |
//! | 2, replayed events | the same, with the stage where they enter behind the head |
//! | 3, remark on an hour | `HourNote` in postcard |
//! | 4, barrier | [`Barrier`] in postcard: behind what came before one, when that was anything, or when hours are sealed |
//!
//! A batch holds its rows only, not all of the bytes that its strings point into. Cost of a record of 113-byte events: see
//! `ARCHITECTURE.md`.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, RecordBatch, StringViewArray, UInt64Array, new_null_array,
};
use arrow_ipc::MetadataVersion;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use tidemill_core::{Batch, EventType, Horizon, HourNote, Origin, Partitions, Positions, RowOrigins};

use crate::audit::ByHour;

/// Bytes in front of a payload.
pub(super) const HEADER_BYTES: usize = 9;
const EVENTS: u8 = 1;
const REPLAYED: u8 = 2;
const NOTE: u8 = 3;
const BARRIER: u8 = 4;
/// Received bytes for which there is room in a record from the start; it grows for more.
const ROOM_BYTES: usize = 16 << 20;
/// Names of columns that no Avro field can have.
const RECEIVED: &str = ".received";
const POSITION: &str = ".position";

/// One record.
pub(super) enum Record {
    Rows(Batch),
    Note(HourNote),
    Barrier(Barrier),
}

/// A barrier of the region that writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Barrier {
    /// Types whose hours are sealed by it.
    pub(super) horizons: Vec<Horizon>,
    /// Positions of the sources: what all types have lies before them.
    pub(super) positions: Positions,
    /// Whether all that is before it in the pond lies below the positions.
    pub(super) is_whole: bool,
    /// The same of types that came by ways of their own.
    pub(super) positions_of: Vec<(Vec<Arc<str>>, Arc<Positions>)>,
    /// Types whose open revisions end.
    pub(super) revised: Vec<Arc<str>>,
    /// Partitions that were not waited for.
    pub(super) without: Partitions,
    /// By type and start of the hour: how many events came since the barrier before, and the sum of the hashes of
    /// their ids.
    pub(super) totals: ByHour,
}

/// What of a batch is not in its columns.
#[derive(Serialize, Deserialize)]
struct Head {
    event_type: Arc<str>,
    source: Arc<str>,
    partition: Arc<str>,
    first: u64,
    next: u64,
    arrived_at_ms: i64,
    /// Less than 4 GiB, like the chunk that they are from; queues add it up.
    payload_bytes: u32,
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("its checksum does not fit")]
    Checksum,
    #[error("{0}")]
    Malformed(String),
    #[error("its events are of type `{0}`, which does not come to the pond any more")]
    UnknownType(Arc<str>),
    #[error(
        "its events of type `{event_type}` have an earlier schema, in which `{field}` was different; run the topology with that schema until the pond is empty"
    )]
    OtherSchema { event_type: Arc<str>, field: String },
    #[error("{0}")]
    Arrow(#[from] ArrowError),
}

impl From<postcard::Error> for RecordError {
    fn from(error: postcard::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A record of a batch's selected rows.
pub(super) fn rows(batch: &Batch) -> Result<Vec<u8>, RecordError> {
    let head = Head {
        event_type: batch.event_type.name.clone(),
        source: batch.origin.source.clone(),
        partition: batch.origin.partition.clone(),
        first: batch.origin.first,
        next: batch.origin.next,
        arrived_at_ms: batch.arrived_at_ms,
        payload_bytes: u32::try_from(batch.payload_bytes).unwrap_or(u32::MAX),
    };
    let records = batch.compact();
    let mut fields: Vec<Field> = Vec::with_capacity(records.num_columns() + 2);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(records.num_columns() + 2);
    for (field, column) in records.schema_ref().fields().iter().zip(records.columns()) {
        let plain = plain(column);
        fields.push(Field::new(field.name(), plain.data_type().clone(), field.is_nullable()));
        columns.push(plain);
    }
    if batch.rows.raw.is_some() {
        let received: BinaryArray = batch.indexes().map(|row| Some(batch.received(row))).collect();
        let positions: UInt64Array = batch.indexes().map(|row| Some(batch.position(row))).collect();
        fields.push(Field::new(RECEIVED, DataType::Binary, false));
        fields.push(Field::new(POSITION, DataType::UInt64, false));
        columns.push(Arc::new(received));
        columns.push(Arc::new(positions));
    }
    let schema = Arc::new(Schema::new(fields));
    let room_bytes = batch.payload_bytes.min(ROOM_BYTES) * 3;
    let bytes = match &batch.origin.enters {
        None => framed(EVENTS, &head, room_bytes)?,
        Some(stage) => framed(REPLAYED, &(head, stage), room_bytes)?,
    };
    let mut writer = StreamWriter::try_new_with_options(bytes, &schema, options()?)?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    Ok(finished(writer.into_inner()?))
}

/// Buffers begin at multiples of 8 bytes, the least that there is: the usual 64 would be most of a small record.
fn options() -> Result<IpcWriteOptions, ArrowError> {
    IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
}

/// A record of a remark.
pub(super) fn note(note: &HourNote) -> Result<Vec<u8>, RecordError> {
    Ok(finished(framed(NOTE, note, 0)?))
}

/// A record of a barrier.
pub(super) fn barrier(barrier: &Barrier) -> Result<Vec<u8>, RecordError> {
    Ok(finished(framed(BARRIER, barrier, 0)?))
}

fn framed<T: Serialize>(kind: u8, head: &T, more: usize) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 256 + more);
    bytes.resize(HEADER_BYTES, 0);
    bytes[HEADER_BYTES - 1] = kind;
    Ok(postcard::to_extend(head, bytes)?)
}

fn finished(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() - HEADER_BYTES) as u32;
    let checksum = crc32c::crc32c(&bytes[HEADER_BYTES - 1..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Length of the payload behind a header.
pub(super) fn payload_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
}

/// Reads a record back; events are as the types are now.
pub(super) fn read(
    header: &[u8; HEADER_BYTES],
    payload: &[u8],
    types: &[Arc<EventType>],
) -> Result<Record, RecordError> {
    let kind = header[HEADER_BYTES - 1];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    if checksum.to_le_bytes() != header[4..8] {
        return Err(RecordError::Checksum);
    }
    match kind {
        EVENTS | REPLAYED => {
            let ((head, enters), stream) = match kind {
                EVENTS => postcard::take_from_bytes::<Head>(payload).map(|(head, stream)| ((head, None), stream))?,
                _ => postcard::take_from_bytes::<(Head, Arc<str>)>(payload)
                    .map(|((head, stage), stream)| ((head, Some(stage)), stream))?,
            };
            let event_type = types.iter().find(|known| known.name == head.event_type);
            let event_type = event_type.ok_or_else(|| RecordError::UnknownType(head.event_type.clone()))?;
            Ok(Record::Rows(batch(head, enters, event_type, &first_batch(stream)?)?))
        }
        NOTE => Ok(Record::Note(postcard::from_bytes(payload)?)),
        BARRIER => Ok(Record::Barrier(postcard::from_bytes(payload)?)),
        other => Err(RecordError::Malformed(format!("it is of kind {other}, which this version does not know"))),
    }
}

/// The batch of an Arrow IPC stream. `arrow-ipc` panics where a buffer lies outside of its stream.
fn first_batch(stream: &[u8]) -> Result<RecordBatch, RecordError> {
    std::panic::catch_unwind(|| {
        let mut reader = StreamReader::try_new(stream, None)?;
        Ok(reader.next().ok_or_else(|| RecordError::Malformed("it holds no events".into()))??)
    })
    .unwrap_or_else(|_| Err(RecordError::Malformed("the parts of its Arrow stream do not fit together".into())))
}

fn batch(
    head: Head,
    enters: Option<Arc<str>>,
    event_type: &Arc<EventType>,
    records: &RecordBatch,
) -> Result<Batch, RecordError> {
    let Head { source, partition, first, next, .. } = head;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(event_type.fields.len());
    for field in event_type.arrow.fields() {
        let column = match records.column_by_name(field.name()).map(viewed) {
            Some(column) if column.data_type() == field.data_type() => column,
            None if field.is_nullable() => new_null_array(field.data_type(), records.num_rows()),
            _ => {
                let (event_type, field) = (event_type.name.clone(), field.name().clone());
                return Err(RecordError::OtherSchema { event_type, field });
            }
        };
        columns.push(column);
    }
    let received = records.column_by_name(RECEIVED).and_then(|column| column.as_binary_opt::<i32>());
    let positions = records.column_by_name(POSITION).and_then(|column| column.as_primitive_opt());
    let rows = match (received, positions) {
        (Some(received), Some(positions)) => row_origins(received, positions),
        _ => RowOrigins::default(),
    };
    Ok(Batch {
        event_type: event_type.clone(),
        records: RecordBatch::try_new(event_type.arrow.clone(), columns)?,
        selection: None,
        rows,
        origin: Arc::new(Origin { source, partition, first, next, enters }),
        arrived_at_ms: head.arrived_at_ms,
        payload_bytes: head.payload_bytes as usize,
        counts: None,
    })
}

fn row_origins(received: &BinaryArray, positions: &UInt64Array) -> RowOrigins {
    let offsets = received.value_offsets();
    RowOrigins {
        raw: Some(received.values().clone()),
        starts: offsets[..received.len()].iter().map(|offset| *offset as u32).collect(),
        lens: offsets.windows(2).map(|pair| (pair[1] - pair[0]) as u32).collect(),
        positions: Some(positions.values().iter().copied().collect()),
    }
}

/// A column of views as one that holds its values and nothing else; others as they are.
fn plain(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => {
            let views = column.as_string_view();
            let mut values = StringBuilder::with_capacity(views.len(), views.total_bytes_len());
            views.iter().for_each(|value| values.append_option(value));
            Arc::new(values.finish())
        }
        DataType::BinaryView => {
            let views = column.as_binary_view();
            let mut values = BinaryBuilder::with_capacity(views.len(), views.total_bytes_len());
            views.iter().for_each(|value| values.append_option(value));
            Arc::new(values.finish())
        }
        _ => column.clone(),
    }
}

/// The other way round, without a copy of the values.
fn viewed(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8 => Arc::new(StringViewArray::from(column.as_string::<i32>())),
        DataType::Binary => Arc::new(BinaryViewArray::from(column.as_binary::<i32>())),
        _ => column.clone(),
    }
}
