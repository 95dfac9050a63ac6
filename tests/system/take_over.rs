//! Processes of other users and of other PID namespaces: their end is never ours to cause.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use serde_json::json;
use tidemill_harness::lock::{LOCK, announced, assert_refused, holder, lock, place};
use tidemill_harness::{Process, finish, wait_for};

/// Runs a command as nobody, with these capabilities.
fn as_nobody(command: &Command, capabilities: &str) -> Output {
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    nobody.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
    nobody.arg(command.get_program()).args(command.get_args());
    finish(nobody.current_dir(command.get_current_dir().expect("a place")))
}

#[test]
fn a_holder_of_another_user_is_refused_and_untouched() {
    let place = place();
    let take_over = ["plays.toml", "--take-over"];
    if !geteuid().is_root() {
        // Only the first process is another user's for sure.
        let _lock = lock(&place, &json!({"pid": 1}).to_string());
        return assert_refused(&finish(&mut place.run_command(&take_over)), &["process 1", "another user"]);
    }
    let mut holder = holder(&place);
    // Where nobody can get at it.
    let program = place.path("tidemill");
    std::fs::copy(tidemill_harness::program(), &program).expect("copied");
    for (path, mode) in [("", 0o777), (".tidemill", 0o777), (".tidemill/plays", 0o777), (LOCK, 0o666)] {
        std::fs::set_permissions(place.path(path), Permissions::from_mode(mode)).expect("it is ours");
    }
    let command = place.run_command(&take_over);
    let mut copied = Command::new(&program);
    copied.args(command.get_args()).current_dir(place.path(""));
    let pid = format!("process {}", holder.id());
    for (capabilities, words) in [("-all", "can't be seen"), ("-all,+sys_ptrace,+dac_read_search", "holds it")] {
        assert_refused(&as_nobody(&copied, capabilities), &[&pid, "another user", words]);
        holder.assert_runs();
        assert_eq!(announced(&place), Some(holder.id()));
    }
    holder.stop();
}

/// `unshare`, so that the command behind it is the first process of a PID namespace of its own.
fn in_a_pid_namespace(command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    if !geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
    unshare.current_dir(command.get_current_dir().expect("a place"));
    unshare
}

#[test]
fn a_holder_in_another_pid_namespace_is_refused_from_either_side() {
    let place = place();
    let take_over = place.run_command(&["plays.toml", "--take-over"]);
    let mut inside = Process::quiet(&mut in_a_pid_namespace(&place.run_command(&["plays.toml"])));
    wait_for("the lock", || (announced(&place)? == 1).then_some(()));
    // To us, process 1 is another one.
    assert_refused(&finish(&mut place.run_command(&["plays.toml", "--take-over"])), &["process 1"]);
    // To a third, it is itself, and what /proc shows is of another namespace still.
    assert_refused(&finish(&mut in_a_pid_namespace(&take_over)), &["process 1", "another PID namespace"]);
    inside.assert_runs();
    drop(inside);
    wait_for("the end of the holder", || {
        let lock = File::open(place.path(LOCK)).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()
    });
    let holder = holder(&place);
    assert_refused(
        &finish(&mut in_a_pid_namespace(&take_over)),
        &[&format!("process {}", holder.id()), "is not there"],
    );
    holder.stop();
}
