//! What can be wrong with a record, and how it becomes a dead letter.

use std::sync::Arc;

use tidemill_core::{DeadLetter, Effects, FieldKind, Framing, Limits, RawChunk, Reason, format_time_ms};

use super::time::TimeForm;

/// Characters of a value that a message shows.
const SHOWN: usize = 64;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z in milliseconds since 1970.
const YEARS_1_TO_9999: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Why a record can't be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    /// Path of the field at fault, outermost first.
    field: Option<String>,
    message: String,
}

impl Fault {
    /// The record as a whole is at fault.
    #[cold]
    pub(super) fn record(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, field: None, message: message.into() }
    }

    /// A field is at fault.
    #[cold]
    pub(super) fn field(reason: Reason, field: &str, message: impl Into<String>) -> Self {
        Self { reason, field: Some(field.to_owned()), message: message.into() }
    }

    /// A value is not what its field takes.
    #[cold]
    pub(super) fn value(field: &str, found: &[u8], expected: &str) -> Self {
        Self::field(Reason::BadValue, field, format!("{} is not {expected}", shown(found)))
    }

    /// The same, seen from the field that holds the one at fault.
    pub(super) fn inside(mut self, outer: &str) -> Self {
        self.field = self.field.map(|inner| format!("{outer}.{inner}"));
        self
    }

    /// The same with another label.
    pub(super) fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// Whether the field at fault is this one.
    pub(super) fn is_of(&self, field: &str) -> bool {
        self.field.as_deref() == Some(field)
    }

    pub(super) fn text(&self) -> String {
        match &self.field {
            Some(field) => format!("field `{field}`: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// A value in quotes, shortened, with everything escaped that does not print.
pub(super) fn shown(value: &[u8]) -> String {
    let head = &value[..value.len().min(SHOWN * 4)];
    let text: String = match std::str::from_utf8(head) {
        Ok(text) => text.chars().take(SHOWN).flat_map(char::escape_debug).collect(),
        Err(_) => head[..head.len().min(SHOWN)].escape_ascii().to_string(),
    };
    let cut = match std::str::from_utf8(value) {
        Ok(text) => text.chars().nth(SHOWN).is_some(),
        Err(_) => value.len() > SHOWN,
    };
    format!("\"{text}{}\"", if cut { "..." } else { "" })
}

/// What a field of this kind takes as text, for messages.
pub(super) fn expected(kind: &FieldKind, form: TimeForm) -> String {
    match kind {
        FieldKind::Boolean => "true, false, 1 or 0".into(),
        FieldKind::Int => "a whole number from -2147483648 to 2147483647".into(),
        FieldKind::Long => "a whole number of 64 bits".into(),
        FieldKind::Float | FieldKind::Double => "a finite number".into(),
        FieldKind::Bytes => "bytes in hex".into(),
        FieldKind::String => "text".into(),
        FieldKind::Uuid => "a UUID such as 123e4567-e89b-12d3-a456-426614174000".into(),
        FieldKind::TimestampMillis | FieldKind::TimestampMicros => form.expected().into(),
        FieldKind::Date => "a date such as 2013-01-31, from 0001-01-01 to 9999-12-31".into(),
        FieldKind::Enum(symbols) => {
            let some: Vec<&str> = symbols.iter().take(8).map(String::as_str).collect();
            format!("one of {}{}", some.join(", "), if symbols.len() > 8 { ", ..." } else { "" })
        }
        FieldKind::Fixed(size) => format!("{size} bytes in hex"),
        FieldKind::Decimal { precision, scale, .. } => {
            format!("a decimal number of at most {precision} digits, {scale} of them after the point")
        }
        FieldKind::Array(_) => "an array".into(),
        FieldKind::Map(_) => "a map".into(),
        FieldKind::Record(_) => "a record".into(),
    }
}

/// Event times that are taken from a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventTimes {
    arrived_at_ms: i64,
    latest_ms: i64,
}

impl EventTimes {
    pub(super) fn of(chunk: &RawChunk, limits: &Limits) -> Self {
        let latest_ms = chunk.arrived_at_ms.saturating_add(limits.max_ahead_ms);
        Self { arrived_at_ms: chunk.arrived_at_ms, latest_ms }
    }

    /// Whether an event of that time is taken.
    #[inline]
    pub(super) fn takes(self, ms: i64) -> bool {
        ms >= *YEARS_1_TO_9999.start() && ms <= self.latest_ms.min(*YEARS_1_TO_9999.end())
    }

    /// Why an event of that time is not taken.
    #[cold]
    pub(super) fn fault(self, field: &str, ms: i64) -> Fault {
        if !YEARS_1_TO_9999.contains(&ms) {
            let message = format!("the event time, {ms} ms since 1970, is outside the years 1 to 9999");
            return Fault::field(Reason::TimeOutOfRange, field, message);
        }
        let (time, arrived) = (format_time_ms(ms), format_time_ms(self.arrived_at_ms));
        let allowed = self.latest_ms.saturating_sub(self.arrived_at_ms);
        let message =
            format!("the event time {time} is more than max_ahead ({allowed} ms) ahead of the arrival at {arrived}");
        Fault::field(Reason::TooFarAhead, field, message)
    }
}

/// The dead letters of one call.
pub(super) struct Letters<'a> {
    chunk: &'a RawChunk,
    dead: Vec<DeadLetter>,
}

impl<'a> Letters<'a> {
    pub(super) fn new(chunk: &'a RawChunk) -> Self {
        Self { chunk, dead: Vec::new() }
    }

    /// Position of the line that begins at `start`.
    pub(super) fn position(&self, start: usize) -> u64 {
        self.chunk.origin.first + start as u64
    }

    /// Length of a record of which the chunk holds `len` bytes.
    pub(super) fn whole_length(&self, len: usize) -> u64 {
        self.chunk.whole_length(len)
    }

    #[cold]
    pub(super) fn add(&mut self, position: u64, event_type: Option<&Arc<str>>, fault: &Fault, payload: &[u8]) {
        self.dead.push(DeadLetter {
            origin: self.chunk.origin.clone(),
            position,
            event_type: event_type.cloned(),
            reason: fault.reason,
            message: fault.text(),
            payload: payload.to_vec(),
            length: self.chunk.whole_length(payload.len()),
            arrived_at_ms: self.chunk.arrived_at_ms,
            parsed: None,
        });
    }

    /// Adds the messages that have no value, which no stage can parse. Returns how many there are.
    pub(super) fn add_tombstones(&mut self) -> u64 {
        let chunk = self.chunk;
        let Framing::Messages(messages) = &chunk.framing else { return 0 };
        let before = self.dead.len();
        for message in messages.iter(&chunk.bytes).filter(|message| !message.span().is_some()) {
            let fault = Fault::record(Reason::NoValue, "the message has no value (a tombstone)");
            self.add(message.position(), None, &fault, &[]);
        }
        (self.dead.len() - before) as u64
    }

    /// Hands them over in order of position.
    pub(super) fn finish(mut self, effects: &mut Effects) {
        self.dead.sort_by_key(|letter| letter.position);
        effects.tally.dead += self.dead.len() as u64;
        effects.dead.append(&mut self.dead);
    }
}

/// A record that is longer than the topology takes.
pub(super) fn too_large(len: u64, limits: &Limits) -> Option<Fault> {
    let limit = limits.max_event_bytes;
    (len > limit as u64)
        .then(|| Fault::record(Reason::TooLarge, format!("the record has {len} bytes, more than max_event, {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_short_and_printable() {
        assert_eq!(shown(b"a\tb\x00"), "\"a\\tb\\0\"");
        assert_eq!(shown(&[0xff, b'a']), "\"\\xffa\"");
        assert_eq!(shown(&[b'x'; 1000]).len(), 64 + 5);
        let long = "ä".repeat(1000);
        assert_eq!(shown(long.as_bytes()), format!("\"{}...\"", "ä".repeat(64)));
        let odd = format!("x{}", "€".repeat(100));
        assert!(shown(odd.as_bytes()).ends_with("...\""));
    }
}
