//! `avro_files`: events as Avro container files, one directory an hour, with a manifest when the hour is sealed.

mod adopt;
mod blocks;
mod compressors;
mod directory;
mod empty;
mod files;
mod hours;
mod pending;
mod place;
mod stage;
mod state;
#[cfg(test)]
mod tests;
mod true_hour;

use std::sync::Arc;

use serde::Deserialize;
use tidemill_core::{
    DefaultValue, EventType, Finding, Guarantee, KindSpec, LatePolicy, Limits, OptionSpec, OptionType, Role, Shape,
    Stage, StageContext, StageError, StageInput, StageKind, State,
};

pub use self::adopt::{AdoptedDirectory, Adoption, own_counts};
pub(super) use self::true_hour::TRUE_HOUR;
use super::codec::Codec;
use super::template::Template;

/// The kind `avro_files`.
pub struct AvroFiles;

/// Its options.
#[derive(Clone, Debug, Deserialize)]
struct Config {
    #[serde(default)]
    path: Option<String>,
    codec: Codec,
    #[serde(default)]
    level: Option<i32>,
    block_size: usize,
    roll_size: u64,
}

impl Config {
    /// The path as it was written, or one that is as fine as the bucket.
    fn path(&self, limits: &Limits) -> String {
        self.path.clone().unwrap_or_else(|| format!("{{event_type}}/{}", limits.hour_path()))
    }

    /// The level to compress with; codecs without levels ignore it.
    fn level_for(&self, codec: Codec) -> i32 {
        match (self.level, codec.levels()) {
            (Some(level), Some(_)) if codec == self.codec => level,
            (_, Some((default, _))) => default,
            (_, None) => 0,
        }
    }
}

static SPEC: KindSpec = KindSpec {
    name: "avro_files",
    role: Role::Sink,
    summary: "Writes each hour of each type as Avro container files, with a manifest when the hour is sealed.",
    details: "Below the output root, a sealed hour is a directory `<path>/rev=0` with the files \
        `part-00000-<identity>.avro`, `_manifest.json` and `_SUCCESS`, published in this order and never changed. \
        All times are UTC. An hour without events has a manifest and a mark alone, when later events have shown that it is over and \
        no field is in the path.\n\n\
        An event whose hour is sealed becomes a dead letter `late`, unless its type has another policy. With `late = \"revise\"` it goes into the \
        hour's next revision, `<path>/rev=1` and so on, which is published with a manifest of its own when it has been open for `late_delay`; \
        revision 0 stays as it is. With `late = \"next_hour\"` it goes into the first hour that is not sealed, and files of the type have one more field, \
        `true_hour`: the start of the hour that the event belongs to, null for all others. Dead letters themselves are never late: \
        one that comes behind its hour's seal is put into the first hour that is not sealed.\n\n\
        Blocks are compressed on all cores; at most two blocks a core are in memory beside one pending block for \
        each open directory. Pending blocks beyond the sink's share of `runtime.state_memory` lie in the state \
        directory. A directory's file costs no \
        descriptor while it is open.\n\n\
        Values of fields in the path are percent-encoded, all but letters, digits, `_`, `-`, `.` and `=`; null is `__null__`, the \
        empty text `__empty__`; over 96 bytes the value is cut and a hash put behind it.",
    options: &[
        OptionSpec {
            name: "path",
            ty: OptionType::PathTemplate,
            default: DefaultValue::Absent,
            doc: "Directory of an hour below the output root; when left out \
                `{event_type}/year={year}/month={month}/day={day}/hour={hour}`, without `/hour={hour}` when `bucket` is a day, and \
                with `/minute={minute}` behind it when `bucket` is less than an hour. Variables: event_type, year, month, day, hour, minute (the start \
                of the hour, UTC), and the names of fields that hold a single value. Every type and hour must get a path of its own.",
            shapes_state: true,
        },
        OptionSpec {
            name: "codec",
            ty: OptionType::Choice(&["null", "deflate", "snappy", "zstandard"]),
            default: DefaultValue::Toml("\"zstandard\""),
            doc: "How blocks are compressed. A change begins a new file.",
            shapes_state: false,
        },
        OptionSpec {
            name: "level",
            ty: OptionType::Integer { min: 1, max: 22 },
            default: DefaultValue::Absent,
            doc: "Level of zstandard (1 to 22; 1 when left out) or deflate (1 to 9; 6 when left out).",
            shapes_state: false,
        },
        OptionSpec {
            name: "block_size",
            ty: OptionType::Size { min_bytes: 4 << 10, max_bytes: 4 << 20 },
            default: DefaultValue::Toml("\"128KiB\""),
            doc: "Bytes of a block before compression. A block ends when it has that size, and with its hour.",
            shapes_state: false,
        },
        OptionSpec {
            name: "roll_size",
            ty: OptionType::Size { min_bytes: 64 << 10, max_bytes: 1 << 50 },
            default: DefaultValue::Toml("\"256MiB\""),
            doc: "A file that has reached this size is finished and the next part begun.",
            shapes_state: false,
        },
    ],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::Transactional),
};

impl StageKind for AvroFiles {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let config: Config = match input.options.parse() {
            Ok(config) => config,
            Err(error) => {
                return Err(vec![Finding::error("bad-options", "path", format!("the options can't be read: {error}"))]);
            }
        };
        let mut findings = match Template::parse(&config.path(&input.limits)) {
            Ok(template) => template.check(input),
            Err(findings) => findings,
        };
        match (config.level, config.codec.levels()) {
            (Some(_), None) => {
                let message = format!("codec `{}` has no levels", config.codec.name());
                findings.push(Finding::error("bad-level", "level", message).help("leave `level` out"));
            }
            (Some(level), Some((_, max))) if level > max => {
                let message = format!("codec `{}` has no level {level}", config.codec.name());
                findings.push(Finding::error("bad-level", "level", message).help(format!("use 1 to {max}")));
            }
            _ => {}
        }
        for of in
            input.types.iter().filter(|of| of.late.policy == LatePolicy::NextHour && of.field(TRUE_HOUR).is_some())
        {
            let message = format!("type `{}` has a field `{TRUE_HOUR}`, which `late = \"next_hour\"` adds", of.name);
            let help = "name the field otherwise, or let late events be revisions (`late = \"revise\"`)";
            findings.push(Finding { option: None, ..Finding::error("taken-name", "path", message).help(help) });
        }
        if findings.is_empty() { Ok(Vec::new()) } else { Err(findings) }
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(stage::AvroFilesStage::new(context)?))
    }
}
