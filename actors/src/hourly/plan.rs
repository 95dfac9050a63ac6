//! What the options ask for, checked against the types that arrive.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use tidemill_core::{EventType, Field, FieldKind, Finding, Late, LatePolicy, Nullability, RevisionMode, Tier};

use crate::filter::nearest::{nearest, unknown_field_help};

/// The options as they are written.
#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    group_by: Vec<String>,
    measures: Map<String, Value>,
    #[serde(default)]
    late_rows: LateRows,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LateRows {
    #[default]
    Restated,
    Delta,
}

/// Groups and measures.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) groups: Vec<Field>,
    pub(super) measures: Vec<Measure>,
    /// What becomes of the rows of late events.
    pub(super) late: Late,
    /// That of the types that matters most.
    pub(super) tier: Tier,
}

/// Where a type has `late = "revise"`, rows that have left are revised as `late_rows` says. In any case rows of a type
/// may come when their hour is sealed, if the type was quiet then: all of them at once, to be read beside those of the
/// other types.
fn late(config: &Config, types: &[Arc<EventType>], measures: &[Measure], findings: &mut Vec<Finding>) -> Late {
    let mode = match config.late_rows {
        _ if types.iter().all(|of| of.late.policy != LatePolicy::Revise) => RevisionMode::Append,
        LateRows::Restated => RevisionMode::Replace,
        LateRows::Delta => RevisionMode::Delta,
    };
    if mode == RevisionMode::Delta {
        for measure in measures.iter().filter(|measure| !measure.function.can_be_added()) {
            let message = format!("`{}` of late events can't be added to that of the others", measure.call());
            let help = "use late_rows = \"restated\", or leave the measure out";
            findings.push(Finding::error("not-additive", "measures", message).help(help).item(measure.name.clone()));
        }
    }
    let revising = types.iter().filter(|of| of.late.policy == LatePolicy::Revise);
    if let Some(made) = revising.clone().find(|of| of.late.mode != RevisionMode::Append && of.late.within_ms > 0) {
        let message =
            format!("type `{}` is made of aggregates that are revised, which can't be aggregated again", made.name);
        let help =
            "aggregate the events themselves, or let late events of the types that it is made of become dead letters";
        let finding = Finding::error("revised-input", "group_by", message).help(help);
        findings.push(Finding { option: None, ..finding });
    }
    let within_ms = revising.clone().map(|of| of.late.within_ms).max().unwrap_or_default();
    let delay_ms = revising.map(|of| of.late.delay_ms).max();
    let delay_ms = delay_ms.or_else(|| types.iter().map(|of| of.late.delay_ms).max()).unwrap_or_default();
    Late { policy: LatePolicy::Revise, within_ms, delay_ms, mode }
}

/// One measure.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    pub(super) name: String,
    pub(super) function: Function,
    /// The field that it is taken of; `None` for `count()`.
    pub(super) of: Option<Field>,
}

/// An aggregate function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    Sum,
    Min,
    Max,
    Mean,
    Distinct,
}

const FUNCTIONS: [(&str, Function); 6] = [
    ("count", Function::Count),
    ("sum", Function::Sum),
    ("min", Function::Min),
    ("max", Function::Max),
    ("mean", Function::Mean),
    ("approx_distinct", Function::Distinct),
];

impl Function {
    pub(super) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// Whether the values of two parts of a group make that of the whole.
    fn can_be_added(self) -> bool {
        matches!(self, Self::Count | Self::Sum | Self::Min | Self::Max)
    }

    /// Whether it can be taken of such a field; else what it can be taken of.
    fn takes(self, kind: &FieldKind) -> Result<(), &'static str> {
        let number = matches!(
            kind,
            FieldKind::Int | FieldKind::Long | FieldKind::Float | FieldKind::Double | FieldKind::Decimal { .. }
        );
        match self {
            Self::Count => Ok(()),
            Self::Sum | Self::Mean if number => Ok(()),
            Self::Min | Self::Max if number || kind.is_time() || *kind == FieldKind::Date => Ok(()),
            Self::Distinct if kind.is_scalar() => Ok(()),
            Self::Sum | Self::Mean => Err("it takes an int, long, float, double or decimal"),
            Self::Min | Self::Max => Err("it takes an int, long, float, double, decimal, date or timestamp"),
            Self::Distinct => Err("it takes a single value, not an array, map or record"),
        }
    }
}

impl Measure {
    /// As it is written in a topology.
    pub(super) fn call(&self) -> String {
        format!("{}({})", self.function.name(), self.of.as_ref().map_or("", |field| field.name.as_str()))
    }
}

impl Plan {
    pub(super) fn new(config: &Config, types: &[Arc<EventType>]) -> Result<Self, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut taken = vec!["hour".to_owned(), "event_type".to_owned()];
        let mut groups = Vec::new();
        for (at, name) in config.group_by.iter().enumerate() {
            let place = |finding: Finding| finding.item(at.to_string());
            if taken.contains(name) {
                let message = format!("there would be two fields `{name}`");
                let help = "a field is named once in group_by; `hour` and `event_type` are always there";
                findings.push(place(Finding::error("taken-name", "group_by", message).help(help)));
                continue;
            }
            taken.push(name.clone());
            let field = common_field(name, types, "group_by", &mut |finding| findings.push(place(finding)));
            match field {
                Some(field) if !field.kind.is_scalar() => {
                    let message =
                        format!("field `{name}` is a {}; groups are made of single values", field.kind.name());
                    findings.push(place(Finding::error("bad-group", "group_by", message)));
                }
                Some(field) => groups.push(field),
                None => {}
            }
        }
        let mut measures = Vec::new();
        for (name, call) in &config.measures {
            let place = |finding: Finding| finding.item(name.clone());
            if !is_avro_name(name) {
                let message = format!("`{name}` can't be the name of a field");
                let help = "letters, digits and `_`, no digit first";
                findings.push(place(Finding::error("bad-name", "measures", message).help(help)));
            } else if taken.contains(name) {
                let message = format!("there would be two fields `{name}`");
                findings.push(place(Finding::error("taken-name", "measures", message).help("choose another name")));
            }
            measures.extend(measure(name, call, types, &mut |finding| findings.push(place(finding))));
        }
        if config.measures.is_empty() {
            let help = "add one such as `events = \"count()\"`";
            findings.push(Finding::error("no-measures", "measures", "there is nothing to measure").help(help));
        }
        let late = late(config, types, &measures, &mut findings);
        let tier = types.iter().map(|of| of.tier).max().unwrap_or_default();
        if findings.is_empty() { Ok(Self { groups, measures, late, tier }) } else { Err(findings) }
    }

    /// Everything that the meaning of a snapshot depends on.
    pub(super) fn shape(&self) -> Vec<String> {
        let kind = |field: &Field| format!("{:?}", field.kind);
        let groups = self.groups.iter().map(|field| format!("group {} {}", field.name, kind(field)));
        let measures = self.measures.iter().map(|measure| {
            format!(
                "measure {} {} {}",
                measure.name,
                measure.call(),
                measure.of.as_ref().map_or_else(String::new, kind)
            )
        });
        groups.chain(measures).collect()
    }
}

fn is_avro_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The field of that name in all types: of one kind, nullable if it is so in any of them.
fn common_field(
    name: &str,
    types: &[Arc<EventType>],
    option: &'static str,
    fault: &mut impl FnMut(Finding),
) -> Option<Field> {
    let mut common: Option<(Field, &EventType)> = None;
    let mut sound = true;
    for of in types {
        let Some((_, field)) = of.field(name) else {
            let message = format!("type `{}` has no field `{name}`", of.name);
            fault(Finding::error("unknown-field", option, message).help(unknown_field_help(name, of)));
            sound = false;
            continue;
        };
        match &mut common {
            None => common = Some((field.clone(), of)),
            Some((first, first_type)) if first.kind != field.kind => {
                let same_name = first.kind.name() == field.kind.name();
                let message = format!(
                    "field `{name}` is {} in type `{}` and {} in type `{}`",
                    first.kind.name(),
                    first_type.name,
                    if same_name { "another one" } else { field.kind.name() },
                    of.name
                );
                let help = "all types that arrive must agree; narrow the input with `types`";
                fault(Finding::error("mixed-kinds", option, message).help(help));
                sound = false;
            }
            Some((first, _)) if first.nullability == Nullability::Required => first.nullability = field.nullability,
            Some(_) => {}
        }
    }
    common.map(|(field, _)| field).filter(|_| sound)
}

fn measure(name: &str, call: &Value, types: &[Arc<EventType>], fault: &mut impl FnMut(Finding)) -> Option<Measure> {
    const OPTION: &str = "measures";
    let parts = call.as_str().and_then(|call| call.trim().strip_suffix(')')?.split_once('('));
    let Some((function, argument)) = parts.map(|(function, argument)| (function.trim(), argument.trim())) else {
        let help = "write a call such as \"count()\" or \"sum(field)\"";
        fault(Finding::error("bad-measure", OPTION, format!("{call} is not an aggregate call")).help(help));
        return None;
    };
    let Some((_, function)) = FUNCTIONS.into_iter().find(|(known, _)| *known == function) else {
        let names = || FUNCTIONS.iter().map(|(name, _)| *name);
        let help = match nearest(function, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the functions are {}", names().collect::<Vec<_>>().join(", ")),
        };
        fault(Finding::error("unknown-function", OPTION, format!("there is no function `{function}`")).help(help));
        return None;
    };
    match (function, argument) {
        (Function::Count, "") => return Some(Measure { name: name.to_owned(), function, of: None }),
        (Function::Count, _) => {
            let help = "write `count()`: it counts events";
            fault(Finding::error("bad-measure", OPTION, "`count` takes no field").help(help));
            return None;
        }
        (_, "") => {
            let message = format!("`{}` needs a field", function.name());
            fault(Finding::error("bad-measure", OPTION, message).help(format!("write `{}(field)`", function.name())));
            return None;
        }
        _ => {}
    }
    let field = common_field(argument, types, OPTION, fault)?;
    if let Err(help) = function.takes(&field.kind) {
        let message = format!("`{}` can't be taken of field `{argument}`, a {}", function.name(), field.kind.name());
        fault(Finding::error("type-mismatch", OPTION, message).help(help));
        return None;
    }
    Some(Measure { name: name.to_owned(), function, of: Some(field) })
}
