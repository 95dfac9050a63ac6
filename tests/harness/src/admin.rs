//! The admin server of a process, seen from outside.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::{Place, Process, wait_for};

/// Address of the admin server of a process, as the lock of the topology's state announces it.
///
/// # Panics
/// When it is not announced.
#[track_caller]
pub fn address(place: &Place, topology: &str, process: &Process) -> String {
    wait_for("the announcement", || {
        let lock = std::fs::read_to_string(place.path(&format!(".tidemill/{topology}/lock"))).ok()?;
        let lock: Value = serde_json::from_str(&lock).ok()?;
        (lock["pid"] == process.id()).then(|| lock["admin"].as_str().expect("an address").to_owned())
    })
}

/// A page of the admin server: its status line and its body.
pub fn page(address: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tidemill\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.lines().next()?.to_owned(), body.to_owned()))
}

/// Names of the series that a page of metrics holds.
pub fn served_metrics(body: &str) -> BTreeSet<String> {
    let series = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let names = series.filter_map(|line| line.split(['{', ' ']).next());
    // A histogram has several.
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
    let types: Vec<&str> = types.collect();
    let of = |name: &str| types.iter().find(|of| name.starts_with(**of)).map_or(name, |of| *of).to_owned();
    names.map(of).collect()
}
