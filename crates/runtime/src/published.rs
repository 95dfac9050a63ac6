//! The index of an output root: every path that was ever published below it, so that a missing hour is noticed.
//!
//! `<output>/.tidemill-published`. Each line is a CRC32C in 8 hex digits, a space, and the text that the checksum is of; that of the first line
//! is `tidemill-published 1` (format and version), that of every other line a path. The file is made before the root is claimed. A line is
//! written before its file is published, and may be there twice after a crash. Only the last line may be incomplete, and the next start or
//! publication mends it. It grows by a line of about 100 bytes for each published file.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::RunError;
use crate::host::{Host, HostFile, Open};

const INDEX: &str = ".tidemill-published";
const FORMAT: &str = "tidemill-published ";
const HEADER: &str = "tidemill-published 1";

/// What an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// All paths of its intact lines; `None` when it is of a version that is not known.
    pub paths: Option<BTreeSet<String>>,
    /// Lines that can't be trusted.
    pub damaged: Vec<DamagedLine>,
}

/// A line of an index that can't be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedLine {
    /// Its number, from 1.
    pub number: usize,
    /// What is wrong with it, and what that means.
    pub message: String,
}

/// Where the index of an output root is.
pub fn index_path(output: &Path) -> PathBuf {
    output.join(INDEX)
}

/// What the index of an output root says; `None` when there is no index.
///
/// # Errors
/// When it can't be read. Damage is no error: the other lines hold.
pub fn published(output: &Path) -> Result<Option<Published>, RunError> {
    let index = index_path(output);
    match std::fs::read(&index) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(parse(&read.map_err(RunError::io("read", &index))?))),
    }
}

/// What the end of an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// Paths of intact lines, the newest first.
    pub paths: Vec<String>,
    /// The index begins before them.
    pub is_partial: bool,
}

/// What was published last below an output root: the paths in the last `bytes_max` bytes of its index; `None` when there is no index. What is damaged is
/// left out: [`published`] tells it.
///
/// # Errors
/// When it can't be read.
pub fn newest(output: &Path, bytes_max: u64) -> Result<Option<Newest>, RunError> {
    let index = index_path(output);
    let read = || {
        let mut file = std::fs::File::open(&index)?;
        let from = file.metadata()?.len().saturating_sub(bytes_max);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes)?;
        Ok((from > 0, bytes))
    };
    let (is_partial, bytes) = match read() {
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(RunError::io("read", &index))?,
    };
    // Where the first line is not whole, its checksum does not fit.
    let lines = bytes.split(|byte| *byte == b'\n').rev().filter_map(intact);
    let paths = lines.filter(|text| !text.starts_with(FORMAT)).map(str::to_owned).collect();
    Ok(Some(Newest { paths, is_partial }))
}

/// What a new index holds.
pub(crate) fn empty() -> String {
    line(HEADER)
}

/// Looks at the index of a root that a run goes on with, and mends its last line.
pub(crate) fn take(host: &dyn Host, output: &Path) -> Result<(), RunError> {
    let index = index_path(output);
    let file = open(host, &index)?;
    // No line of ours is longer than a path may be.
    let mut first = vec![0; 8 << 10];
    let read = file.read_at(&mut first, 0).map_err(RunError::io("read", &index))?;
    first.truncate(read);
    if let Some(end) = first.iter().position(|byte| *byte == b'\n') {
        first.truncate(end + 1);
    }
    if first != line(HEADER).as_bytes() {
        let what = match first.strip_suffix(b"\n").and_then(intact).filter(|text| text.starts_with(FORMAT)) {
            Some(other) => format!("the index of published files is `{other}`, and this version knows `{HEADER}`"),
            None => "the first line of the index of published files is damaged or lost".to_owned(),
        };
        return Err(RunError::Corrupt { what, path: index });
    }
    mend(&*file).and_then(|_| file.sync()).map_err(RunError::io("mend", &index))
}

/// Adds paths to the index, durably.
pub(crate) fn note<'a>(host: &dyn Host, output: &Path, paths: impl Iterator<Item = &'a str>) -> Result<(), RunError> {
    let lines: String = paths.map(line).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let index = index_path(output);
    let file = open(host, &index)?;
    let written = mend(&*file).and_then(|end| file.write_at(lines.as_bytes(), end));
    written.map_err(RunError::io("append to", &index))?;
    // Not to be tried again, unlike the rest.
    file.sync().map_err(RunError::io("sync", &index))
}

/// All paths of the index.
pub(crate) fn noted(host: &dyn Host, output: &Path) -> Result<BTreeSet<String>, RunError> {
    let index = index_path(output);
    let bytes = host.read(&index).map_err(RunError::io("read", &index))?;
    Ok(parse(&bytes).paths.unwrap_or_default())
}

/// Never makes one: an index that is gone took with it what only it knew.
fn open(host: &dyn Host, index: &Path) -> Result<Box<dyn HostFile>, RunError> {
    host.open(index, Open::Write).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => RunError::Corrupt {
            what: "the index of published files is gone from the output root".into(),
            path: index.to_owned(),
        },
        _ => RunError::io("open", index)(error),
    })
}

/// Says where the next line goes. A line that a crash has cut short goes: its file will be noted again. One that was whole
/// gets its line feed, also when it was damaged, because `verify` is to find that.
fn mend(file: &dyn HostFile) -> std::io::Result<u64> {
    let end = file.len()?;
    let (mut start, mut tail) = (end, Vec::new());
    while start > 0 {
        let mut byte = [0u8; 1];
        file.read_exact_at(&mut byte, start - 1)?;
        if byte == *b"\n" {
            break;
        }
        tail.extend(byte);
        start -= 1;
    }
    tail.reverse();
    let ends_as_it_should = tail.is_empty();
    if ends_as_it_should {
        return Ok(end);
    }
    if whole_length(&tail).is_some() {
        return file.write_at(b"\n", end).map(|()| end + 1);
    }
    file.set_len(start).map(|()| start)
}

fn line(text: &str) -> String {
    format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes()))
}

/// Checksum and text of a line. The digits must be as they are written: an `A` for an `a` is a flipped bit too.
fn split(line: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = line.split_at_checked(8)?;
    let text = rest.strip_prefix(b" ")?;
    let hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.as_bytes().iter().all(hex))?;
    Some((u32::from_str_radix(digits, 16).ok()?, text))
}

/// The text of a line, without its line feed, if it is as it was written.
fn intact(line: &[u8]) -> Option<&str> {
    let (checksum, text) = split(line)?;
    std::str::from_utf8(text).ok().filter(|_| crc32c::crc32c(text) == checksum)
}

/// How many bytes of a last line that has no line feed are a whole line. When others follow, the line feed itself was damaged: a crash
/// leaves nothing behind a line but its line feed.
fn whole_length(tail: &[u8]) -> Option<usize> {
    let (checksum, text) = split(tail)?;
    let mut sum = 0;
    let length = text.iter().position(|byte| {
        sum = crc32c::crc32c_append(sum, std::slice::from_ref(byte));
        sum == checksum
    })?;
    Some(tail.len() - text.len() + length + 1)
}

fn parse(bytes: &[u8]) -> Published {
    let (mut paths, mut damaged) = (BTreeSet::new(), Vec::new());
    let mut damage = |number, message: String| damaged.push(DamagedLine { number, message });
    let mut lines = (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')).peekable();
    let header = lines.next_if(|(_, line)| {
        let text = line.strip_suffix(b"\n").and_then(intact);
        text.is_none_or(|text| text.starts_with(FORMAT))
    });
    match header.map(|(_, line)| line.strip_suffix(b"\n").and_then(intact)) {
        Some(Some(HEADER)) => {}
        Some(Some(other)) => {
            damage(1, format!("it is `{other}`, and this version knows `{HEADER}`: what was published is not known"));
            return Published { paths: None, damaged };
        }
        Some(None) => damage(1, format!("it should be `{HEADER}` and its checksum; the other lines are taken as such")),
        None => damage(1, format!("`{HEADER}` should stand here: the beginning of the index is lost")),
    }
    for (number, line) in lines {
        let path = match line.strip_suffix(b"\n") {
            Some(line) => intact(line),
            // A crash has cut it short, or cut off its line feed: its file is not published yet.
            None if whole_length(line).is_none_or(|length| length == line.len()) => continue,
            None => None,
        };
        match path {
            Some(path) => {
                paths.insert(path.to_owned());
            }
            None => damage(
                number,
                format!(
                    "its checksum does not fit: one published file is not known any more, and would not be missed. It reads {:?}",
                    shown(line)
                ),
            ),
        }
    }
    Published { paths: Some(paths), damaged }
}

/// A damaged line as far as it is worth showing.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim_end().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    fn root(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(index_path(dir.path()), empty()).unwrap();
        note(&System, dir.path(), paths.iter().copied()).unwrap();
        dir
    }

    fn paths(dir: &tempfile::TempDir) -> Vec<String> {
        published(dir.path()).unwrap().unwrap().paths.unwrap().into_iter().collect()
    }

    fn damaged(bytes: &[u8]) -> Vec<usize> {
        parse(bytes).damaged.iter().map(|line| line.number).collect()
    }

    #[test]
    fn any_flipped_bit_is_told_with_its_line_and_the_others_hold() {
        let dir = root(&["a/b", "c/d", "e/f"]);
        let whole = std::fs::read(index_path(dir.path())).unwrap();
        assert!(damaged(&whole).is_empty());
        for (place, bit) in (0..whole.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            let line = 1 + whole[..place].iter().filter(|byte| **byte == b'\n').count();
            let found = parse(&bytes);
            assert_eq!(found.damaged.first().map(|line| line.number), Some(line), "bit {bit} of byte {place}");
            let others = found.paths.unwrap();
            // Without its line feed a line takes the next one with it.
            let lost = match (whole[place], line) {
                (b'\n', 2 | 3) => 2,
                (b'\n', 1) | (_, 2..) => 1,
                _ => 0,
            };
            assert_eq!(others.len(), 3 - lost, "bit {bit} of byte {place}: {others:?}");
            // The run that goes on behind it does not hide it.
            std::fs::write(index_path(dir.path()), &bytes).unwrap();
            note(&System, dir.path(), ["g"].into_iter()).unwrap();
            let found = published(dir.path()).unwrap().unwrap();
            assert!(!found.damaged.is_empty() && found.paths.unwrap().contains("g"), "bit {bit} of byte {place}");
        }
    }

    #[test]
    fn a_last_line_that_a_crash_cut_short_is_no_damage_and_is_mended() {
        let dir = root(&["a/b", "c"]);
        let whole = std::fs::read(index_path(dir.path())).unwrap();
        let last = whole.len() - line("c").len();
        for length in last..whole.len() {
            std::fs::write(index_path(dir.path()), &whole[..length]).unwrap();
            assert_eq!((damaged(&whole[..length]), paths(&dir)), (vec![], vec!["a/b".to_owned()]));
            take(&System, dir.path()).unwrap();
            let mended = std::fs::read(index_path(dir.path())).unwrap();
            assert!(mended == whole[..last] || mended == whole, "cut at {length}");
            std::fs::write(index_path(dir.path()), &whole[..length]).unwrap();
            note(&System, dir.path(), ["c", "d"].into_iter()).unwrap();
            assert_eq!(paths(&dir), ["a/b", "c", "d"]);
            assert_eq!(published(dir.path()).unwrap().unwrap().damaged, []);
        }
    }

    #[test]
    fn the_newest_paths_come_first_and_a_line_that_is_cut_in_two_is_left_out() {
        let dir = root(&["a/b", "c/d", "e/f"]);
        let whole = newest(dir.path(), 1 << 20).unwrap().unwrap();
        assert_eq!(
            (whole.is_partial, whole.paths),
            (false, vec!["e/f".to_owned(), "c/d".to_owned(), "a/b".to_owned()])
        );
        let two_and_a_half = (2 * line("e/f").len() + 5) as u64;
        let end = newest(dir.path(), two_and_a_half).unwrap().unwrap();
        assert_eq!((end.is_partial, end.paths), (true, vec!["e/f".to_owned(), "c/d".to_owned()]));
        assert_eq!(newest(&dir.path().join("elsewhere"), 1).unwrap(), None);
    }

    #[test]
    fn a_beginning_that_is_lost_is_told_and_an_unknown_version_is_not_read() {
        let dir = root(&["a"]);
        let whole = std::fs::read(index_path(dir.path())).unwrap();
        let headless = parse(&whole[line(HEADER).len()..]);
        assert_eq!((headless.damaged[0].number, headless.paths.unwrap().len()), (1, 1));
        assert_eq!(damaged(b""), [1]);
        let newer = parse(format!("{}{}", line("tidemill-published 2"), line("a")).as_bytes());
        assert!(newer.paths.is_none() && newer.damaged[0].message.contains("`tidemill-published 2`"));
    }

    #[test]
    fn a_run_refuses_an_index_that_is_gone_or_of_another_version() {
        let dir = root(&["a"]);
        take(&System, dir.path()).unwrap();
        let refused = |words: &str| {
            let said = take(&System, dir.path()).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        };
        std::fs::write(index_path(dir.path()), line("tidemill-published 2")).unwrap();
        refused("`tidemill-published 2`");
        std::fs::write(index_path(dir.path()), line("a")).unwrap();
        refused("first line");
        std::fs::remove_file(index_path(dir.path())).unwrap();
        refused("is gone");
        assert!(matches!(note(&System, dir.path(), ["b"].into_iter()), Err(RunError::Corrupt { .. })));
        assert!(!index_path(dir.path()).exists(), "it is not made again in silence");
    }
}
