//! One process after the other: a standby, and a process that hangs and is replaced. Never a stranger's end, never two at once.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, geteuid};
use serde_json::json;

use crate::crash::{KILLED, many_cuts, side_by_side};
use crate::support::admin::address;
use crate::support::{Place, assert_each_once, assert_exit, end_of, finish, lines, said, signal, wait_for};

const LOCK: &str = ".tidemill/plays/lock";

/// A process that does not outlive its test.
struct Running(Option<Child>);

impl Running {
    fn new(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Self(Some(child.expect("it runs")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not waited for")
    }

    fn pid(&mut self) -> u32 {
        self.child().id()
    }

    #[track_caller]
    fn assert_runs(&mut self) {
        assert_eq!(self.child().try_wait().expect("it can be asked"), None, "it has ended");
    }

    fn end(mut self) -> Output {
        end_of(self.0.take().expect("it was not waited for"))
    }

    /// Ends it as an operator would.
    #[track_caller]
    fn stop(mut self) {
        self.assert_runs();
        signal(self.pid(), Signal::TERM);
        assert_exit(&self.end(), 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn place() -> Place {
    let place = Place::new();
    place.plays("");
    place.write("data/plays", lines(0..1_000));
    place
}

/// A run that goes on until it is stopped, and that owns the state by now.
#[track_caller]
fn holder(place: &Place) -> Running {
    let mut holder = Running::new(&mut place.run_command(&["plays.toml"]));
    let pid = holder.pid();
    wait_for("the lock", || (announced(place)? == pid).then_some(()));
    holder
}

/// The process that the lock file names.
fn announced(place: &Place) -> Option<u32> {
    let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(place.path(LOCK)).ok()?).ok()?;
    lock["pid"].as_u64()?.try_into().ok()
}

/// Waits until a process has said something on standard error, which goes to the file.
#[track_caller]
fn wait_for_words(place: &Place, log: &str, words: &str) {
    wait_for(words, || std::fs::read_to_string(place.path(log)).ok()?.contains(words).then_some(()));
}

/// Starts a standby whose standard error goes to the file `log`.
fn standby(place: &Place, more: &[&str]) -> Running {
    let log = File::create(place.path("log")).expect("a log");
    let mut command = place.run_command(&["plays.toml", "--wait"]);
    Running(Some(command.args(more).stderr(log).spawn().expect("the binary runs")))
}

/// Waits until a process is stopped.
#[track_caller]
fn wait_until_stopped(process: &mut Running, point: &str) {
    let stat = format!("/proc/{}/stat", process.pid());
    wait_for(point, || {
        process.assert_runs();
        let stat = std::fs::read_to_string(&stat).ok()?;
        // The state is behind the name, which is in parentheses.
        stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
    });
}

/// Each process takes the topology over from one that has stopped in the middle of a commit, and stops there itself; the last one goes
/// on to the end.
#[test]
fn processes_that_hang_between_two_steps_of_a_commit_are_taken_over_and_nothing_changes() {
    let steps = [("logs-synced", "20"), ("ledger-synced", "20"), ("index-synced", "5"), ("file-published", "100")];
    side_by_side(&steps, |(step, middle)| {
        let place = Place::new();
        let many = many_cuts(&place, 8);
        let mut before: Option<Running> = None;
        for point in ["1", middle, "1:sealing", "1:last"] {
            let point = format!("{step}:{point}:stop");
            let mut command = many.command();
            let mut next = Running::new(command.arg("--take-over").env("TIDEMILL_FAILPOINT", &point));
            wait_until_stopped(&mut next, &point);
            if let Some(before) = before.replace(next) {
                assert_eq!(before.end().status.signal(), Some(KILLED), "at {point}");
            }
        }
        let mut hangs = before.expect("a process that hangs");
        let last = finish(many.command().arg("--take-over"));
        assert_exit(&last, 0);
        let words = format!("pid={}", hangs.pid());
        assert!(said(&last).contains("killed the process") && said(&last).contains(&words), "{}", said(&last));
        assert_eq!(hangs.end().status.signal(), Some(KILLED));
        many.finish_and_audit();
    });
}

/// Who gets the lock is not said; that there is one at a time is.
#[test]
fn of_many_that_want_to_go_on_for_a_process_that_hangs_one_at_a_time_does() {
    let place = Place::new();
    let many = many_cuts(&place, 8);
    let point = "file-published:100:stop";
    let mut hangs = Running::new(many.command().env("TIDEMILL_FAILPOINT", point));
    wait_until_stopped(&mut hangs, point);
    let standbys: Vec<Running> = (0..3).map(|_| Running::new(many.command().arg("--wait"))).collect();
    let others: Vec<Running> = (0..3).map(|_| Running::new(many.command().arg("--take-over"))).collect();
    // Who was killed by another one has a successor of its own.
    let ends: Vec<Output> = others.into_iter().map(Running::end).collect();
    let gone_on = |end: &Output| end.status.signal() == Some(KILLED) || matches!(end.status.code(), Some(0 | 75));
    assert!(ends.iter().all(gone_on), "{:?}", ends.iter().map(said).collect::<Vec<_>>());
    for end in standbys.into_iter().map(Running::end) {
        assert!(end.status.signal() == Some(KILLED) || end.status.success(), "{}", said(&end));
    }
    assert_eq!(hangs.end().status.signal(), Some(KILLED));
    many.finish_and_audit();
}

#[test]
fn a_standby_says_who_runs_and_goes_on_when_that_has_ended() {
    let place = place();
    let mut holder = holder(&place);
    let standby = standby(&place, &["--until-end"]);
    let words = format!("process {}", holder.pid());
    wait_for_words(&place, "log", &words);
    holder.stop();
    assert_exit(&standby.end(), 0);
    assert_each_once(&place.published("play"), 0..1_000);
}

#[test]
fn a_standby_takes_the_admin_address_over_with_the_lock() {
    let place = place();
    let mut first = place.command(&["run", "plays.toml", "--progress", "none", "--set", "admin.listen=127.0.0.1:0"]);
    let mut holder = Running::new(&mut first);
    let admin = address(&place, "plays", holder.child());
    let mut standby = standby(&place, &["--set", &format!("admin.listen={admin}")]);
    wait_for_words(&place, "log", "waiting");
    holder.stop();
    assert_eq!(address(&place, "plays", standby.child()), admin);
    standby.stop();
}

#[test]
fn a_standby_that_is_stopped_ends_with_0_and_has_touched_nothing() {
    let place = place();
    let mut holder = holder(&place);
    for stop in [Signal::TERM, Signal::INT] {
        let mut standby = standby(&place, &["--set", "output.root=other"]);
        wait_for_words(&place, "log", "waiting");
        signal(standby.pid(), stop);
        assert_exit(&standby.end(), 0);
        assert!(!place.path("other").exists(), "an output root was made without the lock");
        assert_eq!(announced(&place), Some(holder.pid()));
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

/// That a process did not take over, and says why.
#[track_caller]
fn assert_refused(take_over: &Output, words: &[&str]) {
    assert_exit(take_over, 75);
    let said = said(take_over);
    for words in ["can't take over", "Nothing was opened"].iter().chain(words) {
        assert!(said.contains(words), "it does not say {words:?}: {said}");
    }
}

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
    std::fs::copy(env!("CARGO_BIN_EXE_tidemill"), &program).expect("copied");
    for (path, mode) in [("", 0o777), (".tidemill", 0o777), (".tidemill/plays", 0o777), (LOCK, 0o666)] {
        std::fs::set_permissions(place.path(path), Permissions::from_mode(mode)).expect("it is ours");
    }
    let command = place.run_command(&take_over);
    let mut copied = Command::new(&program);
    copied.args(command.get_args()).current_dir(place.path(""));
    let pid = format!("process {}", holder.pid());
    for (capabilities, words) in [("-all", "can't be seen"), ("-all,+sys_ptrace,+dac_read_search", "holds it")] {
        assert_refused(&as_nobody(&copied, capabilities), &[&pid, "another user", words]);
        holder.assert_runs();
        assert_eq!(announced(&place), Some(holder.pid()));
    }
    holder.stop();
}

/// Locks the state directory as some process that Tidemill knows nothing of, and writes into the lock file.
fn lock(place: &Place, text: &str) -> File {
    let lock = File::create(place.write(LOCK, "")).expect("the lock file");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("it is free");
    place.write(LOCK, text);
    lock
}

#[test]
fn a_process_that_the_lock_file_names_and_that_does_not_hold_the_lock_is_not_killed() {
    let place = place();
    let _lock = lock(&place, "");
    let take_over = || finish(&mut place.run_command(&["plays.toml", "--take-over"]));
    assert_refused(&take_over(), &["does not say which process"]);

    // It even has the file open.
    let open = File::open(place.path(LOCK)).expect("the lock file");
    let mut stranger = Running(Some(Command::new("tail").args(["-f", "/dev/null"]).stdin(open).spawn().expect("tail")));
    place.write(LOCK, json!({"pid": stranger.pid()}).to_string());
    let pid = format!("process {}", stranger.pid());
    assert_refused(&take_over(), &[&pid, "does not hold the lock", "PID namespace"]);
    stranger.assert_runs();
    // Nor is anybody for one that has ended.
    drop(stranger);
    let mut ended = Command::new("true").spawn().expect("true");
    ended.wait().expect("it ends");
    place.write(LOCK, json!({"pid": ended.id()}).to_string());
    assert_refused(&take_over(), &["is not there", "another machine"]);
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
    let mut inside = Running::new(&mut in_a_pid_namespace(&place.run_command(&["plays.toml"])));
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
    let mut holder = holder(&place);
    assert_refused(
        &finish(&mut in_a_pid_namespace(&take_over)),
        &[&format!("process {}", holder.pid()), "is not there"],
    );
    holder.stop();
}
