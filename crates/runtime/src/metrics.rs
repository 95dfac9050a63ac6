//! The catalogue of metrics. Nothing here is called per event: counts are copied from the status.

use std::fmt::Write as _;

use crate::status::Status;

mod export;

pub use export::Exporter;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows; a restart of the process starts it over.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct MetricSpec {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels, beyond `topology`.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn spec(name: &'static str, kind: MetricKind, labels: &'static [&'static str], help: &'static str) -> MetricSpec {
    MetricSpec { name, kind, labels, help }
}

use MetricKind::{Counter, Gauge, Histogram};

const DELIVERY: &str = "tidemill_sink_delivery_seconds";

/// All metrics, in order of name.
pub const METRICS: &[MetricSpec] = &[
    spec(
        "tidemill_audit_mismatches_total",
        Counter,
        &["event_type"],
        "Times that the audit found events lost, repeated or exchanged on their way; event_type is empty for what was not parsed yet.",
    ),
    spec("tidemill_cut_age_seconds", Gauge, &["region"], "Time since the barrier of the last committed cut."),
    spec("tidemill_cut_commit_seconds", Gauge, &["region"], "How long the last commit took: syncs, ledger, effects."),
    spec(
        "tidemill_cut_duration_seconds",
        Gauge,
        &["region"],
        "How long the last cut took, from its barrier to the end of its effects.",
    ),
    spec("tidemill_cuts_total", Counter, &["region"], "Number of the last committed cut; it goes on over restarts."),
    spec(
        "tidemill_dead_letters_total",
        Counter,
        &["source", "reason", "event_type"],
        "Dead letters since the process started, late ones (reason late) among them; event_type is empty where it is not known.",
    ),
    spec(
        "tidemill_held_bytes",
        Gauge,
        &["region"],
        "Bytes received, or taken out of ponds, that are not in a committed cut yet.",
    ),
    spec(
        "tidemill_partition_committed_position",
        Gauge,
        &["source", "partition"],
        "Position of the partition in the last committed cut.",
    ),
    spec(
        "tidemill_partition_far_ahead",
        Gauge,
        &["source", "partition"],
        "1 while the newest event of the partition is so far ahead of its others that no hour is sealed because of it.",
    ),
    spec(
        "tidemill_partition_lag_events",
        Gauge,
        &["source", "partition"],
        "Records that are there and were not read yet, for sources that know (Kafka).",
    ),
    spec(
        "tidemill_partition_lag_seconds",
        Gauge,
        &["source", "partition"],
        "Age of the newest record that was read, where there are newer ones; 0 at the end (Kafka).",
    ),
    spec(
        "tidemill_partition_max_event_timestamp_seconds",
        Gauge,
        &["source", "partition"],
        "Highest event time seen in the partition.",
    ),
    spec("tidemill_partition_position", Gauge, &["source", "partition"], "Position behind what was read."),
    spec(
        "tidemill_partition_silent_seconds",
        Gauge,
        &["source", "partition"],
        "How long the partition has given nothing without having been proven to have nothing; beyond hold_at_most hours do not wait for it.",
    ),
    spec(
        "tidemill_pond_bytes",
        Gauge,
        &["pond"],
        "Bytes that the pond has on disk; a segment goes when all of it was delivered.",
    ),
    spec(
        "tidemill_pond_full",
        Gauge,
        &["pond"],
        "1 while the pond is full: sources wait, or events become dead letters.",
    ),
    spec("tidemill_pond_max_bytes", Gauge, &["pond"], "Bytes that the pond may hold."),
    spec("tidemill_pond_unread_bytes", Gauge, &["pond"], "Bytes in the pond that were not delivered."),
    spec(
        "tidemill_read_bytes_total",
        Counter,
        &["region"],
        "Bytes that were handed on by sources, or came out of ponds, since the process started.",
    ),
    spec(
        "tidemill_region_down",
        Gauge,
        &["region"],
        "1 while a region behind ponds can't run and waits to be opened again; `tidemill status` and the log say why.",
    ),
    spec(
        "tidemill_region_restarts_total",
        Counter,
        &["region"],
        "Times that a region was opened again because it could not go on.",
    ),
    spec(
        "tidemill_region_unpublished_files",
        Gauge,
        &["region"],
        "Files of sealed hours that wait to be published; hours stay open while those of four cuts wait.",
    ),
    spec(
        "tidemill_region_unpublished_seconds",
        Gauge,
        &["region"],
        "How long the first of these files has waited; 0 when there are none.",
    ),
    spec(
        DELIVERY,
        Histogram,
        &["sink"],
        "Events by the time from their arrival in the process to the commit of the cut that has them in the sink.",
    ),
    spec(
        "tidemill_source_back_pressure_seconds_total",
        Counter,
        &["source"],
        "Time that the source waited for room behind it.",
    ),
    spec("tidemill_source_busy_seconds_total", Counter, &["source"], "Time that the source read."),
    spec("tidemill_source_errors_total", Counter, &["source"], "Calls of the source that failed."),
    spec("tidemill_source_restarts_total", Counter, &["source"], "Times that the source was opened again."),
    spec(
        "tidemill_source_waiting",
        Gauge,
        &["source"],
        "1 while the source waits for something outside, such as a broker, or reads no further in a partition; /ready says what.",
    ),
    spec("tidemill_stage_absorbed_total", Counter, &["stage"], "Records that went into aggregates."),
    spec(
        "tidemill_stage_back_pressure_seconds_total",
        Counter,
        &["stage"],
        "Time that results waited for room behind the stage.",
    ),
    spec(
        "tidemill_stage_busy_seconds_total",
        Counter,
        &["stage"],
        "Time in calls of the stage, over its workers; its rate divided by the workers is the busy ratio.",
    ),
    spec(
        "tidemill_stage_dead_lettered_total",
        Counter,
        &["stage"],
        "Records that became dead letters, late ones aside.",
    ),
    spec("tidemill_stage_duplicates_total", Counter, &["stage"], "Records that were dropped as duplicates."),
    spec("tidemill_stage_errors_total", Counter, &["stage"], "Calls that failed or panicked."),
    spec("tidemill_stage_filtered_total", Counter, &["stage"], "Records that the stage was asked to leave out."),
    spec(
        "tidemill_stage_late_total",
        Counter,
        &["stage"],
        "Records for an hour that was sealed; they became dead letters.",
    ),
    spec("tidemill_stage_open_buckets", Gauge, &["stage"], "Hours that the stage held open at the last barrier."),
    spec("tidemill_stage_queue_bytes", Gauge, &["stage"], "Bytes that wait in front of the stage."),
    spec(
        "tidemill_stage_queue_events",
        Gauge,
        &["stage"],
        "Events and messages that wait in front of the stage; lines are not counted before they are parsed.",
    ),
    spec("tidemill_stage_queue_items", Gauge, &["stage"], "Items that wait in front of the stage."),
    spec("tidemill_stage_received_total", Counter, &["stage"], "Records that came in."),
    spec("tidemill_stage_restarts_total", Counter, &["stage"], "Workers that were replaced after a failure."),
    spec("tidemill_stage_sent_total", Counter, &["stage"], "Records that went on, or were written by a sink."),
    spec(
        "tidemill_stage_refused_total",
        Counter,
        &["stage"],
        "Records that a limit refused (`max_path_values`, a full pond): dead letters that manifests count as \
         `refused`.",
    ),
    spec(
        "tidemill_stage_stuck_threads",
        Gauge,
        &["stage"],
        "Threads of workers that hung and were replaced, and that have not come back.",
    ),
    spec(
        "tidemill_stage_taken_late_total",
        Counter,
        &["stage"],
        "Records for an hour that was sealed which are part of a later revision, or of a later hour.",
    ),
    spec(
        "tidemill_stage_waiting",
        Gauge,
        &["stage"],
        "1 while a sink takes no events because of something outside, such as a broker; `tidemill status` and the log say what.",
    ),
    spec(
        "tidemill_type_events_total",
        Counter,
        &["event_type"],
        "Events that were parsed, repeated ones among them, as of the last cut, since the process started.",
    ),
    spec(
        "tidemill_type_info",
        Gauge,
        &["event_type", "owner", "tier"],
        "1, with who answers for the type, and its tier: to be joined to other metrics, so that an alarm finds its team.",
    ),
    spec(
        "tidemill_type_late_events_total",
        Counter,
        &["event_type"],
        "Those of them that came when their hour was sealed, whatever became of them.",
    ),
    spec(
        "tidemill_type_missing_events_total",
        Counter,
        &["event_type"],
        "Events that producers have sent, by their numbers, and that did not come; noticed when the hour is sealed, since the process started.",
    ),
    spec("tidemill_type_open_buckets", Gauge, &["event_type"], "Hours with events that are not sealed."),
    spec(
        "tidemill_type_seal_delay_seconds",
        Gauge,
        &["event_type"],
        "How long after its end and the allowed lateness the last sealed hour with events was sealed, by the clock.",
    ),
    spec("tidemill_type_sealed_buckets_total", Counter, &["event_type"], "Hours sealed since the process started."),
    spec(
        "tidemill_type_sealed_in_time_buckets_total",
        Counter,
        &["event_type"],
        "Those of the sealed hours that were sealed within seal_within.",
    ),
    spec(
        "tidemill_type_sealed_timestamp_seconds",
        Gauge,
        &["event_type"],
        "Hours that end at or before this time are sealed.",
    ),
    spec(
        "tidemill_type_silent_producers",
        Gauge,
        &["event_type"],
        "Producers that hours do not wait for, because nothing has come from them for their lease; after a day they are forgotten.",
    ),
    spec(
        "tidemill_type_watermark_held",
        Gauge,
        &["event_type", "partition"],
        "1 for the partition that holds the watermark.",
    ),
    spec(
        "tidemill_type_watermark_timestamp_seconds",
        Gauge,
        &["event_type"],
        "How far the events of the type have come.",
    ),
];

/// Describes all metrics to the recorder.
pub fn describe() {
    for spec in METRICS {
        match spec.kind {
            Counter => metrics::describe_counter!(spec.name, spec.help),
            Gauge => metrics::describe_gauge!(spec.name, spec.help),
            // The recorder would have to be told of each event.
            Histogram => {}
        }
    }
}

/// The histograms of a status, in the text format of Prometheus, to be put behind what the recorder renders.
#[must_use]
pub fn histograms(status: &Status) -> String {
    let mut text = String::new();
    let sinks = status.stages.iter().filter(|stage| !stage.delivery.within.is_empty());
    for spec in METRICS.iter().filter(|spec| spec.name == DELIVERY) {
        let _ = write!(text, "# HELP {DELIVERY} {}\n# TYPE {DELIVERY} histogram\n", spec.help);
    }
    for stage in sinks {
        // Names are of letters, digits, `-` and `_`: nothing is to be escaped.
        let labels = format!("topology=\"{}\",sink=\"{}\"", status.topology, stage.name);
        let delivery = &stage.delivery;
        for (bound_ms, events) in &delivery.within {
            let _ = writeln!(text, "{DELIVERY}_bucket{{{labels},le=\"{}\"}} {events}", *bound_ms as f64 / 1e3);
        }
        let _ = writeln!(text, "{DELIVERY}_bucket{{{labels},le=\"+Inf\"}} {}", delivery.events);
        let _ = writeln!(text, "{DELIVERY}_sum{{{labels}}} {}", delivery.total_ms as f64 / 1e3);
        let _ = writeln!(text, "{DELIVERY}_count{{{labels}}} {}", delivery.events);
    }
    text
}
