//! Servers that run on Java.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Process, wait_for};

/// Flags of a virtual machine that is to start soon and stay small.
pub(crate) const SMALL: [&str; 4] = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// Starts a server in a directory, where its `log` goes, and waits until that has the words `ready`.
#[track_caller]
pub(crate) fn start(dir: &Path, args: &[&str], ready: &str) -> Process {
    let log = dir.join("log");
    let file = std::fs::File::create(&log).expect("a log");
    // Dies with the thread that starts it, so that tests that are killed leave none behind.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "java"]).args(SMALL).args(args).current_dir(dir);
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second descriptor")).stderr(file);
    let mut server = Process::start(&mut command);
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for(ready, || {
        assert!(server.status().is_none(), "the server ended:\n{}", logged());
        logged().contains(ready).then_some(())
    });
    server
}
