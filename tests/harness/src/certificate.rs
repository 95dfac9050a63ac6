//! Certificates for servers on this machine.

use std::path::PathBuf;
use std::process::Command;

use crate::{Place, assert_exit, finish};

/// A certificate for `127.0.0.1` that signs itself, in files of PEM.
pub struct Certificate {
    /// Its key.
    pub key: PathBuf,
    /// Itself, which is its authority, too.
    pub cert: PathBuf,
    /// Both in one file, key first.
    pub both: PathBuf,
}

/// Makes one in a place, valid for two days.
///
/// # Panics
/// When `openssl` is not there.
#[must_use]
pub fn certificate(place: &Place) -> Certificate {
    let (key, cert, both) = (place.path("key.pem"), place.path("cert.pem"), place.path("both.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    assert_exit(&finish(&mut openssl), 0);
    let read = |path| std::fs::read_to_string(path).expect("a file");
    std::fs::write(&both, read(&key) + &read(&cert)).expect("written");
    Certificate { key, cert, both }
}
