//! `tidemill reprocess`, of the topology of plays.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use crate::{HOUR, Place, assert_exit, finish, manifests};

/// The hour of [`HOUR`], as a person writes it.
pub const HOUR_NAME: &str = "2023-11-14T23";
/// Arguments of a run to the end of its input.
pub const UNTIL_END: [&str; 2] = ["plays.toml", "--until-end"];

/// `reprocess` of that hour.
#[track_caller]
pub fn reprocess(place: &Place, more: &[&str], code: i32) -> Output {
    let output = finish(place.command(&["reprocess", "plays.toml", "--hour", HOUR_NAME]).args(more));
    assert_exit(&output, code);
    output
}

/// Revisions of the hour of a type (below a directory), by number.
pub fn revisions(place: &Place, below: &str) -> BTreeMap<u64, Value> {
    let of_hour = |manifest: &Value| manifest["hour"]["start"] == *tidemill_core::format_time_ms(HOUR);
    let found = manifests(&place.out(), below).into_iter().filter(of_hour);
    found.map(|manifest| (manifest["revision"].as_u64().expect("a number"), manifest)).collect()
}
