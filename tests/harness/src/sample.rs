//! Sample flights through every kind of stage that counts, and what they come to.

use std::collections::BTreeMap;
use std::path::Path;

use metrics_exporter_prometheus::PrometheusBuilder;
use tidemill_runtime::{Registry, RunConfig, SealAt, Status};
use tidemill_testkit::{Fault, Faulty, Trigger};

use crate::{Place, assert_exit, hours, python, root};

/// Every kind of stage with a fault: sample flights through `tsv`, `filter`, `dedup`, `hourly` and `avro_files`.
pub const TOPOLOGY: &str = r#"
[topology]
name = "faults"
allowed_lateness = "1h"
[types.flight]
schema = "SCHEMA"
time = "scheduled_at"
id = ["flight_id"]
[sources.departures]
kind = "file"
paths = ["input.tsv"]
read_size = "4KiB"
[stages.parse]
kind = "tsv"
from = ["departures"]
workers = 3
type_from = { const = "flight" }
null = ["NA"]
[stages.flown]
kind = "filter"
from = ["parse"]
where = "distance > 0"
workers = 2
[stages.dedup]
kind = "dedup"
from = ["flown"]
[stages.carriers]
kind = "hourly"
from = ["dedup"]
group_by = ["carrier"]
measures = { flights = "count()", planes = "approx_distinct(tailnum)" }
[sinks.flights]
kind = "avro_files"
from = ["dedup"]
[sinks.carriers_files]
kind = "avro_files"
from = ["carriers"]
"#;

/// Each kind in the topology, with the name of a stage or sink of it.
pub const KINDS: [(&str, &str); 5] =
    [("tsv", "parse"), ("filter", "flown"), ("dedup", "dedup"), ("hourly", "carriers"), ("avro_files", "flights")];

/// A place with the topology and these lines as its input.
#[must_use]
pub fn place(lines: &str) -> Place {
    let place = Place::new();
    let schema = root().join("topologies/schemas/flight.avsc");
    place.write("topology.toml", TOPOLOGY.replace("SCHEMA", &schema.display().to_string()));
    place.write("input.tsv", lines);
    place
}

/// The sample with every fifth line twice.
pub fn input() -> String {
    let sample = std::fs::read_to_string(root().join("topologies/flights/flights-sample.tsv")).expect("the sample");
    let mut text = String::new();
    for (at, line) in sample.lines().enumerate() {
        for _ in 0..=usize::from(at % 5 == 0) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// What was published: count and id hash of every hour, from the manifests, and all rows, events and hourly ones, as
/// somebody else
/// reads and audits them.
pub struct Published {
    /// By type and start.
    pub hours: BTreeMap<String, (u64, String)>,
    rows: Vec<String>,
}

impl Published {
    /// What is published below a root.
    #[must_use]
    pub fn below(out: &Path) -> Self {
        let audit = python("audit_files.py", &[out.to_str().unwrap(), "--rows", "--expect-unique-field", "flight_id"]);
        assert_exit(&audit, 0);
        let text = String::from_utf8(audit.stdout).expect("UTF-8");
        let rows = text.lines().filter_map(|line| line.strip_prefix("ROW ")).map(str::to_owned).collect();
        Self { hours: hours(out), rows }
    }

    /// Asserts that nothing differs.
    ///
    /// # Panics
    /// When something does; the message begins with the case.
    #[track_caller]
    pub fn assert_is(&self, expected: &Self, case: &str) {
        assert_eq!(self.hours, expected.hours, "{case}");
        for (found, expected) in self.rows.iter().zip(&expected.rows) {
            assert_eq!(found, expected, "{case}");
        }
        assert_eq!(self.rows.len(), expected.rows.len(), "{case}");
    }

    /// How many rows a type has.
    #[must_use]
    pub fn rows_of(&self, event_type: &str) -> usize {
        self.rows.iter().filter(|row| row.split(' ').next() == Some(event_type)).count()
    }
}

/// Runs the topology in this process with one kind replaced, to its end.
pub fn run(place: &Place, faulty: Option<(&str, Fault, Trigger)>) -> Status {
    // So long that nothing counts as hung.
    run_watched(place, faulty, 600_000)
}

/// The same, where a call that takes longer than so many milliseconds counts as hung.
///
/// # Panics
/// When it does not end well.
pub fn run_watched(place: &Place, faulty: Option<(&str, Fault, Trigger)>, heartbeat_ms: u64) -> Status {
    let mut registry: Registry = tidemill::registry();
    for kind in tidemill_actors::stage_kinds() {
        match &faulty {
            Some((name, fault, trigger)) if kind.spec().name == *name => {
                registry.add_stage(std::sync::Arc::new(Faulty::new(kind, *fault, trigger.clone())));
            }
            _ => {}
        }
    }
    let config = RunConfig {
        // So little that the source waits for cuts: a fault at a late call goes back to a snapshot, not to the
        // beginning.
        replay_bytes: 1 << 14,
        state_memory_bytes: 64 << 20,
        heartbeat_ms,
        // So that all stages have something to do all the time.
        seal_at: SealAt::Watermark,
        ..place.config(true)
    };
    place.run_inside("topology.toml", &registry, config, async |_| {}).expect("it ends well").1
}

/// The restarts of each stage, as a page of metrics says them: what a run has counted, through the exporter of the
/// admin server.
pub fn served_restarts(status: &Status) -> BTreeMap<String, u64> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || tidemill_runtime::Exporter::default().export(status));
    let page = recorder.handle().render();
    let series = page.lines().filter_map(|line| line.strip_prefix("tidemill_stage_restarts_total{"));
    let restarts = series.map(|line| {
        let (labels, value) = line.split_once("} ").expect("labels, then a value");
        let stage = labels.split(',').find_map(|label| label.strip_prefix("stage=\"")?.strip_suffix('"'));
        (stage.expect("a stage").to_owned(), value.parse().expect("a number"))
    });
    restarts.collect()
}

/// The input with one event that a stage of some kind can't deal with.
pub fn with_poison() -> String {
    let clean = input();
    let at = clean.lines().count() / 2;
    let mut lines: Vec<String> = clean.lines().map(str::to_owned).collect();
    let poison = lines[at].replace("\tUA\t", "\tZZ\t").replace("\tB6\t", "\tZZ\t");
    let mut fields: Vec<&str> = poison.split('\t').collect();
    fields[1] = "POISON-20130102";
    lines.insert(at, fields.join("\t"));
    lines.join("\n") + "\n"
}
