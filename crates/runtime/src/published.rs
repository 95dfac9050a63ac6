//! The index of an output root: every path that was ever published below it, so that a missing hour is noticed.
//!
//! `<output>/.tidemill-published` has a line for each file: CRC32C of the path in 8 hex digits, a space, the path. A line is written before its
//! file is published, and may be there twice after a crash. Only the last line may be incomplete. It grows by a line of about 100 bytes for each
//! published file.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::RunError;
use crate::logs::sync_all;

const INDEX: &str = ".tidemill-published";

/// Adds paths to the index, durably.
pub(crate) fn note<'a>(output: &Path, paths: impl Iterator<Item = &'a str>) -> Result<(), RunError> {
    let mut lines: Vec<u8> = Vec::new();
    for path in paths {
        lines.extend(format!("{:08x} {path}\n", crc32c::crc32c(path.as_bytes())).into_bytes());
    }
    if lines.is_empty() {
        return Ok(());
    }
    let index = output.join(INDEX);
    let is_new = !index.exists();
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&index);
    let mut file = file.map_err(RunError::io("open", &index))?;
    let mut written = || {
        let mut end = file.seek(SeekFrom::End(0))?;
        // A line that a crash has cut short goes; its file will be noted again.
        let mut last = [0u8; 1];
        while end > 0 {
            file.seek(SeekFrom::Start(end - 1))?;
            file.read_exact(&mut last)?;
            if last == *b"\n" {
                break;
            }
            end -= 1;
        }
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        file.write_all(&lines)?;
        file.sync_all()
    };
    written().map_err(RunError::io("append to", &index))?;
    if is_new { sync_all([output].into_iter()) } else { Ok(()) }
}

/// All paths of the index; `None` when the root has none.
///
/// # Errors
/// When it can't be read, or a line is damaged.
pub fn published(output: &Path) -> Result<Option<BTreeSet<String>>, RunError> {
    let index = output.join(INDEX);
    let bytes = match std::fs::read(&index) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(RunError::io("read", &index))?,
    };
    let mut paths = BTreeSet::new();
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if lines.peek().is_none() {
            break;
        }
        let path = std::str::from_utf8(line).ok().and_then(|line| {
            let (checksum, path) = line.split_once(' ')?;
            (u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(path.as_bytes())).then(|| path.to_owned())
        });
        let Some(path) = path else {
            return Err(RunError::Corrupt {
                what: format!("line {} of the index of published files is damaged", number + 1),
                path: index,
            });
        };
        paths.insert(path);
    }
    Ok(Some(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_goes_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(published(dir.path()).unwrap(), None);
        note(dir.path(), ["a/b", "c"].into_iter()).unwrap();
        let index = dir.path().join(INDEX);
        let whole = std::fs::read(&index).unwrap();
        std::fs::write(&index, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(published(dir.path()).unwrap().unwrap().len(), 1);
        note(dir.path(), ["d"].into_iter()).unwrap();
        assert_eq!(published(dir.path()).unwrap().unwrap(), ["a/b", "d"].map(str::to_owned).into());
        let mut bytes = std::fs::read(&index).unwrap();
        bytes[10] ^= 1;
        std::fs::write(&index, bytes).unwrap();
        assert!(matches!(published(dir.path()), Err(RunError::Corrupt { .. })));
    }
}
