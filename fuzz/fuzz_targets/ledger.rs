//! A ledger file: as it is when it begins with the magic, else lines of JSON that become its records, so that checksums are no wall.
#![no_main]

use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8] = b"TIDELDG2";

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(MAGIC) {
        let _ = tidemill_runtime::fuzzing::ledger(bytes);
        return;
    }
    let mut file = MAGIC.to_vec();
    for payload in bytes.split(|byte| *byte == b'\n') {
        file.extend((payload.len() as u32).to_le_bytes());
        file.extend(crc32c::crc32c(payload).to_le_bytes());
        file.extend(payload);
    }
    let _ = tidemill_runtime::fuzzing::ledger(&file);
});
