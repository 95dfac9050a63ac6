//! Hours without events.

use std::collections::BTreeMap;

use tidemill_core::{DEAD_LETTER_TYPE, GAP_HOURS_MAX, Hour, format_time_ms};

use super::stage::AvroFilesStage;

impl AvroFilesStage {
    /// Opens a directory for each hour without events between those that are sealed and a new horizon, from the first
    /// hour with events on, so that its readers can tell it from one that is not finished. There is none where the path
    /// has values of fields, and none in a gap of more than [`GAP_HOURS_MAX`] hours.
    pub(super) fn open_empty(&mut self, index: usize, before_ms: i64) {
        let state = &self.types[index];
        let name = state.event_type.name.clone();
        let width_ms = self.limits.bucket_ms;
        let mut open = state.hours.iter().filter(|(_, open)| open.revision == 0).map(|(start_ms, _)| *start_ms);
        let begun_ms = state.has_begun.then_some(state.sealed_before_ms);
        let Some(mut next_ms) = begun_ms.or_else(|| open.next()) else { return };
        if !state.path_fields.is_empty() || *name == *DEAD_LETTER_TYPE {
            return;
        }
        let mut empty = Vec::new();
        for start_ms in open.take_while(|start_ms| *start_ms < before_ms).chain([before_ms]) {
            let first = Hour::of(next_ms, width_ms);
            let count = first.count_to(start_ms);
            if count > GAP_HOURS_MAX {
                let (from, before) = (format_time_ms(next_ms), format_time_ms(start_ms));
                tracing::warn!(
                    event_type = %name, %from, %before, most = GAP_HOURS_MAX,
                    "hours without events get no manifest: there are too many of them in a row"
                );
            } else {
                empty.extend((0..count).map(|nth| Hour { start_ms: first.start_ms + nth * width_ms, width_ms }));
            }
            next_ms = start_ms.saturating_add(width_ms);
        }
        empty.retain(|hour| !self.types[index].hours.contains_key(&hour.start_ms));
        for hour in empty {
            let Some(path) = self.template.render(&name, hour, |_| None) else { continue };
            self.types[index].open(&mut self.files, hour, path, BTreeMap::new());
        }
    }
}
