//! How the events of a simulation come, and by which ways they go: several sources with types of their own, stages for
//! each tier, ponds between them, what is made of all of them. A shape without a graph has one parser and one
//! deduplication.

use crate::dice::Dice;
use crate::input::TYPES;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    /// How the events of each type come.
    pub(crate) types: Vec<Comes>,
    /// Sources; partitions belong to them in turns.
    pub(crate) sources: usize,
    /// Each source has a parser of its own.
    pub(crate) own_parsers: bool,
    /// Parsers say which types they parse.
    pub(crate) narrowed: bool,
    /// Types say which partitions they come from.
    pub(crate) says_origins: bool,
    /// Stages that deduplicate, each some of the types; whether there are ponds in front of them.
    pub(crate) tiers: usize,
    pub(crate) ponds: bool,
    /// Behind all of them there is a filter that takes everything; whether it has a pond.
    pub(crate) joined: Option<bool>,
    /// What is counted has a pond in front of it.
    pub(crate) counts_behind_pond: bool,
}

/// How the events of a type come.
#[derive(Clone, Debug)]
pub(crate) struct Comes {
    /// Its source.
    pub(crate) source: usize,
    pub(crate) when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Never,
    /// It falls quiet.
    AtFirst,
    /// All of it at the end, with times from the beginning on.
    InOnePortion,
}

/// Names of the sources.
pub(crate) const SOURCES: [&str; 3] = ["a", "b", "c"];

impl Graph {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let sources = dice.between(1, 3) as usize;
        let own_parsers = sources > 1 && !dice.one_in(4);
        let when = [When::Always, When::Always, When::Never, When::AtFirst, When::InOnePortion];
        let comes = |(at, _): (usize, _)| Comes {
            source: dice.below(sources as u64) as usize,
            // Something comes always.
            when: if at == 0 { When::Always } else { *dice.pick(&when) },
        };
        let types = TYPES.iter().enumerate().map(comes).collect();
        Self {
            types,
            sources,
            own_parsers,
            narrowed: own_parsers && dice.one_in(2),
            says_origins: dice.one_in(2),
            tiers: dice.between(1, 3) as usize,
            ponds: !dice.one_in(3),
            joined: *dice.pick(&[None, Some(false), Some(true)]),
            counts_behind_pond: dice.one_in(3),
        }
    }

    /// The partitions of a type.
    pub(crate) fn partitions(&self, event_type: usize, of: usize) -> Vec<usize> {
        (0..of).filter(|partition| partition % self.sources == self.types[event_type].source).collect()
    }

    /// The parser of a partition.
    pub(crate) fn parser(&self, partition: usize) -> &'static str {
        ["parse", "parse_b", "parse_c"][if self.own_parsers { partition % self.sources } else { 0 }]
    }

    /// Tables from the sources on to what the sinks take from; which stages these are.
    pub(crate) fn text(&self, workers: u64) -> (String, Vec<String>) {
        let mut text = String::new();
        for (number, name) in SOURCES.iter().enumerate().take(self.sources) {
            text += &format!("[sources.{name}]\nkind = \"rolled\"\ntakes = \"{number}/{}\"\n", self.sources);
        }
        let mut parsers: Vec<&str> = (0..self.sources).map(|source| self.parser(source)).collect();
        parsers.dedup();
        for (number, name) in parsers.iter().enumerate() {
            let from = if self.own_parsers { &SOURCES[number..=number] } else { &SOURCES[..self.sources] };
            text += &format!("[stages.{name}]\nkind = \"tsv\"\nfrom = {from:?}\nworkers = {workers}\n");
            text += "type_from = { column = 0 }\ntime = \"epoch_ms\"\n";
            let of_it = TYPES.iter().zip(&self.types).filter(|(_, comes)| comes.source == number);
            let of_it: Vec<&str> = of_it.map(|(name, _)| *name).collect();
            if self.narrowed && !of_it.is_empty() {
                text += &format!("types = {of_it:?}\n");
            }
        }
        let mut behind = Vec::new();
        for tier in 0..self.tiers {
            let name = format!("dedup_{tier}");
            let types: Vec<&str> = TYPES.iter().skip(tier).step_by(self.tiers).copied().collect();
            let pond = if self.ponds { "pond = {}\n" } else { "" };
            text += &format!(
                "[stages.{name}]\nkind = \"dedup\"\nfrom = {parsers:?}\ntypes = {types:?}\nwindow = \"1d\"\n{pond}"
            );
            behind.push(name);
        }
        if let Some(has_pond) = self.joined {
            let pond = if has_pond { "pond = {}\n" } else { "" };
            let filter = "kind = \"filter\"\nwhere = \"id != 'x'\"\n";
            text += &format!("[stages.joined]\n{filter}from = {behind:?}\n{pond}");
            behind = vec!["joined".to_owned()];
        }
        (text, behind)
    }

    /// What a type says of where it comes from.
    pub(crate) fn origins(&self, event_type: usize, partitions: usize) -> String {
        let own = self.partitions(event_type, partitions);
        if !self.says_origins || own.is_empty() {
            return String::new();
        }
        let source = SOURCES[self.types[event_type].source];
        let names: Vec<String> = own.iter().map(|partition| format!("{source}/p{partition}")).collect();
        format!("comes_from = {names:?}\n")
    }
}
