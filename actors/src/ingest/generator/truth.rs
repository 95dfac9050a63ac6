//! What is true of generated lines: the oracle of every test that runs them through the whole job.

use std::collections::BTreeMap;

use serde::Serialize;
use tidemill_core::{Hour, IdSum, format_time_ms, key_hash};

use super::{Event, Generator, GeneratorConfig, TYPES};

const HOUR_MS: i64 = 3_600_000;

/// What the lines of a configuration hold. As JSON its order is stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Truth {
    /// The configuration.
    pub config: GeneratorConfig,
    /// Lines.
    pub events: u64,
    /// Different ids.
    pub unique: u64,
    /// Lines that repeat an earlier one: `events - unique`.
    pub duplicates: u64,
    /// Order-free hash of all ids (`sum128-xxh3_128-v1` over the field `event_id`).
    pub ids: IdSum,
    /// Per type and hour (start, RFC 3339): what its unique events come to.
    pub types: BTreeMap<String, BTreeMap<String, HourTruth>>,
}

/// The unique events of one hour of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HourTruth {
    /// How many.
    pub count: u64,
    /// Order-free hash of their ids.
    pub ids: IdSum,
}

impl Truth {
    /// The truth of a configuration; takes about as long as generating it.
    #[must_use]
    pub fn of(config: &GeneratorConfig) -> Self {
        let generator = Generator::new(config);
        let mut fold = TruthFold::default();
        for line in 0..config.events {
            fold.line(&generator, line);
        }
        fold.finish(&generator)
    }
}

/// Collects the truth line by line.
#[derive(Default)]
pub(super) struct TruthFold {
    events: u64,
    unique: u64,
    hours: BTreeMap<i64, [HourTruth; TYPES.len()]>,
}

impl TruthFold {
    /// Takes the next line and returns its event.
    pub(super) fn line(&mut self, generator: &Generator, line: u64) -> Event {
        let event = generator.event(line);
        self.events += 1;
        if generator.original_of(line) == line {
            self.unique += 1;
            let mut key = [0; 36];
            key[..4].copy_from_slice(&32u32.to_le_bytes());
            key[4..].copy_from_slice(&event.id_text());
            let hour = Hour::of(event.time_ms, HOUR_MS).start_ms;
            let truth = &mut self.hours.entry(hour).or_default()[event.event_type as usize];
            truth.count += 1;
            truth.ids += key_hash(&key);
        }
        event
    }

    pub(super) fn finish(self, generator: &Generator) -> Truth {
        let mut ids = IdSum::default();
        let mut types: BTreeMap<String, BTreeMap<String, HourTruth>> = BTreeMap::new();
        for (hour, of_types) in self.hours {
            for ((name, _), truth) in TYPES.iter().zip(of_types).filter(|(_, truth)| truth.count > 0) {
                ids += truth.ids.0;
                types.entry((*name).to_owned()).or_default().insert(format_time_ms(hour), truth);
            }
        }
        Truth {
            config: generator.config().clone(),
            events: self.events,
            unique: self.unique,
            duplicates: self.events - self.unique,
            ids,
            types,
        }
    }
}
