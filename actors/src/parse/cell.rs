//! Single values, checked against their field, on their way into a column.

use std::borrow::Cow;

/// A value of a field. Which variant a field takes follows from its kind; whoever makes a cell has checked it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// Not given. It becomes null, or a fault, before it gets to a column.
    Missing,
    /// Null, or in a field that is never null: a value that the row is left out for.
    Null,
    /// boolean
    Boolean(bool),
    /// int, date; enum: the number of the symbol
    Int(i32),
    /// long, timestamps
    Long(i64),
    /// float
    Float(f32),
    /// double
    Double(f64),
    /// string, uuid
    Text(Cow<'a, str>),
    /// bytes, fixed
    Bytes(Cow<'a, [u8]>),
    /// decimal, unscaled
    Decimal(i128),
    /// array
    List(Vec<Cell<'a>>),
    /// map
    Map(Vec<(Cow<'a, str>, Cell<'a>)>),
    /// record: its fields in order
    Record(Vec<Cell<'a>>),
}
