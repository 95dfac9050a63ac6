//! Copies a status into the recorder.

use std::collections::{HashMap, HashSet};

use metrics::{Label, counter, gauge};
use tidemill_core::DEAD_LETTER_TYPE;

use crate::status::{PartitionStatus, RegionStatus, SourceStatus, StageStatus, Status, TypeStatus};

/// See the module. It knows what it has said: a partition that is as it was costs next to nothing, and one that is gone
/// says so.
#[derive(Debug, Default)]
pub struct Exporter {
    /// Types with the partition that holds their watermark.
    held: Vec<(String, String)>,
    /// By source and name.
    partitions: HashMap<String, HashMap<String, PartitionStatus>>,
}

impl Exporter {
    /// Counters never go back, although a restored stage counts again.
    pub fn export(&mut self, status: &Status) {
        let to = To { topology: Label::new("topology", status.topology.clone()) };
        status.regions.iter().for_each(|region| to.region(region));
        for pond in &status.ponds {
            let label = [("pond", pond.name.as_str())];
            to.set("tidemill_pond_bytes", &label, pond.bytes as f64);
            to.set("tidemill_pond_full", &label, if pond.is_full { 1.0 } else { 0.0 });
            to.set("tidemill_pond_max_bytes", &label, pond.max_bytes as f64);
            to.set("tidemill_pond_unread_bytes", &label, pond.unread_bytes as f64);
        }
        for letters in &status.dead_letters {
            let event_type = letters.event_type.as_deref().unwrap_or_default();
            let label = [("source", &*letters.source), ("reason", &*letters.reason), ("event_type", event_type)];
            to.count("tidemill_dead_letters_total", &label, letters.count);
        }
        // From zero on: an increase is seen only of what was there before.
        let types = status.types.iter().map(|of| (of.name.as_str(), 0)).chain([("", 0), (DEAD_LETTER_TYPE, 0)]);
        let found = status.mismatches.iter().map(|found| (found.event_type.as_str(), found.count));
        for (event_type, times) in types.chain(found) {
            to.count("tidemill_audit_mismatches_total", &[("event_type", event_type)], times);
        }
        status.sources.iter().for_each(|source| self.source(&to, source));
        status.stages.iter().for_each(|stage| to.stage(stage));
        for (event_type, partition) in self.held.drain(..) {
            to.set("tidemill_type_watermark_held", &[("event_type", &event_type), ("partition", &partition)], 0.0);
        }
        for event_type in &status.types {
            to.event_type(event_type);
            if let Some(partition) = &event_type.held_by {
                let label = [("event_type", event_type.name.as_str()), ("partition", partition.as_str())];
                to.set("tidemill_type_watermark_held", &label, 1.0);
                self.held.push((event_type.name.clone(), partition.clone()));
            }
        }
    }

    fn source(&mut self, to: &To, source: &SourceStatus) {
        let label = [("source", source.name.as_str())];
        to.count("tidemill_source_back_pressure_seconds_total", &label, seconds(source.back_pressure_ns));
        to.count("tidemill_source_busy_seconds_total", &label, seconds(source.busy_ns));
        to.count("tidemill_source_errors_total", &label, source.errors);
        to.count("tidemill_source_restarts_total", &label, source.restarts);
        to.set("tidemill_source_waiting", &label, if source.waits_for.is_some() { 1.0 } else { 0.0 });
        let known = self.partitions.entry(source.name.clone()).or_default();
        for partition in &source.partitions {
            match known.get_mut(&partition.name) {
                Some(known) if known == partition => continue,
                Some(known) => known.clone_from(partition),
                None => drop(known.insert(partition.name.clone(), partition.clone())),
            }
            to.partition(&source.name, partition);
        }
        if known.len() > source.partitions.len() {
            let names: HashSet<&str> = source.partitions.iter().map(|of| of.name.as_str()).collect();
            for (_, mut gone) in known.extract_if(|name, _| !names.contains(name.as_str())) {
                // It lags no more, and alarms nobody.
                (gone.silent_ms, gone.far_ahead_ms) = (0, None);
                (gone.lag_events, gone.lag_ms) = (gone.lag_events.and(Some(0)), gone.lag_ms.and(Some(0)));
                to.partition(&source.name, &gone);
            }
        }
    }
}

/// The recorder, for a topology.
struct To {
    topology: Label,
}

impl To {
    fn labels(&self, pairs: &[(&'static str, &str)]) -> Vec<Label> {
        let rest = pairs.iter().map(|(name, value)| Label::new(*name, (*value).to_owned()));
        std::iter::once(self.topology.clone()).chain(rest).collect()
    }

    fn count(&self, name: &'static str, pairs: &[(&'static str, &str)], value: u64) {
        counter!(name, self.labels(pairs)).absolute(value);
    }

    fn set(&self, name: &'static str, pairs: &[(&'static str, &str)], value: f64) {
        gauge!(name, self.labels(pairs)).set(value);
    }

    fn region(&self, region: &RegionStatus) {
        let label = [("region", region.name.as_str())];
        let set = |name, value| self.set(name, &label, value);
        self.count("tidemill_cuts_total", &label, region.cut);
        self.count("tidemill_read_bytes_total", &label, region.read_bytes);
        self.count("tidemill_region_restarts_total", &label, region.restarts);
        set("tidemill_cut_age_seconds", region.cut_age_ms as f64 / 1e3);
        set("tidemill_cut_commit_seconds", region.cut_commit_ms as f64 / 1e3);
        set("tidemill_cut_duration_seconds", region.cut_duration_ms as f64 / 1e3);
        set("tidemill_held_bytes", region.held_bytes as f64);
        set("tidemill_region_down", if region.fault.is_some() { 1.0 } else { 0.0 });
        set("tidemill_region_unpublished_files", region.unpublished_files as f64);
        set("tidemill_region_unpublished_seconds", region.unpublished_ms as f64 / 1e3);
    }

    fn partition(&self, source: &str, partition: &PartitionStatus) {
        let label = [("source", source), ("partition", partition.name.as_str())];
        let set = |name, value| self.set(name, &label, value);
        set("tidemill_partition_committed_position", partition.committed as f64);
        set("tidemill_partition_far_ahead", f64::from(u8::from(partition.far_ahead_ms.is_some())));
        set("tidemill_partition_position", partition.position as f64);
        set("tidemill_partition_silent_seconds", partition.silent_ms as f64 / 1e3);
        if let Some(events) = partition.lag_events {
            set("tidemill_partition_lag_events", events as f64);
        }
        if let Some(ms) = partition.lag_ms {
            set("tidemill_partition_lag_seconds", ms as f64 / 1e3);
        }
        if let Some(time) = partition.max_event_ms {
            set("tidemill_partition_max_event_timestamp_seconds", time as f64 / 1e3);
        }
    }

    fn stage(&self, stage: &StageStatus) {
        let label = [("stage", stage.name.as_str())];
        self.count("tidemill_stage_absorbed_total", &label, stage.tally.absorbed);
        self.count("tidemill_stage_back_pressure_seconds_total", &label, seconds(stage.back_pressure_ns));
        self.count("tidemill_stage_busy_seconds_total", &label, seconds(stage.busy_ns));
        self.count("tidemill_stage_dead_lettered_total", &label, stage.tally.dead);
        self.count("tidemill_stage_duplicates_total", &label, stage.tally.duplicates);
        self.count("tidemill_stage_errors_total", &label, stage.errors);
        self.count("tidemill_stage_filtered_total", &label, stage.tally.filtered);
        self.count("tidemill_stage_late_total", &label, stage.tally.late);
        self.set("tidemill_stage_open_buckets", &label, stage.open_hours as f64);
        self.set("tidemill_stage_queue_bytes", &label, stage.queue_bytes as f64);
        self.set("tidemill_stage_queue_events", &label, stage.queue_events as f64);
        self.set("tidemill_stage_queue_items", &label, stage.queue_items as f64);
        self.count("tidemill_stage_received_total", &label, stage.tally.received);
        self.count("tidemill_stage_restarts_total", &label, stage.restarts);
        self.count("tidemill_stage_sent_total", &label, stage.tally.sent);
        self.count("tidemill_stage_refused_total", &label, stage.tally.refused);
        self.count("tidemill_stage_taken_late_total", &label, stage.tally.taken_late);
        self.set("tidemill_stage_stuck_threads", &label, stage.stuck_threads as f64);
        self.set("tidemill_stage_waiting", &label, f64::from(u8::from(stage.waits_for.is_some())));
    }

    fn event_type(&self, event_type: &TypeStatus) {
        let label = [("event_type", event_type.name.as_str())];
        let owner = event_type.owner.as_deref().unwrap_or_default();
        let info = [("event_type", event_type.name.as_str()), ("owner", owner), ("tier", event_type.tier.as_str())];
        self.set("tidemill_type_info", &info, 1.0);
        self.set("tidemill_type_open_buckets", &label, event_type.open_hours as f64);
        self.count("tidemill_type_sealed_buckets_total", &label, event_type.sealed_hours);
        self.count("tidemill_type_sealed_in_time_buckets_total", &label, event_type.sealed_in_time);
        self.count("tidemill_type_events_total", &label, event_type.events);
        self.count("tidemill_type_late_events_total", &label, event_type.late_events);
        self.count("tidemill_type_missing_events_total", &label, event_type.missing_events);
        self.set("tidemill_type_silent_producers", &label, event_type.silent_producers as f64);
        if let Some(delay_ms) = event_type.seal_delay_ms {
            self.set("tidemill_type_seal_delay_seconds", &label, delay_ms as f64 / 1e3);
        }
        if let Some(time) = event_type.sealed_before_ms {
            self.set("tidemill_type_sealed_timestamp_seconds", &label, time as f64 / 1e3);
        }
        if let Some(time) = event_type.watermark_ms {
            self.set("tidemill_type_watermark_timestamp_seconds", &label, time as f64 / 1e3);
        }
    }
}

/// Counters of seconds need fractions, which counters of this recorder do not have: whole seconds.
fn seconds(ns: u64) -> u64 {
    ns / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn partition(name: &str, silent_ms: u64) -> PartitionStatus {
        PartitionStatus {
            name: name.into(),
            position: 7,
            committed: 7,
            max_event_ms: None,
            far_ahead_ms: None,
            ended: false,
            idle: false,
            silent_ms,
            lag_events: Some(5),
            lag_ms: None,
        }
    }

    fn source(partitions: Vec<PartitionStatus>) -> SourceStatus {
        SourceStatus {
            name: "s".into(),
            kind: "k".into(),
            ended: false,
            restarts: 0,
            errors: 0,
            busy_ns: 0,
            back_pressure_ns: 0,
            waits_for: None,
            partitions,
        }
    }

    #[test]
    fn a_partition_says_what_has_changed_and_alarms_nobody_when_it_is_gone() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (mut exporter, to) = (Exporter::default(), To { topology: Label::new("topology", "t") });
        let mut page = |partitions| {
            metrics::with_local_recorder(&recorder, || exporter.source(&to, &source(partitions)));
            recorder.handle().render()
        };
        let of = |page: &str, metric: &str| {
            let series = format!("tidemill_partition_{metric}{{topology=\"t\",source=\"s\",partition=\"p\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
        };
        let first = page(vec![partition("p", 2_000), partition("q", 0)]);
        assert_eq!(of(&first, "silent_seconds").as_deref(), Some("2"));
        let later = page(vec![partition("p", 3_000), partition("q", 0)]);
        assert_eq!(of(&later, "silent_seconds").as_deref(), Some("3"));
        let gone = page(vec![partition("q", 0)]);
        assert_eq!([of(&gone, "silent_seconds"), of(&gone, "lag_events")], [Some("0".into()), Some("0".into())]);
        assert_eq!(of(&gone, "position").as_deref(), Some("7"));
    }
}
