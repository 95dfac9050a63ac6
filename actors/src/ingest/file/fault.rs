//! What is said of a file that can't be read on.

use std::io::ErrorKind;

use super::reader::Fault;

impl Fault {
    /// What is wrong with a file and what to do, what caused it, and whether it may go away by itself. Nothing is when
    /// it was rewritten.
    pub(super) fn said(
        self,
        file: &str,
        position: u64,
        packed: Option<&str>,
    ) -> Option<(String, Option<std::io::Error>, bool)> {
        Some(match self {
            Self::Shorter => return None,
            Self::Truncated(what) => (
                format!(
                    "`{file}` ends in the middle of {what}, at byte {position}; all blocks before it were \
                     delivered. Put the complete file in its place, or take it out of `paths`"
                ),
                None,
                false,
            ),
            Self::Form(what) => {
                let message = format!(
                    "`{file}` can't be read on at byte {position}: {what}. Repair or replace the file, or \
                     take it out of `paths`"
                );
                (message, None, false)
            }
            Self::Io(error) => match packed {
                Some(packed) if error.kind() == ErrorKind::UnexpectedEof => (
                    format!(
                        "`{file}` ends in the middle of its {packed} data, at byte {position} of the \
                         decompressed stream; all whole records before it were delivered. Put the complete file in its \
                         place (reading goes on at that position), or take it out of `paths`"
                    ),
                    Some(error),
                    false,
                ),
                Some(packed) if error.raw_os_error().is_none() => (
                    format!(
                        "`{file}` is not sound {packed} data behind byte {position} of the decompressed \
                         stream: {error}. Put a sound file in its place, take it out of `paths`, or set `compression`"
                    ),
                    Some(error),
                    false,
                ),
                _ => (
                    format!(
                        "can't read `{file}` at byte {position}: {error}; make it readable or take it out of \
                         `paths`"
                    ),
                    Some(error),
                    true,
                ),
            },
        })
    }
}
