//! The description of the kind, and what `check` says about its options.

use std::sync::Arc;

use serde::Deserialize;
use tidemill_core::{
    DefaultValue, EventType, Finding, KindSpec, LatePolicy, OptionSpec, OptionType, RevisionMode, Role, Severity,
    Shape, Stage, StageContext, StageError, StageInput, StageKind, State,
};

use super::ids::IdMaker;
use super::stage::DedupStage;
use super::state::Memory;
use crate::filter::nearest::unknown_field_help;

pub(super) struct Dedup;

static SPEC: KindSpec = KindSpec {
    name: "dedup",
    role: Role::Stage,
    summary: "Drops events that were taken before.",
    details: "An event is a duplicate when an event of the same type with equal key fields was taken earlier and \
their event times are within the window. It is told by buckets of a quarter of the window: two events are compared \
when their buckets are at most four apart, so equal keys up to one window apart are always found, and more than one \
and a quarter windows apart never.

Ids are forgotten two windows before the hours of their type that are open. An event so old that it would have to be \
compared with forgotten ids becomes a dead letter `too_old_to_judge`; one that is new but whose hour is sealed \
becomes a dead letter `late`. A repeat of a known event counts as duplicate even if its hour is sealed. Types share \
buckets: one goes when all types that have ids in it have passed it.

Keys are held as 128-bit hashes (SipHash-1-3), keyed by the secret of the state directory: nobody who lacks it can \
make an event that is taken for another one. Memory: about 28 bytes an id, for the ids of up to two and a quarter \
windows of event time. Beyond the stage's share of `runtime.state_memory` ids leave memory, but for 16 bits each; each \
id takes 16 bytes in the state directory.",
    options: &[
        OptionSpec {
            name: "window",
            ty: OptionType::Duration { min_ms: 60_000, max_ms: 30 * 86_400_000 },
            default: DefaultValue::Toml("\"24h\""),
            doc: "How far apart in event time two events with equal keys are still the same event.",
            shapes_state: true,
        },
        OptionSpec {
            name: "keys",
            ty: OptionType::FieldList { min_items: 1 },
            default: DefaultValue::Absent,
            doc: "Fields that make an event's key; left out, the id fields of its type.",
            shapes_state: true,
        },
    ],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateful,
    guarantee: None,
};

#[derive(Deserialize)]
struct Config {
    window: i64,
    #[serde(default)]
    keys: Option<Vec<String>>,
}

impl StageKind for Dedup {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let config: Config =
            input.options.parse().map_err(|error| vec![Finding::error("bad-options", "window", error.to_string())])?;
        let findings: Vec<Finding> = input.types.iter().flat_map(|of| key_findings(&config, of)).collect();
        if findings.is_empty() { Ok(input.types.clone()) } else { Err(findings) }
    }

    fn warnings(&self, input: &StageInput) -> Vec<Finding> {
        let Ok(config) = input.options.parse::<Config>() else { return Vec::new() };
        let warning = |message: String, help: &str| {
            let finding = Finding::error("window-below-lateness", "window", message).help(help);
            Finding { severity: Severity::Warning, ..finding }
        };
        let lateness = input.limits.allowed_lateness_ms;
        if config.window < lateness {
            let message = format!(
                "the window of {} ms is shorter than the allowed lateness of {lateness} ms: events later than the \
                 window become dead letters although their hour is open",
                config.window
            );
            return vec![warning(message, "make the window at least as long as `allowed_lateness` in [topology]")];
        }
        let late = |of: &&Arc<EventType>| of.late.policy != LatePolicy::DeadLetter && of.late.within_ms > config.window;
        let types = input.types.iter().filter(late).map(|of| {
            let message = format!(
                "the window of {} ms is shorter than the {} ms within which late events of type `{}` are taken: later ones become dead letters",
                config.window, of.late.within_ms, of.name
            );
            warning(message, "make the window at least as long as `late_within`")
        });
        types.collect()
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        let config: Config = context
            .input
            .options
            .parse()
            .map_err(|error| StageError { message: "can't build dedup".into(), source: Some(error.into()) })?;
        let maker = |of: &Arc<EventType>| match key_fields(&config, of) {
            fields if fields.is_empty() => Err(StageError::new(format!("type `{}` has no key for dedup", of.name))),
            fields => Ok((of.name.clone(), IdMaker::new(context.key, of, fields))),
        };
        let makers: Vec<(Arc<str>, IdMaker)> = context.input.types.iter().map(maker).collect::<Result<_, _>>()?;
        let names = makers.iter().map(|(name, _)| name.clone());
        let mut memory = Memory::new(config.window, names, context.pieces.clone(), context.memory_bytes);
        let mut sealed_before_ms = match context.snapshot {
            Some(snapshot) => memory.restore(snapshot, context.logs)?,
            None => Default::default(),
        };
        for (name, horizon) in &context.sealed_before_ms {
            let sealed = sealed_before_ms.entry(name.clone()).or_insert(i64::MIN);
            *sealed = (*sealed).max(*horizon);
        }
        Ok(Box::new(DedupStage { makers, memory, sealed_before_ms, bucket_ms: context.input.limits.bucket_ms }))
    }
}

fn key_fields(config: &Config, of: &EventType) -> Vec<usize> {
    match &config.keys {
        Some(keys) => keys.iter().filter_map(|key| of.field(key).map(|(index, _)| index)).collect(),
        None => of.id.clone(),
    }
}

fn key_findings(config: &Config, of: &EventType) -> Vec<Finding> {
    if of.late.mode != RevisionMode::Append {
        let message =
            format!("rows of type `{}` come again when its hours are revised, which is no repetition", of.name);
        let finding =
            Finding::error("revised-input", "keys", message).help("put this stage before the one that makes the type");
        return vec![Finding { option: None, ..finding }];
    }
    let Some(keys) = &config.keys else {
        if !of.id.is_empty() {
            return Vec::new();
        }
        let message = format!("type `{}` has no id to tell duplicates by", of.name);
        let finding = Finding::error("no-id", "keys", message)
            .help(format!("give `id` in [types.{}], or `keys` in this stage", of.name));
        return vec![Finding { option: None, ..finding }];
    };
    let check = |(at, key): (usize, &String)| match of.field(key) {
        None => Some(
            Finding::error("unknown-field", "keys", format!("type `{}` has no field `{key}`", of.name))
                .help(unknown_field_help(key, of))
                .item(at.to_string()),
        ),
        Some((_, field)) if !field.kind.is_scalar() || field.is_nullable() => {
            let nullable = if field.is_nullable() { "a nullable " } else { "a " };
            let message = format!("field `{key}` of type `{}` is {nullable}{}", of.name, field.kind.name());
            Some(
                Finding::error("bad-key", "keys", message)
                    .help("a key field is a single value that is never null")
                    .item(at.to_string()),
            )
        }
        Some(_) => None,
    };
    keys.iter().enumerate().filter_map(check).collect()
}
