//! The source kind `file`: lines or Avro blocks of files, whole or as they grow.
//!
//! - Each file is a partition, named by its path as it was matched. Its position is the byte offset in the decompressed
//!   stream. For `framing = "avro"` the position goes from 0 to the end of the header before the first chunk.
//! - Several files are read in turn, a chunk each. Those that wait for their turn are at position 0 and hold their hours.
//! - *A line longer than the topology's `max_event`* that does not fit into a read is a chunk of its own
//!   ([`Framing::Lines`](tidemill_core::Framing::Lines)) of the line's first `max_event` + 1 bytes without a line feed, while
//!   its origin covers the whole line. So it is refused as too large where it is parsed, memory is bounded, and
//!   `origin.next - origin.first` is the full length (with its line feed, if it has one). Where that is more than the
//!   bytes of the chunk, the chunk is such a prefix.
//! - A file is known by device, inode and a hash of its first bytes. When its path belongs to another file (rotation), it is read to
//!   its end under its new name, or through the open descriptor, and the other one is a partition of its own,
//!   `path@2`. When it is shorter than it was, or begins otherwise (truncation), that is told in the log, and it is read
//!   from its start as `path@2`.

mod avro;
mod ends;
mod fault;
mod folders;
mod identity;
mod partition;
mod patterns;
mod reader;
mod scan;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use tidemill_core::{
    DefaultValue, Finding, KindSpec, OptionSpec, OptionType, Options, Role, Shape, Source, SourceContext, SourceError,
    SourceKind, State,
};

use super::broken;

static OPTIONS: [OptionSpec; 8] = [
    OptionSpec {
        name: "paths",
        ty: OptionType::TextList { min_items: 1 },
        default: DefaultValue::Required,
        doc: "Files: paths and globs (`*`, `?`, `[a-z]`, `**`), relative to the topology's folder. `~` is not expanded; \
              wild cards do not match names that start with a dot.",
        shapes_state: false,
    },
    OptionSpec {
        name: "framing",
        ty: OptionType::Choice(&["lines", "avro"]),
        default: DefaultValue::Toml("\"lines\""),
        doc: "What the files hold: lines, or Avro container files.",
        shapes_state: true,
    },
    OptionSpec {
        name: "compression",
        ty: OptionType::Choice(&["auto", "none", "gzip", "zstd"]),
        default: DefaultValue::Toml("\"auto\""),
        doc: "How the files are compressed as a whole; `auto` looks at the first bytes, then at the ending (.gz, \
              .zst). Several gzip members or zstd frames in a file are fine.",
        shapes_state: true,
    },
    OptionSpec {
        name: "idle_timeout",
        ty: OptionType::Duration { min_ms: 10, max_ms: 86_400_000 },
        default: DefaultValue::Toml("\"10s\""),
        doc: "A followed file that was read to its end and has not grown for so long holds no hour open. A file that was \
              renamed to something `paths` does not match is finished after as long.",
        shapes_state: false,
    },
    OptionSpec {
        name: "rescan",
        ty: OptionType::Duration { min_ms: 10, max_ms: 3_600_000 },
        default: DefaultValue::Toml("\"1s\""),
        doc: "How often to look for new, renamed and rewritten files. Not with --until-end.",
        shapes_state: false,
    },
    OptionSpec {
        name: "read_size",
        ty: OptionType::Size { min_bytes: 512, max_bytes: 64 << 20 },
        default: DefaultValue::Toml("\"1MiB\""),
        doc: "How much is read at a time: about the size of a chunk.",
        shapes_state: false,
    },
    OptionSpec {
        name: "order",
        ty: OptionType::Choice(&["none", "name", "modified"]),
        default: DefaultValue::Toml("\"none\""),
        doc: "What is read first: files in turns, or one after the other by path or last change.",
        shapes_state: false,
    },
    OptionSpec {
        name: "max_open_files",
        ty: OptionType::Integer { min: 1, max: 10_000 },
        default: DefaultValue::Toml("64"),
        doc: "Files that are open at the same time; they take turns. The others wait, in order of name.",
        shapes_state: false,
    },
];

static SPEC: KindSpec = KindSpec {
    name: "file",
    role: Role::Source,
    summary: "Reads files, plain or compressed, line by line or as Avro containers, and follows them as they grow.",
    details: "Each file is a partition; its position is the byte offset in the decompressed stream. Reading goes on at the \
              position of the last cut; a compressed file is decompressed from its start for that.\n\n\
              With --until-end, files are read to the end that they have at the start, and a last line without a line \
              feed is a line. Otherwise they are followed: new files are taken up, a line without its line feed waits, and \
              renamed, replaced, truncated and deleted files are noticed; each of these is logged. A truncated or replaced \
              file goes on as partition `path@2`. Bytes that are appended and truncated again between two looks can't be seen. \
              A file that rotation copies or compresses is another file: let `paths` not match it, or dedup what comes twice. \
              With `order = \"name\"` one file is read at a time, by the bytes of the whole path; with `\"modified\"`, \
              by the time of its last change, then by path. A file whose turn has not come then holds no hour longer \
              than the one that is read.\n\n\
              A damaged file stops the run with a message that names it; the lines before the damage are delivered. A \
              gzip or zstd file that ends too early is waited for while it is followed.\n\n\
              Memory: about one read per open file, plus the longest line up to `max_event`; an Avro block may have 256 MiB. \
              Positions of files that are gone are kept (some 200 bytes each).",
    options: &OPTIONS,
    input: Shape::Nothing,
    output: Shape::Framed,
    state: State::Stateful,
    guarantee: None,
};

/// The options, as [`SPEC`] describes them.
#[derive(Debug, Deserialize)]
struct Config {
    paths: Vec<String>,
    framing: FramingOption,
    compression: stream::Compression,
    idle_timeout: u64,
    rescan: u64,
    read_size: usize,
    order: Order,
    max_open_files: usize,
}

impl Config {
    /// Files that are open at the same time.
    fn open_max(&self) -> usize {
        if self.order == Order::None { self.max_open_files } else { 1 }
    }
}

/// Which file is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    None,
    Name,
    Modified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FramingOption {
    Lines,
    Avro,
}

/// The source kind `file`.
#[derive(Debug)]
pub struct FileKind;

impl SourceKind for FileKind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn check(&self, options: &Options) -> Vec<Finding> {
        let paths = options.0.get("paths").and_then(|paths| paths.as_array()).map_or(&[][..], Vec::as_slice);
        let findings = paths.iter().enumerate().filter_map(|(index, path)| {
            let message = patterns::check(path.as_str()?).err()?;
            Some(Finding::error("bad-path", "paths", message).item(index.to_string()))
        });
        findings.collect()
    }

    fn ends(&self, _options: &Options) -> bool {
        true
    }

    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError> {
        let config: Config = (context.options.parse())
            .map_err(|error| broken("its options can't be used".to_owned(), Some(error.into())))?;
        Ok(Box::new(source::FileSource::open(context, config)?))
    }
}
