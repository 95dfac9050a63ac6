//! A seeded generator of listening events.
//!
//! Line `i` is a function of the configuration and of `i` alone: numbers come from SplitMix64 (a published algorithm)
//! started at a hash of seed and `i`. So a run can go on at any line at once, and the same configuration gives the same
//! bytes for ever; a golden test holds that down. A duplicate is line `i` repeating an earlier line `j`, which it names by
//! its distance: no state is carried either.
//!
//! A line has 8 columns, separated by tabs, about 113 bytes in all: the type, then the fields of [`LISTENING_SCHEMA`].

mod files;
mod line;
mod names;
mod pace;
#[cfg(test)]
mod tests;
mod topic;
mod truth;

use std::ops::Range;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

pub use files::{Compression, write_files, write_truth};
use names::{COUNTRIES, HEARD, PLATFORMS, SLOTS, TYPES, draw_table};
pub use topic::{TopicError, write_topic};
pub use truth::{HourTruth, Truth};

/// The Avro schema that all types of generated events share.
pub const LISTENING_SCHEMA: &str = include_str!("../../../../topologies/schemas/listening.avsc");

/// 2026-01-01T00:00:00Z, where generated time starts unless told otherwise.
pub const DEFAULT_START_MS: i64 = 1_767_225_600_000;

/// What is generated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GeneratorConfig {
    /// Lines in all, duplicates among them.
    pub events: u64,
    /// The seed.
    pub seed: u64,
    /// Share of lines that repeat an earlier line, 0 to 0.9.
    pub duplicates: f64,
    /// A repeat comes at most so many lines after an earlier line, and within `disorder_ms` if that is less
    /// (but at least one line after).
    pub duplicates_within: u64,
    /// Hours of event time that the lines are spread over evenly.
    pub hours: u64,
    /// How far the time of an event may be behind the lines around it, in milliseconds (a repeat: twice that).
    pub disorder_ms: u64,
    /// Where event time starts, in milliseconds since 1970. No event is earlier.
    pub start_ms: i64,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            events: 2_000_000,
            seed: 1,
            duplicates: 0.02,
            duplicates_within: 1_000,
            hours: 3,
            disorder_ms: 30_000,
            start_ms: DEFAULT_START_MS,
        }
    }
}

/// Names of the types, in the order of [`Event::event_type`].
pub fn type_names() -> impl ExactSizeIterator<Item = &'static str> {
    TYPES.iter().map(|(name, _)| *name)
}

/// One generated event, before it is written as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index of its type in [`type_names`].
    pub event_type: u8,
    /// Its id; 32 hex digits when written.
    pub id: u128,
    /// Its time in milliseconds since 1970.
    pub time_ms: i64,
    user: u32,
    country: u8,
    track: u64,
    ms_played: u32,
    platform: u8,
}

/// Makes the events of one configuration. Cheap to make; any number of threads may share it.
#[derive(Clone, Debug)]
pub struct Generator {
    config: GeneratorConfig,
    key: u64,
    /// A line is a duplicate when the upper half of its first number is below this.
    duplicate_below: u64,
    duplicate_lines: u64,
    /// Event time per line, in milliseconds times 2^64.
    step: u128,
    types: Box<[u8; SLOTS]>,
    countries: Box<[u8; SLOTS]>,
    platforms: Box<[u8; SLOTS]>,
    heard: [bool; TYPES.len()],
}

const USERS: u64 = 2_000_000;
const TRACKS: u64 = 1 << 22;

impl Generator {
    /// A generator; shares and counts that make no sense are brought into their bounds.
    #[must_use]
    pub fn new(config: &GeneratorConfig) -> Self {
        let config = GeneratorConfig {
            duplicates: config.duplicates.clamp(0.0, 0.9),
            hours: config.hours.min(1_000_000),
            disorder_ms: config.disorder_ms.min(1_000_000 * 3_600_000),
            ..config.clone()
        };
        let events = u128::from(config.events.max(1));
        let step = (u128::from(config.hours.saturating_mul(3_600_000)) << 64) / events;
        let lines_in_disorder = ((u128::from(config.disorder_ms) << 64) / step.max(1)).min(u128::from(u64::MAX)) as u64;
        let countries: Vec<u32> = (0..COUNTRIES.len() as u32).map(|index| 100_000 / (index + 3)).collect();
        Self {
            key: SplitMix64::seed_from_u64(config.seed).next_u64(),
            duplicate_below: (config.duplicates * 4_294_967_296.0) as u64,
            duplicate_lines: config.duplicates_within.min(lines_in_disorder).clamp(1, 1 << 31),
            step,
            types: draw_table(&TYPES.map(|(_, weight)| weight)),
            countries: draw_table(&countries),
            platforms: draw_table(&PLATFORMS.map(|(_, weight)| weight)),
            heard: TYPES.map(|(name, _)| HEARD.contains(&name)),
            config,
        }
    }

    /// What it generates.
    #[must_use]
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    #[inline]
    fn numbers(&self, line: u64) -> SplitMix64 {
        // SplitMix64 started at neighbouring seeds gives shifted copies of one sequence; started at hashes it does not.
        let start = (self.key ^ line).wrapping_mul(0xd6e8_feb8_6659_fd93);
        SplitMix64::seed_from_u64(start ^ (start >> 32))
    }

    /// The line that `line` repeats (itself an original), or `line` when it repeats none.
    #[must_use]
    #[inline]
    pub fn original_of(&self, line: u64) -> u64 {
        let mut line = line;
        loop {
            let number = self.numbers(line).next_u64();
            if line == 0 || number >> 32 >= self.duplicate_below {
                return line;
            }
            let distance = 1 + (((number & 0xffff_ffff) * self.duplicate_lines) >> 32);
            line -= distance.min(line);
        }
    }

    /// The event that `line` holds.
    #[must_use]
    #[inline]
    pub fn event(&self, line: u64) -> Event {
        let line = self.original_of(line);
        let mut numbers = self.numbers(line);
        let _decides_duplicates = numbers.next_u64();
        let (a, b, c, d) = (numbers.next_u64(), numbers.next_u64(), numbers.next_u64(), numbers.next_u64());
        let slot = |number: u64| (number as usize) & (SLOTS - 1);
        let event_type = self.types[slot(a)];
        let behind = (u128::from(d) * (u128::from(self.config.disorder_ms) + 1)) >> 64;
        let time = ((u128::from(line) * self.step) >> 64) as i64 - behind as i64;
        // Squaring a number below one makes the low ones frequent: some users and tracks are in far more events than others.
        let skewed = |number: u64, below: u64| {
            let square = (number & 0xffff_ffff) * (number & 0xffff_ffff);
            ((square >> 32) * below) >> 32
        };
        // One half of the id is a bijection of the line, so that no two lines of a seed can have the same id.
        let unique = SplitMix64::seed_from_u64(self.key ^ line).next_u64();
        let ms_played = if self.heard[event_type as usize] { ((b >> 32) * 300_000) >> 32 } else { 0 };
        Event {
            event_type,
            id: (u128::from(unique) << 64) | u128::from(numbers.next_u64()),
            time_ms: self.config.start_ms.saturating_add(time.max(0)),
            user: skewed(a >> 32, USERS) as u32,
            country: self.countries[slot(a >> 12)],
            track: skewed(c, TRACKS),
            ms_played: ms_played as u32,
            platform: self.platforms[slot(b)],
        }
    }

    /// Appends a line, with its line feed.
    #[inline]
    pub fn write_line(&self, line: u64, out: &mut Vec<u8>) {
        self.event(line).write(out);
    }

    /// Appends the lines of a range.
    pub fn write_lines(&self, lines: Range<u64>, out: &mut Vec<u8>) {
        for line in lines {
            self.write_line(line, out);
        }
    }
}
