//! The worker: books of all producers, and what it tells of hours.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use serde::{Deserialize, Serialize};
use tidemill_core::{
    Account as Told, Accounts, Batch, Effects, EventType, FieldKind, Hour, HourNote, Input, LatePolicy, Producers,
    Seals, Stage, StageContext, StageError, Tally, TimeColumn,
};

use super::account::{Account, Seen};

/// Producers of a type.
const PRODUCERS_MAX: usize = 10_000;
/// Ranges of numbers that are kept of a producer, and of one whose type has `RANGES_OF_TYPE` of them already.
const RANGES_MAX: usize = 4_096;
const RANGES_MIN: usize = 64;
const RANGES_OF_TYPE: usize = 262_144;
/// How long, in event time, a producer is remembered that nothing comes from.
const FORGET_MS: i64 = 7 * 86_400_000;
/// First byte of a snapshot.
const VERSION: u8 = 1;

pub(super) struct AccountsStage {
    bucket_ms: i64,
    types: BTreeMap<Arc<str>, OfType>,
}

struct OfType {
    event_type: Arc<EventType>,
    sealed_before_ms: i64,
    books: Books,
}

/// The producers of a type.
#[derive(Default, Serialize, Deserialize)]
struct Books {
    producers: BTreeMap<Arc<str>, Book>,
    /// Ranges of all of them.
    ranges: usize,
    /// There were more producers than there is room for, and that was told.
    has_too_many: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Book {
    account: Account,
    /// What came of hours that were not told, and what was found of gaps that were; by start of the hour.
    hours: BTreeMap<i64, Came>,
    /// Greatest event time, or time of a marker.
    newest_ms: i64,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Came {
    events: u64,
    found: u64,
}

impl AccountsStage {
    pub(super) fn new(context: &StageContext<'_>) -> Result<Self, StageError> {
        let mut kept: BTreeMap<Arc<str>, Books> = match context.snapshot.map(<[u8]>::split_first) {
            None => BTreeMap::new(),
            Some(Some((&VERSION, bytes))) => postcard::from_bytes(bytes).map_err(|error| StageError {
                message: "can't read the snapshot of accounts".into(),
                source: Some(error.into()),
            })?,
            Some(first) => {
                let version = first.map(|(version, _)| *version);
                return Err(StageError::new(format!(
                    "the snapshot of accounts has version {version:?}, this program reads {VERSION}: use the version that wrote it"
                )));
            }
        };
        let of_type = |event_type: &Arc<EventType>| {
            let sealed_before_ms = context.sealed_before_ms.get(&event_type.name).copied().unwrap_or(i64::MIN);
            let books = kept.remove(&event_type.name).unwrap_or_default();
            (event_type.name.clone(), OfType { event_type: event_type.clone(), sealed_before_ms, books })
        };
        let types = context.input.types.iter().map(of_type).collect();
        Ok(Self { bucket_ms: context.input.limits.bucket_ms, types })
    }

    fn take(&mut self, batch: &Batch) -> Result<(), StageError> {
        let name = &batch.event_type.name;
        let event_type = batch.event_type.clone();
        let Some(producers) = &event_type.producers else { return Ok(()) };
        let times = TimeColumn::of(&batch.records, event_type.time)
            .ok_or_else(|| StageError::new(format!("the time column of type `{name}` is no timestamp")))?;
        let numbers = Numbers::of(batch, producers);
        let names = producers.column(batch);
        match &producers.marks[..] {
            [] => {
                let of_type = self
                    .types
                    .get_mut(name)
                    .ok_or_else(|| StageError::new(format!("type `{name}` arrives, which was not planned")))?;
                for row in batch.indexes() {
                    let books = &mut of_type.books;
                    let ranges_max = books.ranges_max();
                    let (Some(book), Some(numbers)) = (books.of(names.name(row), name), &numbers) else { continue };
                    let at_ms = times.ms(row);
                    book.newest_ms = book.newest_ms.max(at_ms);
                    let before = book.account.ranges();
                    let seen = book.account.see(numbers.get(row), at_ms, ranges_max);
                    let now = book.account.ranges();
                    let came = book.hours.entry(Hour::of(at_ms, self.bucket_ms).start_ms).or_default();
                    came.events += 1;
                    came.found += u64::from(seen == Seen::Found);
                    books.ranges = (books.ranges + now).saturating_sub(before);
                }
            }
            // A number can be the last one of one type only.
            [marked] => {
                let Some(of_type) = self.types.get_mut(marked) else { return Ok(()) };
                for row in batch.indexes() {
                    let books = &mut of_type.books;
                    let ranges_max = books.ranges_max();
                    let book = books.producers.get_mut(names.name(row));
                    if let Some((book, numbers)) = book.zip(numbers.as_ref()) {
                        book.newest_ms = book.newest_ms.max(times.ms(row));
                        let before = book.account.ranges();
                        book.account.sent_up_to(numbers.get(row), times.ms(row), ranges_max);
                        books.ranges = (books.ranges + book.account.ranges()).saturating_sub(before);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Books {
    /// How many ranges of numbers a producer may have.
    fn ranges_max(&self) -> usize {
        if self.ranges < RANGES_OF_TYPE { RANGES_MAX } else { RANGES_MIN }
    }

    /// The book of a producer, if there is room for one.
    fn of(&mut self, name: &str, event_type: &str) -> Option<&mut Book> {
        if !self.producers.contains_key(name) {
            if self.producers.len() >= PRODUCERS_MAX {
                if !std::mem::replace(&mut self.has_too_many, true) {
                    tracing::warn!(
                        event_type,
                        max = PRODUCERS_MAX,
                        "the type has more producers than can be accounted for: of the others nothing is counted, and what they lose is not seen"
                    );
                }
                return None;
            }
            self.producers.insert(name.into(), Book::default());
        }
        self.producers.get_mut(name)
    }

    /// What there is to tell of hours that are sealed: by start of the hour.
    fn tell(&mut self, sealed_before_ms: i64, bucket_ms: i64) -> BTreeMap<i64, Vec<Told>> {
        let mut told: BTreeMap<i64, Vec<Told>> = BTreeMap::new();
        for (name, book) in &mut self.producers {
            let mut of_hours: BTreeMap<i64, (Came, u64, u64)> = BTreeMap::new();
            for (at_ms, missing) in book.account.tell(sealed_before_ms) {
                of_hours.entry(Hour::of(at_ms, bucket_ms).start_ms).or_default().1 += missing;
            }
            if let Some((at_ms, unknown)) = book.account.unknown(sealed_before_ms) {
                of_hours.entry(Hour::of(at_ms, bucket_ms).start_ms).or_default().2 += unknown;
            }
            let open = book.hours.split_off(&sealed_before_ms.saturating_sub(bucket_ms).saturating_add(1));
            for (start_ms, came) in std::mem::replace(&mut book.hours, open) {
                of_hours.entry(start_ms).or_default().0 = came;
            }
            for (start_ms, (Came { events, found }, missing, unknown)) in of_hours {
                told.entry(start_ms).or_default().push(Told {
                    producer: name.clone(),
                    events,
                    missing,
                    unknown,
                    found,
                });
            }
        }
        told
    }
}

/// The numbers of a batch's events.
enum Numbers<'a> {
    Int(&'a [i32]),
    Long(&'a [i64]),
}

impl<'a> Numbers<'a> {
    fn of(batch: &'a Batch, producers: &Producers) -> Option<Self> {
        let field = producers.sequence?;
        let column = batch.records.column(field);
        Some(match batch.event_type.fields[field].kind {
            FieldKind::Int => Self::Int(column.as_primitive::<Int32Type>().values()),
            _ => Self::Long(column.as_primitive::<Int64Type>().values()),
        })
    }

    /// Negative numbers go before all others, so that an order is kept.
    fn get(&self, row: usize) -> u64 {
        let number = match self {
            Self::Int(numbers) => i64::from(numbers[row]),
            Self::Long(numbers) => numbers[row],
        };
        (number as u64) ^ (1 << 63)
    }
}

impl Stage for AccountsStage {
    fn process(&mut self, input: &Input, effects: &mut Effects) -> Result<(), StageError> {
        match input {
            Input::Rows(batch) => {
                self.take(batch)?;
                let count = batch.len() as u64;
                effects.tally.add(&Tally { received: count, sent: count, ..Tally::default() });
                if count > 0 {
                    effects.batches.push(batch.clone());
                }
                Ok(())
            }
            Input::Note(note) => {
                effects.notes.push(note.clone());
                Ok(())
            }
            Input::Raw(_) => Err(StageError::new("accounts takes typed events, not raw records")),
        }
    }

    fn seal(&mut self, seals: &Seals, effects: &mut Effects) -> Result<(), StageError> {
        for horizon in &seals.horizons {
            if let Some(of_type) = self.types.get_mut(&horizon.event_type) {
                of_type.sealed_before_ms = of_type.sealed_before_ms.max(horizon.sealed_before_ms);
            }
        }
        let revised = seals.revised.iter();
        let names = seals.horizons.iter().map(|horizon| &horizon.event_type).chain(revised);
        for name in names {
            let Some(of_type) = self.types.get_mut(name) else { continue };
            let told = of_type.books.tell(of_type.sealed_before_ms, self.bucket_ms);
            for (start_ms, accounts) in told {
                let missing = accounts.iter().map(|told| told.missing).sum();
                effects.missing.push((name.clone(), missing));
                effects.notes.push(HourNote {
                    event_type: name.clone(),
                    hour: Hour { start_ms, width_ms: self.bucket_ms },
                    duplicates: 0,
                    refused: 0,
                    counted: None,
                    accounts: Some(Accounts { cut: seals.cut, producers: accounts }),
                });
            }
            // One that has sent nothing for as long as late events are waited for begins anew.
            let late = of_type.event_type.late;
            let within_ms = if late.policy == LatePolicy::DeadLetter { 0 } else { late.within_ms };
            let forgotten_ms = of_type.sealed_before_ms.saturating_sub(within_ms.max(FORGET_MS));
            let books = &mut of_type.books;
            books.producers.retain(|_, book| book.newest_ms >= forgotten_ms || !book.hours.is_empty());
            books.ranges = books.producers.values().map(|book| book.account.ranges()).sum();
        }
        Ok(())
    }

    fn snapshot(&mut self, _effects: &mut Effects) -> Result<Vec<u8>, StageError> {
        let books: BTreeMap<&Arc<str>, &Books> = self.types.iter().map(|(name, of)| (name, &of.books)).collect();
        postcard::to_extend(&books, vec![VERSION]).map_err(|error| StageError {
            message: "can't write the snapshot of accounts".into(),
            source: Some(error.into()),
        })
    }
}
