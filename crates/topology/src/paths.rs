//! Path templates of kinds: which there are, and what those come to that are left out.

use serde_json::Value;
use tidemill_core::{KindSpec, Limits, OptionType, Options};

/// A path template of a source, stage or sink.
pub(crate) struct PathOption {
    /// The option's name.
    pub(crate) name: &'static str,
    /// The template, or the default for these limits.
    pub(crate) template: String,
}

/// Every path template that a kind has.
pub(crate) fn path_options(kind: &KindSpec, options: &Options, limits: &Limits) -> Vec<PathOption> {
    let specs = kind.options.iter().filter(|spec| spec.ty == OptionType::PathTemplate);
    let template = |name: &str| {
        let written = options.0.get(name).and_then(Value::as_str).map(str::to_owned);
        written.unwrap_or_else(|| format!("{{event_type}}/{}", limits.hour_path()))
    };
    specs.map(|spec| PathOption { name: spec.name, template: template(spec.name) }).collect()
}
