//! Disks that are full: the run says so, waits, loses nothing, and is done when there is room.

use std::process::{Command, Stdio};

use tidemill_harness::{Place, Process, assert_each_once, assert_exit, finish, lines, printed, wait_for};

const EVENTS: u32 = 100_000;
const RUN: [&str; 2] = ["plays.toml", "--until-end"];

fn place() -> Place {
    let place = Place::new();
    // Without compression some 600 KB an hour.
    place.plays("codec = \"null\"");
    place.write("data/plays", lines(0..EVENTS));
    place
}

#[track_caller]
fn assert_complete(place: &Place) {
    assert_each_once(&place.published("play"), 0..EVENTS);
    assert_eq!(place.published("_dead_letters").len(), 0);
    assert_eq!(place.verified_rows(), u64::from(EVENTS));
}

/// A small file system in memory; unmounted at the end.
struct Disk(std::path::PathBuf);

impl Disk {
    /// `None` where it may not be mounted.
    fn new(place: &Place, name: &str, size: &str) -> Option<Self> {
        let path = place.path(name);
        std::fs::create_dir_all(&path).expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path.to_str().unwrap()]).then_some(Self(path))
    }

    fn grow(&self, size: &str) {
        // The other options of the mount are of the namespace outside, and refused in one of our own.
        let only = format!("remount,size={size}");
        assert!(mount(&["--options-mode", "ignore", "-o", &only, self.0.to_str().unwrap()]), "it can be made larger");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(args: &[&str]) -> bool {
    Command::new("mount").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Does the test that is running once more, where it may mount: as root of a user namespace.
fn in_a_namespace_of_its_own(test: &str) {
    const INSIDE: &str = "TIDEMILL_TEST_INSIDE";
    let needed = "this test fills a small file system: run it as a user that may mount one, or allow user namespaces \
                  (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns; seccomp of a container)";
    assert!(std::env::var_os(INSIDE).is_none(), "nothing can be mounted in a user namespace either; {needed}");
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe().expect("the tests"));
    let output = again.args(["--exact", &format!("no_room::{test}"), "--nocapture"]).env(INSIDE, "1").output();
    let output = output.unwrap_or_else(|error| panic!("unshare can't be run ({error}); {needed}"));
    let done = output.status.success() && printed(&output).contains("1 passed");
    assert!(done, "{needed}\n{}", printed(&output));
}

/// Runs until it complains on a disk that is full, makes room, and expects it to come to its end by itself.
fn waits_for_room(test: &str, directory: &str, size: &str) {
    let place = place();
    let Some(disk) = Disk::new(&place, directory, size) else { return in_a_namespace_of_its_own(test) };
    let log = std::fs::File::create(place.path("log")).expect("a file");
    let mut child = Process::start(place.run_command(&RUN).stdout(Stdio::null()).stderr(log));
    let complaint = wait_for("a complaint", || {
        let log = std::fs::read_to_string(place.path("log")).expect("the log");
        let ended = child.status();
        assert!(ended.is_none(), "it has not waited: {ended:?} {log}");
        log.contains("No space left").then_some(log)
    });
    assert!(complaint.contains("inputs wait and nothing is lost") && complaint.contains("Make room"), "{complaint}");
    disk.grow("100m");
    assert_exit(&child.end(), 0);
    assert_complete(&place);
}

#[test]
fn a_full_output_is_waited_for() {
    waits_for_room("a_full_output_is_waited_for", "out", "1m");
}

#[test]
fn a_full_state_directory_is_waited_for() {
    waits_for_room("a_full_state_directory_is_waited_for", ".tidemill", "400k");
}

#[test]
fn a_run_to_the_end_gives_up_when_no_room_comes_and_the_next_one_completes_it() {
    let place = place();
    // A limit on the size of files is what everybody may set.
    let run = place.run_command(&RUN);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    limited.current_dir(place.path(""));
    let stopped = finish(&mut limited);
    assert_exit(&stopped, 69);
    let said = printed(&stopped);
    assert!(said.contains("File too large") && said.contains("nothing is lost"), "{said}");
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_complete(&place);
}
