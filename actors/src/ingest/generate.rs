//! The source kind `generate`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_buffer::Buffer;
use serde::{Deserialize, Serialize};
use tidemill_core::{
    DefaultValue, Finding, Framing, KindSpec, Moved, OptionSpec, OptionType, Options, Origin, PartitionPosition,
    Polled, RawChunk, Reported, Role, Shape, Source, SourceContext, SourceError, SourceKind, State,
};

use super::generator::{Generator, GeneratorConfig};
use super::{broken, now_ms};

/// Lines of a chunk: just under 1 MiB.
const CHUNK_LINES: u64 = 8_192;
/// With a rate, a chunk is what is due in this time.
const SLICE: Duration = Duration::from_millis(20);

const fn option(name: &'static str, ty: OptionType, default: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec { name, ty, default: DefaultValue::Toml(default), doc, shapes_state: true }
}

static OPTIONS: [OptionSpec; 8] = [
    option(
        "events",
        OptionType::Integer { min: 0, max: 1_000_000_000_000 },
        "2000000",
        "Lines in all, repeats among them.",
    ),
    option("seed", OptionType::Integer { min: 0, max: i64::MAX }, "1", "The same seed gives the same lines for ever."),
    option(
        "duplicates",
        OptionType::Float { min: 0.0, max: 0.9 },
        "0.02",
        "Share of lines that repeat one of the 1,000 lines before them (fewer when those span more than `disorder`).",
    ),
    option(
        "hours",
        OptionType::Integer { min: 1, max: 1_000_000 },
        "3",
        "Hours of event time that the lines are spread over evenly.",
    ),
    option(
        "disorder",
        OptionType::Duration { min_ms: 0, max_ms: 86_400_000 },
        "\"30s\"",
        "How far the time of an event may be behind the lines around it; a repeat may be behind by twice that.",
    ),
    option("start", OptionType::Text, "\"2026-01-01T00:00:00Z\"", "Where event time starts (RFC 3339)."),
    option(
        "partitions",
        OptionType::Integer { min: 1, max: 1_024 },
        "1",
        "Partitions; line `i` goes to partition `i` modulo their number.",
    ),
    OptionSpec {
        name: "rate",
        ty: OptionType::Integer { min: 0, max: 1_000_000_000 },
        default: DefaultValue::Toml("0"),
        doc: "Lines a second over all partitions; 0 means as fast as they are taken.",
        shapes_state: false,
    },
];

static SPEC: KindSpec = KindSpec {
    name: "generate",
    role: Role::Source,
    summary: "Makes listening events of 20 types, seeded, with a share of repeats and some disorder.",
    details: "Lines of 8 columns separated by tabs, about 113 bytes: the type, event_id, event_time (epoch milliseconds), \
              user_id, country, track_id, ms_played, platform; the schema is topologies/schemas/listening.avsc.\n\n\
              A partition's position is the byte offset in its stream. The source goes on at any position at once, with the \
              same bytes. It ends after `events` lines, with or without --until-end.\n\n\
              `tidemill generate` writes the same lines to files, with the truth about them.",
    options: &OPTIONS,
    input: Shape::Nothing,
    output: Shape::Lines,
    state: State::Stateful,
    guarantee: None,
};

#[derive(Deserialize)]
struct Config {
    events: u64,
    seed: u64,
    duplicates: f64,
    hours: u64,
    disorder: u64,
    start: String,
    partitions: u64,
    rate: u64,
}

/// The source kind `generate`.
#[derive(Debug)]
pub struct GenerateKind;

fn start_of(text: &str) -> Result<i64, jiff::Error> {
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond)
}

impl SourceKind for GenerateKind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn check(&self, options: &Options) -> Vec<Finding> {
        let start = options.0.get("start").and_then(|start| start.as_str()).unwrap_or_default();
        match start_of(start) {
            Ok(_) => Vec::new(),
            Err(error) => vec![
                Finding::error("bad-time", "start", format!("`{start}` is not a time: {error}"))
                    .help("write it like \"2026-01-01T00:00:00Z\""),
            ],
        }
    }

    fn ends(&self, _options: &Options) -> bool {
        true
    }

    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError> {
        let fault = |cause| broken("its options can't be used".to_owned(), Some(cause));
        let config: Config = context.options.parse().map_err(|error| fault(error.into()))?;
        let start_ms = start_of(&config.start).map_err(|error| fault(error.into()))?;
        let generator = Generator::new(&GeneratorConfig {
            events: config.events,
            seed: config.seed,
            duplicates: config.duplicates,
            hours: config.hours,
            disorder_ms: config.disorder,
            start_ms,
            ..GeneratorConfig::default()
        });
        let mut partitions = Vec::with_capacity(config.partitions as usize);
        for number in 0..config.partitions {
            let name: Arc<str> = number.to_string().into();
            // As many as there are numbers below `events` that leave the remainder `number`.
            let lines = (config.events + config.partitions - 1 - number) / config.partitions;
            let (mut next, mut done) = (0, 0);
            if let Some(position) = context.positions.get(&name) {
                let resume: ResumePoint = serde_json::from_str(&position.resume).map_err(|error| {
                    let message = format!(
                        "the position of partition {name} in the state was not written by `generate`; \
                         start afresh with --fresh"
                    );
                    broken(message, Some(error.into()))
                })?;
                (next, done) = (position.next, resume.line.min(lines));
            }
            partitions.push(Partition { name, lines, done, next });
        }
        let done = partitions.iter().map(|partition| partition.done).sum();
        Ok(Box::new(Generate {
            source: context.name.clone(),
            generator,
            partitions,
            turn: 0,
            rate: config.rate,
            started: Instant::now(),
            done_at_start: done,
            done,
            reported: Reported::default(),
        }))
    }
}

/// What goes into [`PartitionPosition::resume`].
#[derive(Serialize, Deserialize)]
struct ResumePoint {
    /// Lines of the partition before the position.
    line: u64,
}

struct Partition {
    name: Arc<str>,
    lines: u64,
    done: u64,
    next: u64,
}

struct Generate {
    source: Arc<str>,
    generator: Generator,
    partitions: Vec<Partition>,
    /// Partition that is next.
    turn: usize,
    rate: u64,
    started: Instant,
    done_at_start: u64,
    done: u64,
    reported: Reported,
}

impl Source for Generate {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        let count = self.partitions.len();
        let turns = (0..count).map(|ahead| (self.turn + ahead) % count);
        let Some(number) = turns.into_iter().find(|at| self.partitions[*at].done < self.partitions[*at].lines) else {
            return Ok(Polled::Ended);
        };
        let mut most = CHUNK_LINES;
        if self.rate > 0 {
            let due = (self.started.elapsed().as_secs_f64() * self.rate as f64) as u64;
            let due = due.saturating_sub(self.done - self.done_at_start);
            let slice = ((self.rate as f64 * SLICE.as_secs_f64()) as u64).clamp(1, CHUNK_LINES);
            let left = self.partitions[number].lines - self.partitions[number].done;
            if due < slice.min(left) {
                return Ok(Polled::Idle(SLICE));
            }
            most = due.min(CHUNK_LINES);
        }
        self.turn = (number + 1) % count;
        let partition = &mut self.partitions[number];
        let lines = most.min(partition.lines - partition.done);
        let mut bytes = Vec::with_capacity(lines as usize * 120);
        for line in partition.done..partition.done + lines {
            self.generator.write_line(line * count as u64 + number as u64, &mut bytes);
        }
        let first = partition.next;
        partition.next += bytes.len() as u64;
        partition.done += lines;
        self.done += lines;
        let origin = Origin {
            source: self.source.clone(),
            partition: partition.name.clone(),
            first,
            next: partition.next,
            enters: None,
        };
        Ok(Polled::Chunk(RawChunk {
            origin: Arc::new(origin),
            bytes: Buffer::from_vec(bytes),
            framing: Framing::Lines,
            arrived_at_ms: now_ms(),
        }))
    }

    fn moved(&mut self) -> Moved {
        let position = |partition: &Partition| PartitionPosition {
            next: partition.next,
            resume: serde_json::json!(ResumePoint { line: partition.done }).to_string().into(),
            ended: partition.done == partition.lines,
        };
        let all = self.partitions.iter().map(|partition| (partition.name.clone(), position(partition)));
        self.reported.moved_to(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use tidemill_testkit::Followed;

    use super::*;

    fn context(partitions: u64, positions: &BTreeMap<Arc<str>, PartitionPosition>) -> SourceContext {
        let serde_json::Value::Object(options) = json!({
            "events": 30_001, "seed": 3, "duplicates": 0.02, "hours": 3, "disorder": 30_000,
            "start": "2026-01-01T00:00:00Z", "partitions": partitions, "rate": 0,
        }) else {
            unreachable!()
        };
        let limits = tidemill_testkit::limits();
        SourceContext {
            topology: "t".into(),
            name: "made".into(),
            options: Options(options),
            limits: Arc::new(limits),
            base_dir: ".".into(),
            until_end: false,
            ends: None,
            positions: Arc::new(positions.clone()),
            clusters: Arc::default(),
            stretch: None,
        }
    }

    /// The bytes of each partition from `positions` on.
    fn rest(partitions: u64, positions: &BTreeMap<Arc<str>, PartitionPosition>) -> BTreeMap<Arc<str>, Vec<u8>> {
        let mut source = Followed::from(GenerateKind.open(&context(partitions, positions)).unwrap());
        let mut bytes: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
        while let Polled::Chunk(chunk) = source.poll().unwrap() {
            bytes.entry(chunk.origin.partition.clone()).or_default().extend_from_slice(&chunk.bytes);
            assert_eq!(source.positions()[&chunk.origin.partition].next, chunk.origin.next);
        }
        assert!(matches!(source.poll(), Ok(Polled::Ended)));
        assert!(source.positions().values().all(|position| position.ended));
        bytes
    }

    #[test]
    fn it_goes_on_at_any_cut_with_the_same_bytes() {
        let none = BTreeMap::new();
        for partitions in [1, 3] {
            let whole = rest(partitions, &none);
            let mut source = Followed::from(GenerateKind.open(&context(partitions, &none)).unwrap());
            let mut before: BTreeMap<Arc<str>, Vec<u8>> = BTreeMap::new();
            while let Polled::Chunk(chunk) = source.poll().unwrap() {
                before.entry(chunk.origin.partition.clone()).or_default().extend_from_slice(&chunk.bytes);
                let after = rest(partitions, &source.positions());
                for (name, bytes) in &whole {
                    let parts = [&before, &after].map(|parts| parts.get(name).cloned().unwrap_or_default());
                    assert!(parts.concat() == *bytes, "{partitions} partitions, partition {name}");
                }
            }
        }
    }

    #[test]
    fn the_partitions_share_the_lines_of_one() {
        let none = BTreeMap::new();
        let one = rest(1, &none);
        let lines: Vec<&[u8]> = one["0"].split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 30_001);
        for (number, (_, bytes)) in rest(3, &none).into_iter().enumerate() {
            assert!(lines.iter().skip(number).step_by(3).copied().collect::<Vec<_>>().concat() == bytes);
        }
    }

    #[test]
    fn a_start_that_is_no_time_is_a_finding() {
        let mut options = context(1, &BTreeMap::new()).options;
        assert!(GenerateKind.check(&options).is_empty());
        options.0.insert("start".into(), json!("yesterday"));
        assert_eq!(GenerateKind.check(&options)[0].option, Some("start"));
        assert!(GenerateKind.open(&SourceContext { options, ..context(1, &BTreeMap::new()) }).is_err());
    }
}
