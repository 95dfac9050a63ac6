//! Parsing: raw chunks become typed batches.
//!
//! `tsv` is columnar: one pass finds the fields of all lines, another builds each column of each type over the
//! received bytes. `json` and `avro` make one row of `Cell`s at a time, so that a row with a fault never
//! reaches the columns.

mod avro;
mod cell;
mod column;
mod config;
mod fault;
mod json;
mod message;
mod names;
mod records;
mod rows;
#[cfg(test)]
mod testing;
mod time;
mod tsv;
mod value;
mod views;

use std::sync::Arc;

use tidemill_core::StageKind;

/// The kinds of this family: `tsv`, `json` and `avro`.
#[must_use]
pub fn kinds() -> Vec<Arc<dyn StageKind>> {
    vec![Arc::new(tsv::Tsv), Arc::new(json::Json), Arc::new(avro::Avro)]
}
