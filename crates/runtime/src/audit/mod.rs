//! The audit of a region: whether what stages have given is what others have taken, and sinks have written.
//!
//! Everybody counts events, by type and hour, with the sum of the hashes of their ids (`Totals`). Barriers divide what passes in the same way at every
//! stage, so at each of them the books of all have to agree, exactly, before the cut is made. What is compared:
//!
//! - on each edge: what went out, and what came in; of chunks that are not parsed yet, which ones;
//! - in a sink that says what it has written: that, and what came in and was not refused;
//! - at each barrier in a pond: what was written, and what was read back.
//!
//! A stage's own count of what became of its records is checked at each call (`worker::done`), and so is which rows it hands on, where it hands on
//! those that it was given.

mod books;
mod check;
mod views;

#[cfg(test)]
mod tests;

pub(crate) use books::{Books, ByHour, Written, add, notes};
pub(crate) use check::{Audit, Mismatch, compare};
pub(crate) use views::wrong_row;
