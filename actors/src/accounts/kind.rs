//! The description of the kind, and what `check` says about its options.

use std::sync::Arc;

use tidemill_core::{
    EventType, Finding, KindSpec, Role, Shape, Stage, StageContext, StageError, StageInput, StageKind, State,
};

use super::stage::AccountsStage;

pub(super) struct Accounts;

static SPEC: KindSpec = KindSpec {
    name: "accounts",
    role: Role::Stage,
    summary: "Counts what each producer has sent by hour, and which of its numbers are missing.",
    details: "Takes types that say `producer` and `sequence`, and markers of such types; all of them pass as they come. A producer numbers the events of a type, each one more \
than the one before, from any number on. Its name has to change when its numbers begin anew, such as a host's name and the time of its start.

When an hour is sealed, what is missing in it goes into the manifests of the sinks behind (`producers`), for each producer: a gap belongs to the hour of the event behind it. \
A marker with a `sequence` says which number was the last that its producer had sent, so that what is missing at the end shows, too. What was told as missing and comes late is \
told as `found` with the next revision, where there are any.

Put it behind `dedup`. Numbers may come in any order, as from several partitions: up to 4,096 gaps of a producer are kept open, 64 when a type has 262,144 of them; of older ones \
it is told how many numbers are `unknown`. Memory: some 150 bytes a producer and 32 a gap, in each cut, for at most 10,000 producers of a type; of others nothing is counted, and a warning says so.",
    options: &[],
    input: Shape::Rows,
    output: Shape::Rows,
    state: State::Stateful,
    guarantee: None,
};

impl StageKind for Accounts {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn plan(&self, input: &StageInput) -> Result<Vec<Arc<EventType>>, Vec<Finding>> {
        let has_numbers =
            |of: &&Arc<EventType>| of.producers.as_ref().is_some_and(|producers| producers.sequence.is_some());
        let is_marker =
            |of: &Arc<EventType>| of.producers.as_ref().is_some_and(|producers| !producers.marks.is_empty());
        let without = input.types.iter().filter(|of| !has_numbers(of) && !is_marker(of));
        let findings: Vec<Finding> = without
            .map(|of| {
                let message = format!("type `{}` does not say who sends its events and how they are numbered", of.name);
                let finding = Finding::error("no-sequence", "types", message);
                let help = format!(
                    "give `producer` and `sequence` in [types.{}], or narrow this stage's input with `types`",
                    of.name
                );
                Finding { option: None, ..finding.help(help) }
            })
            .collect();
        if findings.is_empty() { Ok(input.types.clone()) } else { Err(findings) }
    }

    fn build(&self, context: &StageContext<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(AccountsStage::new(context)?))
    }
}
