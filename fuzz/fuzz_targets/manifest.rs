//! A manifest without its checksum; behind a zero byte, the bytes of its files. Sizes and sums are put right, so that files are looked into.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tidemill_actors::sink::verify::verify;
use tidemill_actors::sink::{MANIFEST_NAME, Manifest, SUCCESS_NAME};

static ROOT: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a place in memory"));
static HOUR: LazyLock<PathBuf> = LazyLock::new(|| {
    let hour = ROOT.path().join("play/year=2013/month=01/day=01/hour=10/rev=0");
    fs::create_dir_all(&hour).expect("a directory");
    hour
});

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Manifest::from_text(&String::from_utf8_lossy(bytes));
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (head, file) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(mut manifest) = serde_json::from_slice::<Manifest>(head) else { return };
    for entry in &mut manifest.files {
        entry.name = "part.avro".to_owned();
        (entry.bytes, entry.sha256) = (file.len() as u64, sha256(file));
    }
    let text = manifest.to_text();
    if let Ok(again) = Manifest::from_text(&text) {
        assert_eq!(again, manifest);
    }
    let write = |name: &str, bytes: &[u8]| fs::write(HOUR.join(name), bytes).expect("there is room");
    write(MANIFEST_NAME, text.as_bytes());
    write(SUCCESS_NAME, format!("{}\n", sha256(text.as_bytes())).as_bytes());
    write("part.avro", file);
    let _ = verify(ROOT.path(), None, &|_| {}).expect("the root can be listed").to_string();
});
