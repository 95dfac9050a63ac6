//! The events of a simulation: what a perfect pipeline would make of them is known.

use std::collections::{BTreeMap, BTreeSet};

use crate::dice::Dice;
use crate::graph::{Graph, When};
use crate::machine::EPOCH_MS;

/// Width of an hour. Short, so that a few hundred events fill several.
pub(crate) const HOUR_MS: i64 = 60_000;
/// What a stage that is to fail on an event looks for.
pub(crate) const POISON: &str = "poison";
/// The types, and how they are written in the first column. A shape without a graph has the first two.
pub(crate) const TYPES: [&str; 4] = ["play", "stop", "like", "ping"];

/// All events, and the truth about them.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Bytes of each partition; the first source has the even ones, the second, if there is one, the odd ones.
    pub(crate) partitions: Vec<Vec<u8>>,
    /// Offset at which each line of a partition begins.
    pub(crate) starts: Vec<Vec<usize>>,
    /// What can be parsed, by id.
    pub(crate) events: BTreeMap<String, Event>,
    /// What can't: partition and position.
    pub(crate) broken: BTreeSet<(usize, u64)>,
    /// Events that some stage fails on, if one is told to.
    pub(crate) poison: BTreeSet<String>,
}

/// The time of the one event that is far ahead of all others: more than the hours without events that get manifests.
pub(crate) const FAR_MS: i64 = EPOCH_MS + 8 * 86_400_000;

/// An event that may come several times.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) event_type: &'static str,
    pub(crate) at_ms: i64,
    /// Partitions and positions.
    pub(crate) comes: Vec<(usize, u64)>,
}

impl Input {
    pub(crate) fn roll(dice: &mut Dice, graph: Option<&Graph>, has_outlier: bool) -> Self {
        let mut input = Self::default();
        let least = graph.map_or(1, |graph| graph.sources as u64);
        let partitions = dice.between(least, 4.max(least)) as usize;
        input.partitions.resize(partitions, Vec::new());
        input.starts.resize(partitions, Vec::new());
        let count = dice.between(20, 400);
        let poison = dice.below(count);
        let step_ms = dice.between(200, 3_000) as i64;
        let outlier = if has_outlier { dice.below(count) } else { count };
        let mut portion = Vec::new();
        for number in 0..count {
            if dice.one_in(40) {
                input.put_broken(number, dice);
            }
            // Mostly forward, sometimes far behind.
            let back_ms = if dice.one_in(12) { dice.below(200_000) } else { dice.below(8_000) } as i64;
            // Now and then nothing happens for some hours.
            let leap_ms = if number > count / 2 { (count % 5) as i64 * HOUR_MS } else { 0 };
            let at_ms = match number == outlier {
                true => FAR_MS + back_ms,
                false => EPOCH_MS + leap_ms + (number as i64 * step_ms - back_ms).max(0),
            };
            let who = if number == poison { POISON.to_owned() } else { "w".repeat(dice.below(120) as usize) };
            let id = format!("id{number:05}");
            if number == poison {
                input.poison.insert(id.clone());
            }
            let known = if graph.is_some() { TYPES.len() } else { 2 };
            let of = dice.below(known as u64) as usize;
            let when = graph.map_or(When::Always, |graph| graph.types[of].when);
            if when == When::Never || when == When::AtFirst && number > count / 3 {
                input.poison.remove(&id);
                continue;
            }
            let event_type = TYPES[of];
            let own = graph.map_or_else(|| (0..partitions).collect(), |graph| graph.partitions(of, partitions));
            let line = format!("{event_type}\t{id}\t{at_ms}\t{who}\n");
            let comes: Vec<usize> =
                (0..if dice.one_in(10) { dice.between(2, 3) } else { 1 }).map(|_| *dice.pick(&own)).collect();
            if when == When::InOnePortion {
                portion.push((id, event_type, at_ms, comes, line));
                continue;
            }
            input.put_event(id, event_type, at_ms, &comes, &line);
        }
        for (id, event_type, at_ms, comes, line) in portion {
            input.put_event(id, event_type, at_ms, &comes, &line);
        }
        input
    }

    fn put_event(&mut self, id: String, event_type: &'static str, at_ms: i64, comes: &[usize], line: &str) {
        let comes = comes.iter().map(|partition| (*partition, self.put(*partition, line))).collect();
        self.events.insert(id, Event { event_type, at_ms, comes });
    }

    fn put(&mut self, partition: usize, line: &str) -> u64 {
        let bytes = &mut self.partitions[partition];
        let start = bytes.len();
        self.starts[partition].push(start);
        bytes.extend_from_slice(line.as_bytes());
        start as u64
    }

    fn put_broken(&mut self, number: u64, dice: &mut Dice) {
        let partition = dice.below(self.partitions.len() as u64) as usize;
        let line = match dice.below(3) {
            0 => format!("play\tid{number:05}\tyesterday\tx\n"),
            1 => "nothing\n".to_owned(),
            _ => format!("stop\tid{number:05}\n"),
        };
        let position = self.put(partition, &line);
        self.broken.insert((partition, position));
    }
}
