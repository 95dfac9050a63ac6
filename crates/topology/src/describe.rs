//! Kinds and keys as text for people.

use std::fmt::Write;

use tidemill_core::{DefaultValue, Guarantee, KindSpec, OptionSpec, OptionType, Role, Shape, State};

use crate::common::{self, TOPOLOGY_KEYS, TYPE_KEYS};
use crate::plan::Kinds;
use crate::{suggest, units};

/// What an option takes, with its limits: "duration, 1m to 1d".
#[must_use]
pub fn describe_type(ty: &OptionType) -> String {
    let items = |least: usize| match least {
        0 => String::new(),
        1 => ", at least 1 item".to_owned(),
        least => format!(", at least {least} items"),
    };
    match ty {
        OptionType::Boolean => "`true` or `false`".to_owned(),
        OptionType::Integer { min, max } => format!("integer, {}", bounds(*min, *max)),
        OptionType::Float { min, max } => format!("number, {min} to {max}"),
        OptionType::Text => "text".to_owned(),
        OptionType::Duration { min_ms, max_ms } => {
            format!("duration, {} to {}", units::duration(*min_ms), units::duration(*max_ms))
        }
        OptionType::Size { min_bytes, max_bytes } => {
            format!("size, {} to {}", units::size(*min_bytes), units::size(*max_bytes))
        }
        OptionType::Choice(choices) => {
            format!("one of {}", choices.iter().map(|choice| format!("`{choice:?}`")).collect::<Vec<_>>().join(", "))
        }
        OptionType::TextList { min_items } => format!("list of texts{}", items(*min_items)),
        OptionType::FieldList { min_items } => format!("list of field names{}", items(*min_items)),
        OptionType::Expression => "expression over fields".to_owned(),
        OptionType::PathTemplate => "path with `{...}`".to_owned(),
        OptionType::TypeFrom => "table with one of `column`, `field`, `const`, `header`, `topic`".to_owned(),
        OptionType::TextTable => "table of name = text".to_owned(),
        OptionType::Pond => "table with `max_bytes`, `when_full`".to_owned(),
        OptionType::Measures => "table of field = aggregate".to_owned(),
    }
}

/// "0 or more", "between 1 and 64".
pub(crate) fn bounds(min: i64, max: i64) -> String {
    match (min == i64::MIN, max == i64::MAX) {
        (true, true) => "any".to_owned(),
        (false, true) => format!("{min} or more"),
        (true, false) => format!("{max} or less"),
        (false, false) => format!("between {min} and {max}"),
    }
}

/// A value of the type, as it is written.
pub(crate) fn example(ty: &OptionType) -> String {
    match ty {
        OptionType::Boolean => "true".to_owned(),
        OptionType::Integer { min, .. } => (*min).max(1).to_string(),
        OptionType::Float { min, .. } => format!("{min:?}"),
        OptionType::Duration { min_ms, .. } => format!("{:?}", units::duration((*min_ms).max(1_000))),
        OptionType::Size { min_bytes, .. } => format!("{:?}", units::size((*min_bytes).max(1 << 20))),
        OptionType::Choice(choices) => format!("{:?}", choices.first().copied().unwrap_or("...")),
        OptionType::TextList { .. } | OptionType::FieldList { .. } => "[\"...\"]".to_owned(),
        OptionType::Text | OptionType::Expression | OptionType::PathTemplate => "\"...\"".to_owned(),
        OptionType::TypeFrom => "{ column = 0 }".to_owned(),
        OptionType::TextTable => "{ \"some.name\" = \"text\" }".to_owned(),
        OptionType::Pond => "{ max_bytes = \"4GiB\" }".to_owned(),
        OptionType::Measures => "{ events = \"count()\" }".to_owned(),
    }
}

/// All kinds and all common keys, as Markdown that reads well as plain text.
#[must_use]
pub fn describe(kinds: &dyn Kinds) -> String {
    let mut out = String::from("# Keys of a topology\n\n## `[topology]`\n\n");
    keys(&mut out, TOPOLOGY_KEYS);
    out.push_str("\n## `[types.NAME]`\n\n");
    keys(&mut out, TYPE_KEYS);
    for role in [Role::Source, Role::Stage, Role::Sink] {
        let (thing, section) = common::role_names(role);
        let _ = write!(out, "\n# Kinds of {section}: `[{section}.NAME]`\n\n");
        keys(&mut out, common::common_keys(role, None));
        if role == Role::Stage {
            let name = common::WORKERS.name;
            let _ = write!(out, "\nOnly kinds that keep no state have `{name}`.\n");
        }
        let specs = kinds.specs(role);
        out.push('\n');
        for spec in &specs {
            let _ = writeln!(out, "- `{}`: {}", spec.name, spec.summary);
        }
        if specs.is_empty() {
            let _ = writeln!(out, "There is no kind of {thing}.");
        }
        for spec in specs {
            let _ = write!(out, "\n{}", describe_kind(spec));
        }
    }
    out
}

/// One kind with every option: type, default, limits and meaning.
#[must_use]
pub fn describe_kind(spec: &KindSpec) -> String {
    let (thing, _) = common::role_names(spec.role);
    let mut out = format!("## {thing} `{}`\n\n{}\n\n", spec.name, spec.summary);
    if !spec.details.is_empty() {
        let _ = write!(out, "{}\n\n", spec.details.trim());
    }
    let flows = match (spec.input, spec.output) {
        (Shape::Nothing, output) => format!("Sends {}.", shape(output)),
        (input, Shape::Nothing) => format!("Takes {}.", shape(input)),
        (input, output) => format!("Takes {}, sends {}.", shape(input), shape(output)),
    };
    let state = match (spec.role, spec.state) {
        (Role::Stage, State::Stateless) => " Keeps no state: `workers` may be more than 1.",
        (Role::Stage, State::Stateful) => " Keeps state: one worker.",
        _ => "",
    };
    let guarantee = match spec.guarantee {
        Some(Guarantee::AtLeastOnce) => " After a crash, events may be there twice (at least once).",
        Some(Guarantee::Idempotent) => " After a crash, repeats are recognised by their id: events are there once.",
        Some(Guarantee::Transactional) => " Events are visible only once they are committed, and once.",
        None => "",
    };
    let _ = write!(out, "{flows}{state}{guarantee}\n\n");
    match spec.options {
        [] => out.push_str("It has no options.\n"),
        options => keys(&mut out, options),
    }
    out
}

fn shape(shape: Shape) -> &'static str {
    match shape {
        Shape::Nothing => "nothing",
        Shape::Lines => "lines",
        Shape::AvroBlocks => "Avro blocks",
        Shape::Framed => "lines or Avro blocks, as `framing` says",
        Shape::Rows => "events",
    }
}

fn keys(out: &mut String, specs: &[OptionSpec]) {
    for spec in specs {
        let default = match spec.default {
            DefaultValue::Required => "required".to_owned(),
            DefaultValue::Absent => "may be left out".to_owned(),
            DefaultValue::Toml(value) => format!("default `{value}`"),
        };
        let _ = write!(out, "- `{}` ({}; {default}): {}", spec.name, describe_type(&spec.ty), spec.doc);
        out.push_str(if spec.shapes_state { " A change needs a fresh start.\n" } else { "\n" });
    }
}

/// Help for a kind that there is not: the nearest name or all names, over all roles.
#[must_use]
pub fn suggest_kind(kinds: &dyn Kinds, wanted: &str) -> String {
    let roles = [Role::Source, Role::Stage, Role::Sink];
    let names: Vec<&str> = roles.iter().flat_map(|role| kinds.specs(*role)).map(|spec| spec.name).collect();
    suggest::help(wanted, &names, "kinds")
}
