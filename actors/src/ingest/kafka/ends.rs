//! Where a run to the end ends: at the offsets that partitions have when it begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::{Cure, SourceError};
use tracing::warn;

use super::control::{Bounds, TopicView};
use super::partition::Partition;
use super::source::KafkaSource;

impl KafkaSource {
    /// Of a run to the end: fixes where a partition ends, when that is not known yet. The ends that an earlier process
    /// of the run has found hold, and partitions that it did not know are not read.
    pub(super) fn fix_end(&mut self, at: usize, bounds: &Bounds, view: &TopicView) -> Result<(), SourceError> {
        let partition = &mut self.partitions[at];
        if !self.until_end || partition.end.is_some() {
            return Ok(());
        }
        let Bounds { low, high, start, .. } = *bounds;
        let end = match &self.ends {
            Some(ends) => Some(ends.get(&partition.name).copied().unwrap_or(0)),
            // It came after the ends were known: the next run reads it.
            None => self.is_complete.then_some(0),
        };
        if let Some(end) = end.filter(|end| *end > high) {
            warn!(
                source = %self.name, partition = %partition.name, end, high,
                "the partition ends before the end that this run has begun with: it is read up to there"
            );
        }
        partition.end = Some(end.map_or(high, |end| end.min(high)));
        let Some(stretch) = &self.stretch else { return Ok(()) };
        let until = stretch.until.get(&partition.name).copied().unwrap_or(0);
        partition.end = Some(until.min(high));
        if until > 0 && (start == low && low > 0 || until > high) {
            stretch.is_gone(format!(
                "partition {}: it holds offsets {low} to {high} now, and what came before them may be missing",
                partition.name
            ));
        }
        let (topic, number) = (partition.topic.clone(), partition.number);
        let known = stretch.known.get(&partition.name);
        if known.is_some_and(|known| Partition::new(&topic, number, Some(known)).is_of_other_topic(&view.id)) {
            let message = format!("topic `{topic}` was made again since: what is to be read again was in the old one");
            return Err(SourceError { message, cure: Cure::Stop, source: None });
        }
        Ok(())
    }

    /// Where all partitions end, once they are known.
    pub(super) fn fixed_ends(&self) -> Option<BTreeMap<Arc<str>, u64>> {
        let ends = self.partitions.iter().map(|partition| Some((partition.name.clone(), partition.end?)));
        if self.is_complete { ends.collect() } else { None }
    }
}
