//! Sinks that deliver by calls of their own, behind one type for the worker.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use tidemill_core::{
    Batch, CutId, DeliveryId, EventType, Finding, Guarantee, Hour, KindSpec, Options, Refused, Resume, Seals, Severity,
    Sink, SinkContext, SinkError, SinkKind, StageInput, TimeColumn,
};

use crate::error::error_chain;

type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A [`SinkKind`] whose types are gone.
pub(crate) trait ExternalKind: Send + Sync {
    fn spec(&self) -> &'static KindSpec;
    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>>;
    fn warnings(&self, input: &StageInput) -> Vec<Finding>;
    fn guarantee(&self, options: &Options) -> Guarantee;
    fn open(&self, context: SinkContext, resume: Option<Resume>)
    -> Local<'_, Result<Box<dyn ExternalSink>, SinkError>>;
}

/// A [`Sink`] whose type is gone.
pub(crate) trait ExternalSink {
    fn write<'a>(&'a mut self, batch: &'a Batch, id: DeliveryId) -> Local<'a, Result<(), SinkError>>;
    fn settle(&mut self) -> Local<'_, Result<Vec<Refused>, SinkError>>;
    fn flush(&mut self, cut: CutId) -> Local<'_, Result<Resume, SinkError>>;
    fn seal<'a>(&'a mut self, event_type: &'a str, hour: Hour) -> Local<'a, Result<(), SinkError>>;
}

pub(crate) struct External<K>(pub(crate) Arc<K>);

impl<K: SinkKind> ExternalKind for External<K> {
    fn spec(&self) -> &'static KindSpec {
        self.0.spec()
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let findings = match input.options.parse::<K::Config>() {
            Ok(config) => self.0.check(&config, input),
            Err(error) => vec![Finding {
                severity: Severity::Error,
                code: "bad-option",
                option: None,
                item: None,
                range: None,
                message: error_chain(&error),
                help: Some("the kind's description and its config disagree; this is a fault of the kind".into()),
            }],
        };
        if findings.iter().any(|finding| finding.severity == Severity::Error) { Err(findings) } else { Ok(Vec::new()) }
    }

    fn warnings(&self, input: &StageInput) -> Vec<Finding> {
        let found = input.options.parse::<K::Config>().map(|config| self.0.check(&config, input)).unwrap_or_default();
        found.into_iter().filter(|finding| finding.severity == Severity::Warning).collect()
    }

    fn guarantee(&self, options: &Options) -> Guarantee {
        // Options that can't be read promise nothing; `plan` says what is wrong with them.
        options.parse::<K::Config>().map_or(Guarantee::AtLeastOnce, |config| self.0.guarantee(&config))
    }

    fn open(
        &self,
        context: SinkContext,
        resume: Option<Resume>,
    ) -> Local<'_, Result<Box<dyn ExternalSink>, SinkError>> {
        Box::pin(async move {
            let config = context.input.options.parse::<K::Config>();
            let config = config.map_err(|error| SinkError::Fatal { source: Box::new(error) })?;
            let sink = self.0.open(&config, &context, resume).await?;
            Ok(Box::new(Opened(sink)) as Box<dyn ExternalSink>)
        })
    }
}

struct Opened<S>(S);

impl<S: Sink> ExternalSink for Opened<S> {
    fn write<'a>(&'a mut self, batch: &'a Batch, id: DeliveryId) -> Local<'a, Result<(), SinkError>> {
        Box::pin(self.0.write(batch, id))
    }

    fn settle(&mut self) -> Local<'_, Result<Vec<Refused>, SinkError>> {
        Box::pin(self.0.settle())
    }

    fn flush(&mut self, cut: CutId) -> Local<'_, Result<Resume, SinkError>> {
        Box::pin(self.0.flush(cut))
    }

    fn seal<'a>(&'a mut self, event_type: &'a str, hour: Hour) -> Local<'a, Result<(), SinkError>> {
        Box::pin(self.0.seal(event_type, hour))
    }
}

/// The hours that a sink has been given events of, so that it is told of their seals.
#[derive(Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct OpenHours(BTreeSet<(Arc<str>, i64)>);

impl OpenHours {
    pub(crate) fn add(&mut self, batch: &Batch, bucket_ms: i64) {
        let Some(times) = TimeColumn::of(&batch.records, batch.event_type.time) else { return };
        let mut last = Hour { start_ms: 0, width_ms: 0 };
        for row in batch.indexes() {
            let time = times.ms(row);
            if time < last.start_ms || time >= last.end_ms() {
                last = Hour::of(time, bucket_ms);
                self.0.insert((batch.event_type.name.clone(), last.start_ms));
            }
        }
    }

    pub(crate) fn close(&mut self, seals: &Seals, bucket_ms: i64) -> Vec<(Arc<str>, Hour)> {
        let mut closed = Vec::new();
        self.0.retain(|(event_type, start_ms)| {
            let hour = Hour { start_ms: *start_ms, width_ms: bucket_ms };
            let horizon = seals.horizons.iter().find(|horizon| horizon.event_type == *event_type);
            let is_sealed = horizon.is_some_and(|horizon| hour.end_ms() <= horizon.sealed_before_ms);
            if is_sealed {
                closed.push((event_type.clone(), hour));
            }
            !is_sealed
        });
        closed
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
