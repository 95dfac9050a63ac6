//! The kind of source that gives a simulation's events.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_buffer::Buffer;
use tidemill_core::{
    Cure, Framing, Idle, KindSpec, Moved, OptionSpec, OptionType, Origin, PartitionPosition, Polled, RawChunk,
    Reported, Role, Shape, Source, SourceContext, SourceError, SourceKind, State,
};

use crate::dice::Dice;
use crate::input::Input;
use crate::machine::Process;

static SPEC: KindSpec = KindSpec {
    name: "rolled",
    role: Role::Source,
    summary: "Gives the events of a simulation.",
    details: "",
    options: &[OptionSpec::required(
        "takes",
        OptionType::Choice(&["0/1", "0/2", "1/2", "0/3", "1/3", "2/3"]),
        "Which partitions are its own: its number, and that of sources.",
    )],
    input: Shape::Nothing,
    output: Shape::Lines,
    state: State::Stateful,
    guarantee: None,
};

/// See the module.
pub(crate) struct Rolled {
    pub(crate) input: Arc<Input>,
    /// Its clock.
    pub(crate) process: Process,
    pub(crate) dice: Mutex<Dice>,
    /// A partition that gives nothing, and is not proven to have nothing.
    pub(crate) stuck: Option<usize>,
    /// How often it still fails.
    pub(crate) errors_left: Arc<AtomicU64>,
    /// The greatest positions that were said to be committed: no later process may begin before them.
    pub(crate) told: Arc<Mutex<BTreeMap<Arc<str>, u64>>>,
    /// What must not happen and did.
    pub(crate) violations: Arc<Mutex<Vec<String>>>,
}

struct Reading {
    name: Arc<str>,
    input: Arc<Input>,
    process: Process,
    dice: Dice,
    errors_left: Arc<AtomicU64>,
    until_end: bool,
    stuck: Option<usize>,
    opened_at_ms: i64,
    /// What there is was read: what is left comes later.
    is_quiet: bool,
    /// Partition and offset.
    at: BTreeMap<usize, u64>,
    reported: Reported,
    told: Arc<Mutex<BTreeMap<Arc<str>, u64>>>,
}

fn name(partition: usize) -> Arc<str> {
    format!("p{partition}").into()
}

impl SourceKind for Rolled {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn ends(&self, _options: &tidemill_core::Options) -> bool {
        true
    }

    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError> {
        let takes = context.options.parse::<BTreeMap<String, String>>().map(|options| options["takes"].clone());
        let takes = takes.unwrap_or_default();
        let (number, of) = takes.split_once('/').unwrap_or(("0", "1"));
        let parse = |text: &str| text.parse::<usize>().expect("a number");
        let (number, of) = (parse(number), parse(of));
        let is_own = |partition: &usize| partition % of == number;
        let at: BTreeMap<usize, u64> = (0..self.input.partitions.len())
            .filter(is_own)
            .map(|partition| (partition, context.positions.get(&name(partition)).map_or(0, |position| position.next)))
            .collect();
        for (partition, at) in &at {
            let told = self.told.lock().expect("nobody panicked").get(&name(*partition)).copied().unwrap_or(0);
            if *at < told {
                let what = format!("I4: partition {partition} is opened at {at}, but {told} was said to be committed");
                self.violations.lock().expect("nobody panicked").push(what);
            }
        }
        Ok(Box::new(Reading {
            name: context.name.clone(),
            input: self.input.clone(),
            process: self.process.clone(),
            dice: self.dice.lock().expect("nobody panicked").split(),
            errors_left: self.errors_left.clone(),
            until_end: context.until_end,
            stuck: self.stuck.filter(is_own),
            opened_at_ms: self.process.now_ms(),
            is_quiet: false,
            at,
            reported: Reported::default(),
            told: self.told.clone(),
        }))
    }
}

impl Reading {
    fn now_ms(&self) -> i64 {
        self.process.now_ms()
    }

    fn is_over(&self, partition: usize, at: u64) -> bool {
        at as usize >= self.input.partitions[partition].len()
    }
}

impl Source for Reading {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        let is_left = |left: u64| left.checked_sub(1);
        if self.dice.one_in(60) && self.errors_left.fetch_update(SeqCst, SeqCst, is_left).is_ok() {
            return Err(SourceError { message: "a planned error".into(), cure: Cure::Reopen, source: None });
        }
        self.is_quiet = self.dice.one_in(8);
        if self.is_quiet {
            return Ok(Polled::Idle(Duration::from_millis(self.dice.between(1, 30))));
        }
        let is_left =
            |(partition, at): &(&usize, &u64)| !self.is_over(**partition, **at) && self.stuck != Some(**partition);
        let left: Vec<usize> = self.at.iter().filter(is_left).map(|(p, _)| *p).collect();
        if left.is_empty() {
            return Ok(if self.until_end { Polled::Ended } else { Polled::Idle(Duration::from_millis(50)) });
        }
        let partition = *self.dice.pick(&left);
        let first = self.at[&partition];
        let starts = &self.input.starts[partition];
        let line = starts.partition_point(|start| (*start as u64) < first);
        let behind = line + self.dice.between(1, 16) as usize;
        let bytes = &self.input.partitions[partition];
        let next = starts.get(behind).copied().unwrap_or(bytes.len());
        self.at.insert(partition, next as u64);
        Ok(Polled::Chunk(RawChunk {
            origin: Arc::new(Origin {
                source: self.name.clone(),
                partition: name(partition),
                first,
                next: next as u64,
                enters: None,
            }),
            bytes: Buffer::from(&bytes[first as usize..next]),
            framing: Framing::Lines,
            arrived_at_ms: self.now_ms(),
        }))
    }

    fn moved(&mut self) -> Moved {
        let position = |(partition, at): (&usize, &u64)| {
            let ended = self.until_end && self.is_over(*partition, *at);
            (name(*partition), PartitionPosition { next: *at, resume: Arc::default(), ended })
        };
        let all = self.at.iter().map(position).collect();
        self.reported.moved_to(all)
    }

    fn idle(&self) -> Idle {
        let is_stuck = |partition: &usize| self.stuck == Some(*partition);
        let is_idle =
            |partition: &usize, at: &u64| !is_stuck(partition) && (self.is_quiet || self.is_over(*partition, *at));
        let except = self.at.iter().filter(|(partition, at)| !is_idle(partition, at));
        let except = except.map(|(partition, _)| (name(*partition), None)).collect();
        Idle { proven_ms: Some(self.now_ms()), except }
    }

    fn silent_partitions(&self) -> BTreeMap<Arc<str>, Duration> {
        let silence_ms = u64::try_from(self.now_ms() - self.opened_at_ms).unwrap_or_default();
        self.stuck.iter().map(|partition| (name(*partition), Duration::from_millis(silence_ms))).collect()
    }

    fn committed(&mut self, positions: &BTreeMap<Arc<str>, PartitionPosition>) {
        let mut told = self.told.lock().expect("nobody panicked");
        for (partition, position) in positions {
            let known = told.entry(partition.clone()).or_default();
            *known = (*known).max(position.next);
        }
    }
}
