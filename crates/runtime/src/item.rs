//! What waits in an Inbox: numbered items.

use std::sync::Arc;

use tidemill_core::{CutId, DeadLetter, DeliveryId, Effects, Framing, Input, Reason, Seals, Tally};

/// What travels over a lane.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Inputs that one call upstream handed over together: whole or not at all.
    Data(Arc<[Part]>),
    /// The border of a cut.
    Barrier(Arc<Seals>),
}

/// An input, or one that its stage can't survive.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// To be processed.
    Live(Input),
    /// Events as they lie in a pond, under the name that they have there for ever.
    Delivery(Input, DeliveryId),
    /// To be processed; a worker has failed on it.
    Suspect(Input),
    /// To become a dead letter: the stage failed on it with this error, and there is nothing left to halve.
    Poison(Input, String),
}

/// An item with its place in the order of its Inbox. The number names the item for ever: a replay carries the same one.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) item: Item,
    /// What became of its records when its effects were handed on; a replay must say the same.
    pub(crate) outcome: Option<Tally>,
}

impl Item {
    pub(crate) fn weight_bytes(&self) -> usize {
        match self {
            Self::Data(parts) => parts.iter().map(Part::weight_bytes).sum(),
            Self::Barrier(_) => 0,
        }
    }

    /// Events and messages in it. Lines are not counted before they are parsed.
    pub(crate) fn events(&self) -> usize {
        let Self::Data(parts) = self else { return 0 };
        let events = |part: &Part| match part.input() {
            Input::Rows(batch) => batch.len(),
            Input::Raw(chunk) => match &chunk.framing {
                Framing::Messages(messages) => messages.len(),
                Framing::Lines | Framing::AvroBlocks { .. } => 0,
            },
            Input::Note(_) => 0,
        };
        parts.iter().map(events).sum()
    }

    pub(crate) fn cut(&self) -> Option<CutId> {
        match self {
            Self::Data(_) => None,
            Self::Barrier(seals) => Some(seals.cut),
        }
    }

    /// The item once it was dealt with: nothing in it is suspect any more.
    pub(crate) fn absolved(self) -> Self {
        match self {
            Self::Data(parts) if parts.iter().any(|part| matches!(part, Part::Suspect(_))) => {
                let live = |part: &Part| match part {
                    Part::Suspect(input) => Part::Live(input.clone()),
                    part => part.clone(),
                };
                Self::Data(parts.iter().map(live).collect())
            }
            item => item,
        }
    }

    /// The item after a worker has failed on its part `index`, and whether this is a search for the event to blame. A part is tried once more as it is; the
    /// next time it is halved; what can't be halved becomes poison. So no event is given up that has not failed by itself, twice.
    pub(crate) fn blame(&self, index: usize, error: &str) -> (Self, bool) {
        let Self::Data(parts) = self else { return (self.clone(), false) };
        let mut is_search = false;
        let mut finer = Vec::with_capacity(parts.len() + 1);
        for (at, part) in parts.iter().enumerate() {
            match part {
                Part::Live(input) | Part::Delivery(input, _) if at == index => finer.push(Part::Suspect(input.clone())),
                Part::Suspect(input) if at == index => {
                    is_search = true;
                    match input.split() {
                        Some((head, tail)) => finer.extend([Part::piece(head), Part::piece(tail)]),
                        None => finer.push(Part::Poison(input.clone(), error.to_owned())),
                    }
                }
                _ => finer.push(part.clone()),
            }
        }
        (Self::Data(finer.into()), is_search)
    }
}

impl Part {
    pub(crate) fn input(&self) -> &Input {
        match self {
            Self::Live(input) | Self::Delivery(input, _) | Self::Suspect(input) | Self::Poison(input, _) => input,
        }
    }

    /// A piece of a suspect: one event is innocent until it fails by itself.
    fn piece(input: Input) -> Self {
        if input.split().is_some() { Self::Suspect(input) } else { Self::Live(input) }
    }

    fn weight_bytes(&self) -> usize {
        self.input().weight_bytes()
    }
}

/// Makes dead letters of an input that its stage can't survive, for the reason that `message` gives.
pub(crate) fn bury(input: &Input, message: String, effects: &mut Effects) {
    match input {
        Input::Note(_) => {}
        Input::Rows(batch) => {
            for row in batch.indexes() {
                effects.dead.push(DeadLetter::of_row(batch, row, Reason::StageFailed, message.clone()));
                effects.tally.received += 1;
                effects.tally.dead += 1;
            }
        }
        Input::Raw(chunk) => {
            let payload = match &chunk.framing {
                Framing::Messages(messages) => {
                    messages.iter(&chunk.bytes).next().and_then(|message| message.value()).unwrap_or_default()
                }
                Framing::Lines => chunk.bytes.strip_suffix(b"\n").unwrap_or(&chunk.bytes),
                Framing::AvroBlocks { .. } => &chunk.bytes[..],
            };
            effects.dead.push(DeadLetter {
                origin: chunk.origin.clone(),
                position: chunk.origin.first,
                event_type: None,
                reason: Reason::StageFailed,
                message,
                payload: payload.to_vec(),
                length: chunk.whole_length(payload.len()),
                arrived_at_ms: chunk.arrived_at_ms,
                parsed: None,
            });
            effects.tally.received += 1;
            effects.tally.dead += 1;
        }
    }
}
