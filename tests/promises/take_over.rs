//! One process after the other: a standby, and a process that hangs and is replaced. Never a stranger's end, never two at once.

use std::fs::File;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use tidemill_harness::admin::address;
use tidemill_harness::lock::{LOCK, announced, assert_refused, holder, lock, place};
use tidemill_harness::{Place, Process, assert_each_once, assert_exit, finish, wait_for};

/// Waits until a process has said something on standard error, which goes to the file.
#[track_caller]
fn wait_for_words(place: &Place, log: &str, words: &str) {
    wait_for(words, || std::fs::read_to_string(place.path(log)).ok()?.contains(words).then_some(()));
}

/// Starts a standby whose standard error goes to the file `log`.
fn standby(place: &Place, more: &[&str]) -> Process {
    let log = File::create(place.path("log")).expect("a log");
    let mut command = place.run_command(&["plays.toml", "--wait"]);
    Process::start(command.args(more).stderr(log))
}

#[test]
fn a_standby_says_who_runs_and_goes_on_when_that_has_ended() {
    let place = place();
    let holder = holder(&place);
    let standby = standby(&place, &["--until-end"]);
    let words = format!("process {}", holder.id());
    wait_for_words(&place, "log", &words);
    holder.stop();
    assert_exit(&standby.end(), 0);
    assert_each_once(&place.published("play"), 0..1_000);
}

#[test]
fn a_standby_takes_the_admin_address_over_with_the_lock() {
    let place = place();
    let mut first = place.command(&["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
    let holder = Process::quiet(&mut first);
    let admin = address(&place, "plays", &holder);
    let standby = standby(&place, &["--set", &format!("admin.listen={admin}")]);
    wait_for_words(&place, "log", "waiting");
    holder.stop();
    assert_eq!(address(&place, "plays", &standby), admin);
    standby.stop();
}

#[test]
fn a_standby_that_is_stopped_ends_with_0_and_has_touched_nothing() {
    let place = place();
    let holder = holder(&place);
    for stop in [Signal::TERM, Signal::INT] {
        let standby = standby(&place, &["--set", "output.root=other"]);
        wait_for_words(&place, "log", "waiting");
        standby.signal(stop);
        assert_exit(&standby.end(), 0);
        assert!(!place.path("other").exists(), "an output root was made without the lock");
        assert_eq!(announced(&place), Some(holder.id()));
    }
    holder.stop();
}

#[test]
fn wait_take_over_and_fresh_exclude_each_other() {
    let place = place();
    for two in [["--wait", "--take-over"], ["--wait", "--fresh"], ["--take-over", "--fresh"]] {
        assert_exit(&finish(place.run_command(&["plays.toml"]).args(two)), 64);
    }
}

#[test]
fn a_process_that_the_lock_file_names_and_that_does_not_hold_the_lock_is_not_killed() {
    let place = place();
    let _lock = lock(&place, "");
    let take_over = || finish(&mut place.run_command(&["plays.toml", "--take-over"]));
    assert_refused(&take_over(), &["does not say which process"]);

    // It even has the file open.
    let open = File::open(place.path(LOCK)).expect("the lock file");
    let mut stranger = Process::start(Command::new("tail").args(["-f", "/dev/null"]).stdin(open));
    place.write(LOCK, json!({"pid": stranger.id()}).to_string());
    let pid = format!("process {}", stranger.id());
    assert_refused(&take_over(), &[&pid, "does not hold the lock", "PID namespace"]);
    stranger.assert_runs();
    // Nor is anybody for one that has ended.
    drop(stranger);
    let ended = Process::start(&mut Command::new("true"));
    let pid = ended.id();
    ended.end();
    place.write(LOCK, json!({"pid": pid}).to_string());
    assert_refused(&take_over(), &["is not there", "another machine"]);
}
