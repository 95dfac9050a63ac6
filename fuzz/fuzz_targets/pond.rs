//! A record of a pond, with its header. It is read as it is, and with its length and checksum put right.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tidemill_core::EventType;
use tidemill_fuzz::{NESTED, SCALARS, event_type};
use tidemill_runtime::fuzzing::pond_record;

static TYPES: LazyLock<Vec<Arc<EventType>>> = LazyLock::new(|| {
    let stop = event_type("stop", r#"{"name":"why","type":["null","string"]}"#);
    vec![event_type("play", &format!("{SCALARS},{NESTED}")), stop]
});

/// The reader catches panics of `arrow-ipc`, so they are no crash. One that is not caught ends the process all the same.
fn print_others(panic: &std::panic::PanicHookInfo<'_>) {
    if !panic.location().is_some_and(|place| place.file().contains("/arrow-")) {
        eprintln!("{panic}");
    }
}

fuzz_target!(init: std::panic::set_hook(Box::new(print_others)), |bytes: &[u8]| {
    let _ = pond_record(bytes, &TYPES);
    if bytes.len() >= 9 {
        let mut right = bytes.to_vec();
        right[..4].copy_from_slice(&(bytes.len() as u32 - 9).to_le_bytes());
        right[4..8].copy_from_slice(&crc32c::crc32c(&bytes[8..]).to_le_bytes());
        let _ = pond_record(&right, &TYPES);
    }
});
