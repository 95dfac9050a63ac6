//! Who sends the events of a type: fields that say it, and how long a producer that is silent is waited for.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{BooleanArray, PrimitiveArray, StringArray, StringViewArray};

use crate::batch::Batch;
use crate::schema::FieldKind;

/// What a type says of its producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producers {
    /// Index of the field with the producer's name: a string, uuid or enum that is never null.
    pub field: usize,
    /// Index of an int or long field that is never null: each event's is one more than that of the producer's event before. Of a marker: that of the
    /// last event that it had sent.
    pub sequence: Option<usize>,
    /// How long a producer that nothing comes from holds hours, in milliseconds (wall clock).
    pub lease_ms: i64,
    /// Types of which its events say how far the producer has come; empty when they are events like any other, which say it of their own type.
    pub marks: Vec<Arc<str>>,
    /// Index of a boolean field that is true when the producer sends nothing more.
    pub ends: Option<usize>,
}

/// The column of a batch that names producers.
pub enum ProducerColumn<'a> {
    /// Texts.
    Text(&'a StringViewArray),
    /// Symbols of an enum.
    Symbol(&'a PrimitiveArray<Int32Type>, &'a StringArray),
}

impl Producers {
    /// Whether a field can name producers.
    #[must_use]
    pub fn can_be(kind: &FieldKind) -> bool {
        matches!(kind, FieldKind::String | FieldKind::Uuid | FieldKind::Enum(_))
    }

    /// The names in a batch of the type.
    ///
    /// # Panics
    /// If the batch is not of the type.
    #[must_use]
    pub fn column<'a>(&self, batch: &'a Batch) -> ProducerColumn<'a> {
        let array = batch.records.column(self.field);
        match batch.event_type.fields[self.field].kind {
            FieldKind::Enum(_) => {
                let dictionary = array.as_dictionary::<Int32Type>();
                ProducerColumn::Symbol(dictionary.keys(), dictionary.values().as_string())
            }
            _ => ProducerColumn::Text(array.as_string_view()),
        }
    }

    /// Where a batch of the type says that nothing more comes.
    ///
    /// # Panics
    /// If the batch is not of the type.
    #[must_use]
    pub fn ends<'a>(&self, batch: &'a Batch) -> Option<&'a BooleanArray> {
        self.ends.map(|field| batch.records.column(field).as_boolean())
    }
}

impl ProducerColumn<'_> {
    /// The name in a row.
    #[must_use]
    pub fn name(&self, row: usize) -> &str {
        match self {
            Self::Text(array) => array.value(row),
            Self::Symbol(keys, symbols) => symbols.value(keys.value(row) as usize),
        }
    }
}
