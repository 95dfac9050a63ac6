//! See [`crate::fuzzing`].

use std::sync::Arc;

use tidemill_core::EventType;

use super::record::{self, HEADER_BYTES, Record};

/// Reads a record of a pond, header and payload. What it holds is written and read again.
///
/// # Errors
/// Why it is refused.
pub fn pond_record(bytes: &[u8], types: &[Arc<EventType>]) -> Result<(), String> {
    let read = |bytes: &[u8]| {
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("there is no header")?;
        record::read(header, payload, types).map_err(|error| error.to_string())
    };
    let written = |record: &Record| match record {
        Record::Rows(batch) => record::rows(batch),
        Record::Note(note) => record::note(note),
        Record::Barrier(barrier) => record::barrier(barrier),
    };
    let first = read(bytes)?;
    if let Record::Rows(batch) = &first {
        // What every stage behind a pond may ask of a batch.
        let _ = batch.weight_bytes();
        for row in batch.indexes() {
            let _ = (batch.position(row), batch.received(row));
        }
    }
    let again = written(&first).expect("what was read can be written");
    let second = read(&again).expect("what was written can be read");
    if let (Record::Rows(first), Record::Rows(second)) = (&first, &second) {
        assert_eq!(first.records, second.records);
    }
    assert_eq!(written(&second).expect("what was read can be written"), again);
    Ok(())
}
