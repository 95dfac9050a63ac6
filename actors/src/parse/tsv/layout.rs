//! Which column of a line is which field of a type.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_schema::DataType;
use tidemill_core::{EventType, Field, FieldKind, Finding};

use super::Config;
use crate::parse::config::whole_table;
use crate::parse::fault;
use crate::parse::message::MessageFields;
use crate::parse::names::Names;

/// How the lines of one type are laid out.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) event_type: Arc<EventType>,
    /// Columns of a line, that of the type included.
    pub(super) width: usize,
    /// One a field of the type.
    pub(super) fields: Vec<FieldLayout>,
    /// Those that have no column because the message around the line has them.
    pub(super) from_message: MessageFields,
}

/// Where a field is, and what its column of a batch is made with.
#[derive(Debug)]
pub(super) struct FieldLayout {
    pub(super) field: Field,
    pub(super) data_type: DataType,
    /// Column of the line; `None` when there is none: the field comes from the message, or is null.
    pub(super) column: Option<usize>,
    /// What it takes, for messages.
    pub(super) expected: String,
    /// For enums.
    pub(super) symbols: Option<Symbols>,
}

/// The symbols of an enum.
#[derive(Debug)]
pub(super) struct Symbols {
    pub(super) names: Names,
    pub(super) dictionary: ArrayRef,
}

impl Layout {
    pub(super) fn new(config: &Config, event_type: &Arc<EventType>) -> Self {
        let type_column = config.type_column();
        // Column of the line, from its number among those that hold fields.
        let shift = |column: usize| column + usize::from(type_column.is_some_and(|at| column >= at));
        let from_message = MessageFields::of(&config.from_message, event_type);
        let own = own_columns(config, event_type);
        let mut next = 0..;
        let fields = event_type.fields.iter().enumerate().map(|(number, field)| {
            let column = match &config.columns {
                _ if from_message.has(number) => None,
                Some(columns) => columns.iter().position(|name| *name == field.name),
                None => next.next(),
            };
            let symbols = match &field.kind {
                FieldKind::Enum(symbols) => Some(Symbols {
                    names: Names::new(symbols.iter().map(String::as_str)),
                    dictionary: Arc::new(StringArray::from_iter_values(symbols.iter())),
                }),
                _ => None,
            };
            FieldLayout {
                data_type: field.kind.arrow(),
                column: column.map(shift),
                expected: fault::expected(&field.kind, config.time),
                symbols,
                field: field.clone(),
            }
        });
        let fields = fields.collect();
        Self { width: own + usize::from(type_column.is_some()), fields, from_message, event_type: event_type.clone() }
    }

    /// Names of a line's columns; `None` for the type's, and for those that no field takes.
    pub(super) fn names(&self) -> Vec<Option<&str>> {
        let mut names = vec![None; self.width];
        for layout in &self.fields {
            if let Some(column) = layout.column {
                names[column] = Some(layout.field.name.as_str());
            }
        }
        names
    }
}

/// Columns of a line that hold fields, or are skipped: all but that of the type.
fn own_columns(config: &Config, event_type: &EventType) -> usize {
    let fields = || event_type.fields.iter().filter(|field| !config.from_message.contains_key(&field.name)).count();
    config.columns.as_ref().map_or_else(fields, Vec::len)
}

/// Everything that is wrong with the columns.
pub(super) fn check(config: &Config, types: &[Arc<EventType>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for known in types {
        let in_message = |field: &Field| config.from_message.contains_key(&field.name);
        for field in known.fields.iter().filter(|field| !field.kind.is_scalar() && !in_message(field)) {
            let message = format!(
                "type `{}` has the field `{}`, {}, which a column can't carry",
                known.name,
                field.name,
                a(field)
            );
            findings.push(whole_table("cannot-carry", message).help("use the kind `json` or `avro` for this type"));
        }
        let own = own_columns(config, known);
        if let Some(column) = config.type_column().filter(|column| *column > own) {
            let message =
                format!("lines of type `{}` have {} columns, so there is no column {column}", known.name, own + 1);
            findings.push(Finding::error("unknown-column", "type_from", message).item("column"));
        }
        findings.extend(config.columns.iter().flat_map(|columns| check_names(columns, known, &in_message)));
    }
    if config.header && types.len() > 1 && config.columns.is_none() {
        let message = "one header can't name the columns of several types";
        findings.push(
            Finding::error("ambiguous-header", "header", message)
                .help("say `columns`, or parse each type by a stage of its own"),
        );
    }
    findings
}

fn check_names(columns: &[String], known: &EventType, in_message: &dyn Fn(&Field) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, name) in columns.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        if known.field(name).is_none() {
            let names: Vec<&str> = known.fields.iter().map(|field| field.name.as_str()).collect();
            let message = format!("type `{}` has no field `{name}`", known.name);
            let help = format!("its fields are {}; \"\" skips a column", names.join(", "));
            findings.push(Finding::error("unknown-field", "columns", message).item(at.to_string()).help(help));
        }
        if known.field(name).is_some_and(|(_, field)| in_message(field)) {
            let message = format!("`{name}` comes from the message, as `from_message` says, and from a column too");
            findings.push(Finding::error("repeated-column", "columns", message).item(at.to_string()));
        }
        if columns[..at].contains(name) {
            let message = format!("`{name}` is named twice");
            findings.push(Finding::error("repeated-column", "columns", message).item(at.to_string()));
        }
    }
    let needs_column = |field: &&Field| !field.is_nullable() && !in_message(field);
    for field in known.fields.iter().filter(needs_column).filter(|field| !columns.contains(&field.name)) {
        let message = format!("field `{}` of type `{}` is never null, but no column holds it", field.name, known.name);
        findings.push(Finding::error("missing-column", "columns", message));
    }
    findings
}

fn a(field: &Field) -> String {
    let name = field.kind.name();
    format!("{} {name}", if name.starts_with('a') { "an" } else { "a" })
}
