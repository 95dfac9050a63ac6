//! Rows of two forms of an hour, side by side.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use tidemill_actors::sink::{CatError, cat};

/// Rows that are compared one by one at most: some 64 bytes each are held.
pub(super) const ROWS_MAX: u64 = 20_000_000;
/// Examples that are shown.
const EXAMPLES: usize = 5;

/// How rows differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Differing {
    /// Rows that were not there before.
    pub(crate) added: u64,
    /// Rows that are not there any more.
    pub(crate) removed: u64,
    /// Rows with the same id and other values.
    pub(crate) changed: u64,
    /// Some of each, by the values of their ids, or as they are where the type has none.
    pub(crate) examples: Vec<String>,
}

/// Compares the rows of files; `id`: the fields that tell a row from all others.
pub(super) fn differing(before: &[PathBuf], after: &[PathBuf], id: &[String]) -> Result<Differing, CatError> {
    let mut rows = Rows { id, known: HashMap::new(), found: Differing::default(), line: Vec::new(), is_before: true };
    for file in before {
        cat(file, None, &mut rows)?;
    }
    rows.is_before = false;
    for file in after {
        cat(file, None, &mut rows)?;
    }
    let left: Vec<u64> = rows.known.values().map(|(_, count)| *count).filter(|count| *count > 0).collect();
    rows.found.removed = left.iter().sum();
    if rows.found.removed > 0 && rows.found.examples.len() < EXAMPLES {
        rows.name_removed(before)?;
    }
    Ok(rows.found)
}

struct Rows<'a> {
    id: &'a [String],
    /// By hash of the id, or of the row where there is none: hash of the row, and how many there are.
    known: HashMap<u128, (u128, u64)>,
    found: Differing,
    line: Vec<u8>,
    is_before: bool,
}

impl Rows<'_> {
    fn row(&mut self) -> std::io::Result<()> {
        let (key, text) = self.key()?;
        let row = hash(&self.line);
        if self.is_before {
            self.known.entry(key).or_insert((row, 0)).1 += 1;
            return Ok(());
        }
        let mut example = |sign: &str| {
            if self.found.examples.len() < EXAMPLES {
                self.found.examples.push(format!("{sign} {text}"));
            }
        };
        match self.known.get_mut(&key).filter(|(_, count)| *count > 0) {
            Some((known, count)) => {
                *count -= 1;
                if *known != row {
                    example("~");
                    self.found.changed += 1;
                }
            }
            None => {
                example("+");
                self.found.added += 1;
            }
        }
        Ok(())
    }

    fn key(&self) -> std::io::Result<(u128, String)> {
        if self.id.is_empty() {
            return Ok((hash(&self.line), String::from_utf8_lossy(&self.line).into_owned()));
        }
        let row: Value = serde_json::from_slice(&self.line)?;
        let values: Vec<String> =
            self.id.iter().map(|field| row.get(field).unwrap_or(&Value::Null).to_string()).collect();
        let text = values.join(" ");
        Ok((hash(text.as_bytes()), text))
    }

    /// Reads the files once more for the names of some rows that are not there any more.
    fn name_removed(&mut self, before: &[PathBuf]) -> Result<(), CatError> {
        struct Naming<'a, 'b>(&'a mut Rows<'b>);
        impl Write for Naming<'_, '_> {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                lines(
                    bytes,
                    self,
                    |naming| &mut naming.0.line,
                    |naming| {
                        let (key, text) = naming.0.key()?;
                        let is_left = naming.0.known.get_mut(&key).filter(|(_, count)| *count > 0);
                        if let Some((_, count)) = is_left.filter(|_| naming.0.found.examples.len() < EXAMPLES) {
                            *count -= 1;
                            naming.0.found.examples.push(format!("- {text}"));
                        }
                        Ok(())
                    },
                )
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        for file in before {
            cat(file, None, &mut Naming(self))?;
        }
        Ok(())
    }
}

impl Write for Rows<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lines(bytes, self, |rows| &mut rows.line, Rows::row)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Calls `each` for every whole line, with the line in its buffer.
fn lines<T>(
    bytes: &[u8],
    of: &mut T,
    line: impl Fn(&mut T) -> &mut Vec<u8>,
    mut each: impl FnMut(&mut T) -> std::io::Result<()>,
) -> std::io::Result<usize> {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        match piece.strip_suffix(b"\n") {
            Some(end) => {
                line(of).extend_from_slice(end);
                each(of)?;
                line(of).clear();
            }
            None => line(of).extend_from_slice(piece),
        }
    }
    Ok(bytes.len())
}

/// 128 bits, so that no two rows of an hour have the same.
fn hash(bytes: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        bytes.hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(0)) << 64 | u128::from(half(1))
}
