//! Which types flow where, and what the kinds have to say about them.

use std::sync::Arc;

use serde_json::Value;
use tidemill_core::{
    DEAD_LETTER_TYPE, EventType, Finding, Guarantee, KindSpec, Limits, OptionType, Role, Severity, Shape, StageInput,
    dead_letter_type,
};

use super::cx::{Cx, Problem, Span};
use super::findings;
use super::nodes::{Draft, Input};
use super::types::Types;
use crate::plan::{Kinds, Port};
use crate::{codes, suggest};

/// What passes through a source, stage or sink.
#[derive(Default)]
pub(super) struct Flow {
    pub(super) accepts: Vec<Arc<EventType>>,
    pub(super) sends: Vec<Arc<EventType>>,
    /// More may be sent than is known, because something before is wrong.
    pub(super) partial: bool,
}

pub(super) struct Planner<'c, 'x> {
    pub(super) cx: &'c Cx<'x>,
    pub(super) drafts: &'c [Draft<'c, 'c>],
    pub(super) types: &'c Types,
    pub(super) limits: &'c Arc<Limits>,
    pub(super) kinds: &'c dyn Kinds,
    /// Some types could not be made out at all.
    /// The topology asks its sinks to deliver exactly once.
    pub(super) asks_once: bool,
    pub(super) holes: bool,
}

impl Planner<'_, '_> {
    /// The flows by draft; those that are not in `order` know nothing.
    pub(super) fn run(&self, order: &[usize]) -> Vec<Flow> {
        let mut flows: Vec<Flow> = Vec::new();
        flows.resize_with(self.drafts.len(), || Flow { partial: true, ..Flow::default() });
        for at in order {
            flows[*at] = match self.drafts[*at].role {
                Role::Source => self.source(&self.drafts[*at]),
                Role::Stage | Role::Sink => self.stage(&self.drafts[*at], &flows),
            };
        }
        flows
    }

    fn declared(&self) -> (Vec<Arc<EventType>>, bool) {
        let known = self.types.values().filter_map(|declared| declared.event_type.clone()).collect();
        (known, self.holes || self.types.values().any(|declared| declared.event_type.is_none()))
    }

    fn source(&self, draft: &Draft<'_, '_>) -> Flow {
        let (Some(kind), Some(options)) = (draft.kind, &draft.options) else {
            return Flow { partial: true, ..Flow::default() };
        };
        for finding in self.kinds.check_source(kind.name, options) {
            findings::report(self.cx, draft, finding);
        }
        let (sends, partial) = if kind.output == Shape::Rows { self.declared() } else { Default::default() };
        Flow { accepts: Vec::new(), sends, partial }
    }

    fn stage(&self, draft: &Draft<'_, '_>, flows: &[Flow]) -> Flow {
        let unknown = || Flow { partial: true, ..Flow::default() };
        let Some(kind) = draft.kind.filter(|_| !draft.misfit && !draft.types_broken) else { return unknown() };
        let (arriving, mut partial) = if draft.parses() { self.declared() } else { self.arriving(draft, flows) };
        // A stage that parses is told its types by the topology: what is before it does not matter.
        partial |= draft.input_missing && !draft.parses();
        let Some(accepts) = self.narrowed(draft, arriving, partial) else { return unknown() };
        if accepts.is_empty() {
            if !partial {
                self.nothing_arrives(draft);
            }
            return Flow { accepts, partial: true, ..Flow::default() };
        }
        self.check_passing(draft, flows);
        let Some(options) = draft.options.clone().filter(|_| self.constant_type(draft, &accepts)) else {
            return Flow { accepts, ..unknown() };
        };
        let name: Arc<str> = draft.name.as_str().into();
        let input = StageInput { name, options, types: accepts.clone(), limits: self.limits.clone() };
        match self.kinds.plan(draft.role, kind.name, &input) {
            Ok(sends) => {
                self.check_delivery(draft, kind, &input);
                for finding in self.kinds.warnings(draft.role, kind.name, &input) {
                    findings::report(self.cx, draft, Finding { severity: Severity::Warning, ..finding });
                }
                Flow { accepts, sends, partial }
            }
            Err(found) => {
                let no_error = !found.iter().any(|finding| finding.severity == Severity::Error);
                found.into_iter().for_each(|finding| findings::report(self.cx, draft, finding));
                if no_error && draft.role == Role::Sink {
                    return Flow { accepts, sends: Vec::new(), partial };
                }
                if no_error {
                    let message = format!("kind `{}` refuses `{}` without saying why", kind.name, draft.name);
                    let problem = Problem::error(codes::KIND_AT_FAULT, draft.span.clone(), message);
                    self.cx.push(problem.help("tell the authors of the kind"));
                }
                Flow { accepts, ..unknown() }
            }
        }
    }

    /// The types that come over one input, and whether there may be more.
    fn over(&self, input: &Input, flows: &[Flow]) -> (Vec<Arc<EventType>>, bool) {
        match input.port {
            Port::DeadLetters => (vec![dead_letter_type()], false),
            Port::Data => (flows[input.from].sends.clone(), flows[input.from].partial),
        }
    }

    fn arriving(&self, draft: &Draft<'_, '_>, flows: &[Flow]) -> (Vec<Arc<EventType>>, bool) {
        let mut all: Vec<(Arc<EventType>, &Input)> = Vec::new();
        let mut partial = false;
        for input in &draft.inputs {
            let (types, more) = self.over(input, flows);
            partial |= more;
            for event_type in types {
                let earlier = all.iter().find(|(other, _)| other.name == event_type.name);
                match earlier {
                    None => all.push((event_type, input)),
                    Some((other, first)) if !same(other, &event_type) && draft.lets_pass(&event_type.name) => {
                        let message = format!("two different types named `{}` arrive at `{}`", other.name, draft.name);
                        let problem = Problem::error(codes::TYPE_CLASH, input.span.clone(), message);
                        let help = "take them by stages or sinks of their own, or leave the type out of `types`";
                        self.cx.push(problem.help(help).related(first.span.clone(), "the other comes from here"));
                    }
                    Some(_) => {}
                }
            }
        }
        (all.into_iter().map(|(event_type, _)| event_type).collect(), partial)
    }

    /// What `types` lets pass. `None` when it names what can't be.
    fn narrowed(
        &self,
        draft: &Draft<'_, '_>,
        arriving: Vec<Arc<EventType>>,
        partial: bool,
    ) -> Option<Vec<Arc<EventType>>> {
        let Some(types) = &draft.types else { return Some(arriving) };
        let mut known = true;
        for (at, (name, span)) in types.iter().enumerate() {
            if let Some((_, first)) = types[..at].iter().find(|(other, _)| other == name) {
                let problem =
                    Problem::warning(codes::DUPLICATE_KEY, span.clone(), format!("`{name}` is in `types` twice"));
                self.cx.push(problem.help("name it once").related(first.clone(), "it is here already"));
            }
            if arriving.iter().any(|event_type| *event_type.name == **name) || self.is_broken_type(name) {
                continue;
            }
            if self.types.contains_key(name) || name == DEAD_LETTER_TYPE {
                let some_arrive = || arriving.iter().any(|event_type| draft.lets_pass(&event_type.name));
                let may_be_missing = draft.by_tier.contains(name) && some_arrive();
                if !partial && !may_be_missing {
                    self.never_arrives(draft, name, span, &arriving);
                }
            } else if !partial || draft.parses() {
                known = false;
                self.unknown_type(name, span, &arriving);
            }
        }
        let passes = arriving.into_iter().filter(|event_type| draft.lets_pass(&event_type.name)).collect();
        known.then_some(passes)
    }

    fn is_broken_type(&self, name: &str) -> bool {
        self.types.get(name).is_some_and(|declared| declared.event_type.is_none())
    }

    fn unknown_type(&self, name: &str, span: &Span, arriving: &[Arc<EventType>]) {
        let mut names: Vec<&str> = self.types.keys().map(String::as_str).collect();
        let made = arriving.iter().map(|event_type| &*event_type.name);
        names.extend(made.filter(|name| !self.types.contains_key(*name)));
        let message = format!("there is no type `{name}`");
        let help = suggest::help(name, &names, "types");
        self.cx.push(Problem::error(codes::UNKNOWN_TYPE, span.clone(), message).help(help));
    }

    fn never_arrives(&self, draft: &Draft<'_, '_>, name: &str, span: &Span, arriving: &[Arc<EventType>]) {
        let others = draft.types.iter().flatten().any(|(name, _)| arriving.iter().any(|other| *other.name == **name));
        let severity = if others { Severity::Warning } else { Severity::Error };
        let message = format!("no event of type `{name}` can arrive at `{}`", draft.name);
        let help = match arriving {
            [] => "nothing arrives: look at what it takes from".to_owned(),
            _ if name == DEAD_LETTER_TYPE => "dead letters come from inputs such as `NAME.dead_letters`".to_owned(),
            _ => {
                let names: Vec<&str> = arriving.iter().map(|event_type| &*event_type.name).collect();
                format!("what arrives is {}", suggest::list(&names))
            }
        };
        self.cx.push(Problem::new(severity, codes::TYPE_NEVER_ARRIVES, span.clone(), message).help(help));
    }

    fn nothing_arrives(&self, draft: &Draft<'_, '_>) {
        if draft.parses() && self.types.is_empty() {
            let message = format!("`{}` parses events, but the topology declares no type", draft.name);
            let help = "declare one: `[types.NAME]` with `schema` and `time`";
            self.cx.push(Problem::error(codes::NO_TYPES, draft.span.clone(), message).help(help));
        } else if draft.types.is_none() {
            let message = format!("no event can arrive at `{}`", draft.name);
            let help = "look at what it takes from, and at the types that sends";
            self.cx.push(Problem::error(codes::TYPE_NEVER_ARRIVES, draft.span.clone(), message).help(help));
        }
    }

    /// Warns of inputs that `types` closes altogether.
    /// Says so when a topology asks for more than a sink can give.
    fn check_delivery(&self, draft: &Draft<'_, '_>, kind: &KindSpec, input: &StageInput) {
        let asked = self.asks_once && draft.role == Role::Sink;
        if !asked || self.kinds.guarantee(kind, &input.options) != Some(Guarantee::AtLeastOnce) {
            return;
        }
        let message =
            format!("`{}` may give events twice after a crash, but the topology asks for `exactly_once`", draft.name);
        let has_choice = kind.options.iter().any(|option| option.name == "delivery");
        let help = match has_choice {
            true => "write `delivery = \"exactly_once\"` in its table".to_owned(),
            false => format!(
                "the kind `{}` can't promise more; leave out `delivery` in `[topology]` if that is fine",
                kind.name
            ),
        };
        self.cx.push(Problem::warning(codes::WEAK_SINK, draft.span.clone(), message).help(help));
    }

    fn check_passing(&self, draft: &Draft<'_, '_>, flows: &[Flow]) {
        if draft.types.is_none() || draft.parses() {
            return;
        }
        for input in &draft.inputs {
            let (types, partial) = self.over(input, flows);
            if partial || types.is_empty() || types.iter().any(|event_type| draft.lets_pass(&event_type.name)) {
                continue;
            }
            let names: Vec<&str> = types.iter().map(|event_type| &*event_type.name).collect();
            let message = format!("nothing that comes from here passes: `types` leaves out {}", suggest::list(&names));
            let help = "remove it from `from`, or add a type of it to `types`";
            self.cx.push(Problem::warning(codes::TYPE_NEVER_ARRIVES, input.span.clone(), message).help(help));
        }
    }

    /// Whether the types that `type_from = { const = ... }` names can be planned with.
    fn constant_type(&self, draft: &Draft<'_, '_>, accepts: &[Arc<EventType>]) -> bool {
        let (Some(kind), Some(options)) = (draft.kind, &draft.options) else { return true };
        let mut right = true;
        for spec in kind.options.iter().filter(|spec| spec.ty == OptionType::TypeFrom) {
            let Some(name) = options.0.get(spec.name).and_then(|value| value.get("const")).and_then(Value::as_str)
            else {
                continue;
            };
            if accepts.iter().any(|event_type| *event_type.name == *name) {
                continue;
            }
            right = false;
            if self.is_broken_type(name) {
                continue;
            }
            let span = findings::place(self.cx, draft, Some(spec.name), Some("const"), Some(0..name.len()));
            if self.types.contains_key(name) {
                let message = format!("`{}` leaves out type `{name}`, which all its records have", draft.name);
                let help = format!("add `{name}` to `types`, or remove `types`");
                self.cx.push(Problem::error(codes::TYPE_NEVER_ARRIVES, span, message).help(help));
            } else {
                self.unknown_type(name, &span, accepts);
            }
        }
        right
    }

    /// Warns of declared types that nothing parses.
    pub(super) fn check_unused_types(&self, flows: &[Flow]) {
        let makes = |draft: &Draft<'_, '_>| draft.parses() || draft.role == Role::Source;
        let uncertain = self.drafts.iter().zip(flows).any(|(draft, flow)| {
            draft.kind.is_none() || draft.input_missing || draft.misfit || makes(draft) && flow.partial
        });
        if uncertain {
            return;
        }
        let used = |name: &str| {
            let mut makers = self.drafts.iter().zip(flows).filter(|(draft, _)| makes(draft));
            makers.any(|(_, flow)| flow.sends.iter().any(|event_type| *event_type.name == *name))
        };
        for (name, declared) in self.types.iter().filter(|(name, _)| !used(name)) {
            let message = format!("no stage parses events of type `{name}`");
            let help = "remove it, or add it to the `types` of a stage that parses";
            self.cx.push(Problem::warning(codes::UNUSED_TYPE, declared.span.clone(), message).help(help));
        }
    }
}

impl Draft<'_, '_> {
    /// Whether `types` lets a type pass.
    pub(super) fn lets_pass(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|(name, _)| name == event_type))
    }
}

fn same(one: &Arc<EventType>, other: &Arc<EventType>) -> bool {
    Arc::ptr_eq(one, other) || one.schema_json == other.schema_json && one.time == other.time && one.id == other.id
}
