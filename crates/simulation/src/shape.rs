//! Topologies of simulations.

use std::path::Path;

use tidemill_runtime::Registry;
use tidemill_topology::{Plan, PondOptions, WhenFull};

use crate::dice::Dice;
use crate::graph::{Graph, SOURCES};
use crate::input::TYPES;

const SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "who", "type": "string"}
]}"#;

/// What a topology is made of besides a parser, a deduplication and files.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Ways that are not as simple.
    pub(crate) graph: Option<Graph>,
    pub(crate) workers: u64,
    pub(crate) two_sources: bool,
    /// A pond in front of the deduplication: all that is stateful is in a region of its own.
    pub(crate) deep: bool,
    pub(crate) counts: bool,
    /// The same files once more, behind a pond.
    pub(crate) again: bool,
    pub(crate) atomic: bool,
    pub(crate) keyed: bool,
    /// The kind that the poisonous event kills.
    pub(crate) poisons: Option<&'static str>,
    /// Bytes of ponds, all but that of dead letters.
    pub(crate) pond_bytes: u64,
    pub(crate) late: Late,
    /// Late events of the first type become dead letters all the same.
    pub(crate) first_is_strict: bool,
    /// Rows of counts are restated, not added to.
    pub(crate) restates: bool,
    /// Hours wait for producers, most of which are heard of once and never again, for so long.
    pub(crate) lease_ms: Option<u64>,
    /// One event has a time that is far from all others.
    pub(crate) outlier: bool,
    /// Nothing is given up within the life of a process.
    pub(crate) is_patient: bool,
}

/// What becomes of late events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    DeadLetters,
    /// Revisions; whether some come too late for that.
    Revisions {
        bounded: bool,
    },
    NextHour,
}

impl Shape {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let graph = dice.one_in(2).then(|| Graph::roll(dice));
        let mut maybe = || dice.one_in(2);
        let [two_sources, counts, again, atomic, keyed] = std::array::from_fn(|_| maybe());
        Self {
            two_sources: two_sources && graph.is_none(),
            deep: dice.one_in(4) && graph.is_none(),
            poisons: *dice.pick(&[None, None, Some("tsv"), Some("dedup"), Some("avro_files")]),
            graph,
            workers: dice.between(1, 4),
            counts,
            again,
            atomic,
            keyed,
            pond_bytes: *dice.pick(&[160 << 10, 512 << 10, 64 << 20]),
            late: *dice.pick(&[
                Late::DeadLetters,
                Late::Revisions { bounded: true },
                Late::Revisions { bounded: false },
                Late::Revisions { bounded: false },
                Late::NextHour,
            ]),
            first_is_strict: dice.one_in(2),
            restates: dice.one_in(2),
            lease_ms: *dice.pick(&[None, Some(1_000), Some(20_000)]),
            outlier: dice.one_in(3),
            is_patient: dice.one_in(3),
        }
    }

    fn text(&self, partitions: usize) -> String {
        let mut text = String::from(
            "[topology]\nname = \"simulated\"\nbucket = \"1m\"\nallowed_lateness = \"10s\"\nmax_ahead = \"1d\"\n",
        );
        text += if self.is_patient { "hold_at_most = \"30d\"\n" } else { "hold_at_most = \"1s\"\n" };
        text += match self.late {
            Late::DeadLetters => "",
            Late::Revisions { bounded: true } => "late = \"revise\"\nlate_within = \"2m\"\nlate_delay = \"200ms\"\n",
            Late::Revisions { bounded: false } => "late = \"revise\"\nlate_within = \"1d\"\nlate_delay = \"50ms\"\n",
            Late::NextHour => "late = \"next_hour\"\nlate_within = \"1d\"\n",
        };
        let known = if self.graph.is_some() { TYPES.len() } else { 2 };
        for (number, name) in TYPES.iter().enumerate().take(known) {
            text += &format!("[types.{name}]\nschema = \"event.avsc\"\ntime = \"at\"\nid = [\"id\"]\n");
            if let Some(lease_ms) = self.lease_ms {
                text += &format!("producer = \"who\"\nlease = \"{lease_ms}ms\"\n");
            }
            if self.is_strict(name) && self.late != Late::DeadLetters {
                text += "late = \"dead_letter\"\n";
            }
            text += &self.graph.as_ref().map_or_else(String::new, |graph| graph.origins(number, partitions));
        }
        let (ways, behind) = match &self.graph {
            Some(graph) => graph.text(self.workers),
            None => self.plain_ways(),
        };
        text += &ways;
        let behind = format!("{behind:?}");
        // No codec: blocks are not handed to other threads then, whose pace is not the simulation's.
        let files = "kind = \"avro_files\"\nblock_size = \"4KiB\"\nroll_size = \"64KiB\"\ncodec = \"null\"\n";
        text += &format!("[sinks.files]\nfrom = {behind}\n{files}path = \"files/{{event_type}}/{HOUR}\"\n");
        text +=
            &format!("[sinks.dead_letters]\nfrom = [\"parse.dead_letters\"]\n{files}path = \"_dead_letters/{HOUR}\"\n");
        if self.counts {
            text += &format!(
                "[stages.counts]\nkind = \"hourly\"\nfrom = {behind}\nmeasures = {{ events = \"count()\" }}\n"
            );
            text += if self.restates { "" } else { "late_rows = \"delta\"\n" };
            text += if self.graph.as_ref().is_some_and(|graph| graph.counts_behind_pond) { "pond = {}\n" } else { "" };
            text += &format!("[sinks.count_files]\nfrom = [\"counts\"]\n{files}path = \"counts/{HOUR}\"\n");
        }
        if self.again {
            text += &format!(
                "[sinks.again]\nfrom = {behind}\n{files}path = \"again/{{event_type}}/{HOUR}\"\npond = {{}}\n"
            );
        }
        for (is_there, name) in [(self.atomic, "atomic"), (self.keyed, "keyed")] {
            if is_there {
                text += &format!("[sinks.{name}]\nkind = \"{name}\"\nfrom = {behind}\n");
            }
        }
        text
    }

    /// One parser and one deduplication, and the stages that sinks take from.
    fn plain_ways(&self) -> (String, Vec<String>) {
        let mut text = String::new();
        let sources: &[(&str, &str)] = if self.two_sources { &[("a", "0/2"), ("b", "1/2")] } else { &[("a", "0/1")] };
        for (name, takes) in sources {
            text += &format!("[sources.{name}]\nkind = \"rolled\"\ntakes = \"{takes}\"\n");
        }
        let from: Vec<String> = sources.iter().map(|(name, _)| format!("{name:?}")).collect();
        text += &format!(
            "[stages.parse]\nkind = \"tsv\"\nfrom = [{}]\ntype_from = {{ column = 0 }}\ntime = \"epoch_ms\"\nworkers = {}\n",
            from.join(", "),
            self.workers
        );
        let pond = if self.deep { "pond = {}\n" } else { "" };
        text += &format!("[stages.dedup]\nkind = \"dedup\"\nfrom = [\"parse\"]\nwindow = \"1d\"\n{pond}");
        (text, vec!["dedup".to_owned()])
    }

    /// The source of a partition.
    pub(crate) fn source(&self, partition: usize) -> &'static str {
        let sources = self.graph.as_ref().map_or(if self.two_sources { 2 } else { 1 }, |graph| graph.sources);
        SOURCES[partition % sources]
    }

    /// Whether late events of a type become dead letters.
    pub(crate) fn is_strict(&self, event_type: &str) -> bool {
        self.late == Late::DeadLetters || (self.first_is_strict && event_type == TYPES[0])
    }

    /// Its plan.
    pub(crate) fn plan(&self, registry: &Registry, partitions: usize) -> Plan {
        let text = self.text(partitions);
        let loaded = tidemill_topology::load(&text, Path::new("/simulated.toml"), registry, &|_| Ok(SCHEMA.to_owned()));
        let Some(mut plan) = loaded.plan else {
            let said: Vec<String> = loaded.diagnostics.iter().map(|found| found.render(&text, false)).collect();
            panic!("the topology of a simulation is wrong:\n{text}\n{}", said.join("\n"));
        };
        for node in plan.nodes.iter_mut().filter(|node| node.pond.is_some() && *node.name != *"dead_letters") {
            // Smaller than a topology may have it, so that a few hundred events fill it.
            node.pond = Some(PondOptions { max_bytes: self.pond_bytes, when_full: WhenFull::Block });
        }
        plan
    }
}

const HOUR: &str = "{year}-{month}-{day}T{hour}{minute}";
