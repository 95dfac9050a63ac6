//! The readers of files as functions of bytes, for the targets in `fuzz/`. They panic when what was read does not come back as it was.

use std::path::Path;

use crate::error::RunError;
use crate::ledger::{Committed, MAGIC, frame, records};

pub use crate::pond::fuzzing::pond_record;

/// Reads a ledger file. What it says is written as one record, as a start does, and read again.
///
/// # Errors
/// When the file is refused.
pub fn ledger(file: &[u8]) -> Result<(), RunError> {
    let path = Path::new("ledger");
    let committed = |file: &[u8]| {
        let mut committed = Committed::default();
        records(file, path)?.0.into_iter().for_each(|record| committed.apply(record));
        Ok(committed)
    };
    let base = frame(&committed(file)?.base())?;
    let again = committed(&[&MAGIC[..], &base].concat()).expect("a base that was just written");
    assert_eq!(frame(&again.base())?.escape_ascii().to_string(), base.escape_ascii().to_string());
    Ok(())
}
