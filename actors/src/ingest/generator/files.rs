//! Generated events as files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use flate2::write::GzEncoder;

use super::pace::each_portion;
use super::{GeneratorConfig, LISTENING_SCHEMA, Truth};

/// How generated files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: `.tsv`.
    #[default]
    None,
    /// gzip, fastest level: `.tsv.gz`.
    Gzip,
    /// zstd, level 1: `.tsv.zst`.
    Zstd,
}

enum Output {
    Plain(File),
    Gzip(GzEncoder<File>),
    Zstd(zstd::Encoder<'static, File>),
}

impl Output {
    fn create(path: &Path, compression: Compression) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| at(path, &error))?;
        Ok(match compression {
            Compression::None => Self::Plain(file),
            Compression::Gzip => Self::Gzip(GzEncoder::new(file, flate2::Compression::fast())),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(file, 1)?),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(out) => out.finish().map(drop),
            Self::Zstd(out) => out.finish().map(drop),
        }
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Writes all lines into `files` files `events-00000.tsv`, ... of the folder `out` (made if missing), beside them
/// `truth.json` and `listening.avsc`, and returns the truth. Files of those names are overwritten.
///
/// Line `i` goes to file `i % files`, so that every file covers all hours. `rate` is in lines a second, 0 for as fast
/// as can be. `progress` is told the lines written so far, every few thousand lines.
///
/// # Errors
/// When something can't be written; the error names it.
pub fn write_files(
    config: &GeneratorConfig,
    out: &Path,
    files: usize,
    compression: Compression,
    rate: u64,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Truth> {
    let files = files.max(1);
    let ending = match compression {
        Compression::None => "",
        Compression::Gzip => ".gz",
        Compression::Zstd => ".zst",
    };
    fs::create_dir_all(out).map_err(|error| at(out, &error))?;
    let paths: Vec<_> = (0..files).map(|file| out.join(format!("events-{file:05}.tsv{ending}"))).collect();
    let mut outputs = paths.iter().map(|path| Output::create(path, compression)).collect::<io::Result<Vec<_>>>()?;
    let mut buffers = vec![Vec::new(); files];
    let truth = each_portion(config, rate, progress, |first, events| {
        for (line, event) in (first..).zip(events) {
            event.write(&mut buffers[(line % files as u64) as usize]);
        }
        for ((buffer, output), path) in buffers.iter_mut().zip(&mut outputs).zip(&paths) {
            output.write_all(buffer).map_err(|error| at(path, &error))?;
            buffer.clear();
        }
        Ok::<_, io::Error>(())
    })?;
    for (output, path) in outputs.into_iter().zip(&paths) {
        output.finish().map_err(|error| at(path, &error))?;
    }
    write_truth(&truth, out)?;
    Ok(truth)
}

/// Writes `truth.json` and `listening.avsc` into the folder `out`, which is made if missing.
///
/// # Errors
/// When something can't be written; the error names it.
pub fn write_truth(truth: &Truth, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out).map_err(|error| at(out, &error))?;
    let mut json = serde_json::to_string_pretty(truth).map_err(io::Error::other)?;
    json.push('\n');
    for (name, text) in [("listening.avsc", LISTENING_SCHEMA), ("truth.json", &json)] {
        let path = out.join(name);
        fs::write(&path, text).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn written(files: usize, compression: Compression) -> (Vec<Vec<u8>>, Truth, String) {
        let folder = tempfile::tempdir().unwrap();
        let config = GeneratorConfig { events: 20_001, ..GeneratorConfig::default() };
        let mut told = 0;
        let truth = write_files(&config, folder.path(), files, compression, 0, &mut |lines| told = lines).unwrap();
        assert_eq!(told, 20_001);
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let read = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            let mut out = Vec::new();
            match compression {
                Compression::None => out = bytes,
                Compression::Gzip => drop(flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap()),
                Compression::Zstd => out = zstd::decode_all(&bytes[..]).unwrap(),
            }
            out
        };
        let contents = names[..files].iter().map(|path| read(path)).collect();
        assert_eq!(fs::read_to_string(folder.path().join("listening.avsc")).unwrap(), LISTENING_SCHEMA);
        (contents, truth, fs::read_to_string(folder.path().join("truth.json")).unwrap())
    }

    #[test]
    fn files_hold_every_line_once_in_turn_whatever_their_number_and_compression() {
        let (plain, truth, json) = written(1, Compression::None);
        assert_eq!(truth, Truth::of(&truth.config));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["events"], 20_001);
        let lines: Vec<&[u8]> = plain[0].split_inclusive(|byte| *byte == b'\n').collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let (parts, _, same) = written(3, compression);
            assert_eq!(same, json);
            for (index, part) in parts.iter().enumerate() {
                let expected: Vec<u8> = lines.iter().skip(index).step_by(3).flat_map(|line| line.to_vec()).collect();
                assert!(*part == expected, "file {index}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").unwrap();
        let out = blocked.join("out");
        let error = write_files(&GeneratorConfig::default(), &out, 1, Compression::None, 0, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("file/out"), "{error}");
    }
}
