//! Topologies of simulations.

use std::path::Path;

use tidemill_runtime::Registry;
use tidemill_topology::{Plan, PondOptions, WhenFull};

use crate::dice::Dice;
use crate::input::TYPES;

const SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "who", "type": "string"}
]}"#;

/// What a topology is made of besides a parser, a deduplication and files.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
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
        let mut maybe = || dice.one_in(2);
        let [two_sources, counts, again, atomic, keyed] = std::array::from_fn(|_| maybe());
        Self {
            workers: dice.between(1, 4),
            two_sources,
            deep: dice.one_in(4),
            counts,
            again,
            atomic,
            keyed,
            poisons: *dice.pick(&[None, None, Some("tsv"), Some("dedup"), Some("avro_files")]),
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
        }
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "[topology]\nname = \"simulated\"\nbucket = \"1m\"\nallowed_lateness = \"10s\"\nhold_at_most = \"1s\"\nmax_ahead = \"1d\"\n",
        );
        text += match self.late {
            Late::DeadLetters => "",
            Late::Revisions { bounded: true } => "late = \"revise\"\nlate_within = \"2m\"\nlate_delay = \"200ms\"\n",
            Late::Revisions { bounded: false } => "late = \"revise\"\nlate_within = \"1d\"\nlate_delay = \"50ms\"\n",
            Late::NextHour => "late = \"next_hour\"\nlate_within = \"1d\"\n",
        };
        for name in TYPES {
            text += &format!("[types.{name}]\nschema = \"event.avsc\"\ntime = \"at\"\nid = [\"id\"]\n");
            if let Some(lease_ms) = self.lease_ms {
                text += &format!("producer = \"who\"\nlease = \"{lease_ms}ms\"\n");
            }
            if self.is_strict(name) && self.late != Late::DeadLetters {
                text += "late = \"dead_letter\"\n";
            }
        }
        let sources: &[(&str, &str)] = if self.two_sources { &[("a", "even"), ("b", "odd")] } else { &[("a", "all")] };
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
        // No codec: blocks are not handed to other threads then, whose pace is not the simulation's.
        let files = "kind = \"avro_files\"\nblock_size = \"4KiB\"\nroll_size = \"64KiB\"\ncodec = \"null\"\n";
        text += &format!("[sinks.files]\nfrom = [\"dedup\"]\n{files}path = \"files/{{event_type}}/{HOUR}\"\n");
        text +=
            &format!("[sinks.dead_letters]\nfrom = [\"parse.dead_letters\"]\n{files}path = \"_dead_letters/{HOUR}\"\n");
        if self.counts {
            text += "[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\nmeasures = { events = \"count()\" }\n";
            text += if self.restates { "" } else { "late_rows = \"delta\"\n" };
            text += &format!("[sinks.count_files]\nfrom = [\"counts\"]\n{files}path = \"counts/{HOUR}\"\n");
        }
        if self.again {
            text += &format!(
                "[sinks.again]\nfrom = [\"dedup\"]\n{files}path = \"again/{{event_type}}/{HOUR}\"\npond = {{}}\n"
            );
        }
        for (is_there, name) in [(self.atomic, "atomic"), (self.keyed, "keyed")] {
            if is_there {
                text += &format!("[sinks.{name}]\nkind = \"{name}\"\nfrom = [\"dedup\"]\n");
            }
        }
        text
    }

    /// Whether late events of a type become dead letters.
    pub(crate) fn is_strict(&self, event_type: &str) -> bool {
        self.late == Late::DeadLetters || (self.first_is_strict && event_type == TYPES[0])
    }

    /// Its plan.
    pub(crate) fn plan(&self, registry: &Registry) -> Plan {
        let text = self.text();
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
