//! Servers that run on Java.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::wait_for;

/// Flags of a virtual machine that is to start soon and stay small.
pub(crate) const SMALL: [&str; 4] = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// Starts a server in a directory, where its `log` goes, and waits until that says that it is `ready`.
#[track_caller]
pub(crate) fn start(dir: &Path, args: &[&str], ready: &str) -> Child {
    let log = dir.join("log");
    let file = std::fs::File::create(&log).expect("a log");
    // Dies with the thread that starts it, so that tests that are killed leave none behind.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "java"])
        .args(SMALL)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a second descriptor"))
        .stderr(file)
        .spawn();
    let mut child = child.expect("setpriv (util-linux) and java run");
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for(ready, || {
        assert!(child.try_wait().expect("it can be asked").is_none(), "the server ended:\n{}", said());
        said().contains(ready).then_some(())
    });
    child
}
