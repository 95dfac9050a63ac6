//! A process that hangs in the middle of a commit is replaced by another. Never two at once.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use tidemill_harness::generated::many_cuts;
use tidemill_harness::{KILLED, Place, Process, assert_exit, finish, printed, side_by_side, wait_for};

/// Waits until a process is stopped.
#[track_caller]
fn wait_until_stopped(process: &mut Process, point: &str) {
    wait_for(point, || {
        process.assert_runs();
        (process.state()? == 'T').then_some(())
    });
}

/// Each process takes the topology over from one that has stopped in the middle of a commit, and stops there itself; the last one goes
/// on to the end.
#[test]
fn processes_that_hang_between_two_steps_of_a_commit_are_taken_over_and_nothing_changes() {
    // The publisher may be behind the last cut when a process ends.
    let steps = [
        ("logs-synced", "20", Some("1:last")),
        ("ledger-synced", "20", Some("1:last")),
        ("index-synced", "5", None),
        ("file-published", "100", None),
    ];
    side_by_side(&steps, |(step, middle, last)| {
        let place = Place::new();
        let many = many_cuts(&place, 8);
        let mut before: Option<Process> = None;
        for point in ["1", middle, "1:sealing"].into_iter().chain(*last) {
            let point = format!("{step}:{point}:stop");
            let mut command = many.command();
            let mut next = Process::quiet(command.arg("--take-over").env("TIDEMILL_FAILPOINT", &point));
            wait_until_stopped(&mut next, &point);
            if let Some(before) = before.replace(next) {
                assert_eq!(before.end().status.signal(), Some(KILLED), "at {point}");
            }
        }
        let hangs = before.expect("a process that hangs");
        let last = finish(many.command().arg("--take-over"));
        assert_exit(&last, 0);
        let words = format!("pid={}", hangs.id());
        assert!(printed(&last).contains("killed the process") && printed(&last).contains(&words), "{}", printed(&last));
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
    let mut hangs = Process::quiet(many.command().env("TIDEMILL_FAILPOINT", point));
    wait_until_stopped(&mut hangs, point);
    let standbys: Vec<Process> = (0..3).map(|_| Process::quiet(many.command().arg("--wait"))).collect();
    let others: Vec<Process> = (0..3).map(|_| Process::quiet(many.command().arg("--take-over"))).collect();
    // Who was killed by another one has a successor of its own.
    let ends: Vec<Output> = others.into_iter().map(Process::end).collect();
    let gone_on = |end: &Output| end.status.signal() == Some(KILLED) || matches!(end.status.code(), Some(0 | 75));
    assert!(ends.iter().all(gone_on), "{:?}", ends.iter().map(printed).collect::<Vec<_>>());
    for end in standbys.into_iter().map(Process::end) {
        assert!(end.status.signal() == Some(KILLED) || end.status.success(), "{}", printed(&end));
    }
    assert_eq!(hangs.end().status.signal(), Some(KILLED));
    many.finish_and_audit();
}
