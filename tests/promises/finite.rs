//! Runs to the end of the input: nothing of them is late because of anything else of them, they have fixed ends, and
//! what is interrupted is completed.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use tidemill_harness::{HOUR, KILLED, Place, Process, assert_exit, finish, manifests, printed, wait_for};

const HOUR_MS: i64 = 3_600_000;
const RUN: [&str; 2] = ["plays.toml", "--until-end"];

/// Rows of sealed hours, and how many hours there are.
fn sealed(place: &Place) -> (u64, usize) {
    let manifests = manifests(&place.out(), "play");
    (manifests.iter().filter_map(|manifest| manifest["count"].as_u64()).sum(), manifests.len())
}

/// One event in the middle of each hour.
fn hours(name: &str, hours: impl Iterator<Item = i64>) -> String {
    hours.map(|hour| format!("{name}{hour}\t{}\t\n", HOUR + hour * HOUR_MS + HOUR_MS / 2)).collect()
}

/// Runs to a point of the runtime, and is killed there.
#[track_caller]
fn killed_at(place: &Place, point: &str, more: &[&str]) {
    let run = finish(place.run_command(&[&RUN[..], more].concat()).env("TIDEMILL_FAILPOINT", point));
    assert_eq!(run.status.signal(), Some(KILLED), "{}", printed(&run));
}

/// Hours are sealed without delay.
fn strict(place: &Place, sink: &str) {
    place.plays(sink);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("allowed_lateness = \"30d\"", "allowed_lateness = \"0ms\""));
}

/// Two months in one file, one behind the other, and cuts between any two reads.
#[test]
fn no_event_is_late_because_of_another_one_of_the_run_unless_hours_are_sealed_on_the_way() {
    let backfill = |more: &[&str]| {
        let place = Place::new();
        strict(&place, "");
        let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
        place.write("plays.toml", text.replace("rescan =", "read_size = \"512B\"\nrescan ="));
        place.write("data/a", hours("a", (0..720).rev()) + &hours("b", 0..720));
        let args = [&RUN[..], &["--set", "cut.interval=1ms", "--set", "runtime.replay=2KiB"], more].concat();
        assert_exit(&finish(&mut place.run_command(&args)), 0);
        (sealed(&place), place.published("_dead_letters").len())
    };
    assert_eq!(backfill(&[]), ((1_440, 720), 0));
    let ((rows, _), late) = backfill(&["--seal", "watermark"]);
    assert!(late > 0 && rows + late as u64 == 1_440, "{rows} rows, {late} late");
}

#[test]
fn a_run_that_is_started_again_goes_to_the_ends_that_it_began_with() {
    let place = Place::new();
    strict(&place, "");
    place.write("data/a", hours("a", 0..40));
    killed_at(&place, "effects-done:1", &[]);
    place.write("data/a", hours("a", 0..40) + &hours("more", 0..40));
    place.write("data/b", hours("b", 0..40));
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(sealed(&place), (40, 40));
    // Those hours are sealed now: what the next run finds for them is late.
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!((sealed(&place), place.published("_dead_letters").len()), ((40, 40), 80));
}

#[test]
fn a_run_that_was_interrupted_while_it_sealed_is_completed_before_anything_else_is_read() {
    let place = Place::new();
    strict(&place, "");
    place.write("data/a", hours("a", 0..600));
    killed_at(&place, "published:1", &[]);
    let (rows, _) = sealed(&place);
    assert!(0 < rows && rows < 600, "{rows} rows are sealed by the first step");
    place.write("data/a", hours("a", 0..600) + &hours("more", 598..603));
    let mut command = place.run_command(&["plays.toml", "--set", "log.level=info"]);
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let follows = Process::start(command.stdout(Stdio::null()).stderr(log));
    // Two of five are late, and the last hour stays open.
    let all = || (sealed(&place).0 == 602).then_some(());
    wait_for("the rest to be sealed, and what came later", all);
    drop(follows);
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!((sealed(&place), place.published("_dead_letters").len()), ((603, 603), 2));
    let log = std::fs::read_to_string(place.path("log")).expect("the log");
    assert!(log.contains("was interrupted") && log.contains("is complete"), "{log}");
}

#[test]
fn nothing_is_sealed_when_a_file_is_missing_or_damaged_and_the_next_run_goes_on() {
    let place = Place::new();
    strict(&place, "");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("rescan =", "read_size = \"512B\"\nrescan ="));
    place.write("data/a", hours("a", 0..600));
    // It begins like a file that zstd has packed.
    std::fs::write(place.path("data/b"), [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0]).expect("written");
    let damaged = finish(&mut place.run_command(&RUN));
    assert_exit(&damaged, 75);
    assert!(printed(&damaged).contains("data/b`"), "{}", printed(&damaged));
    assert_eq!(sealed(&place), (0, 0));
    place.write("data/b", hours("b", 0..10));
    // The first cut comes long before the end of the file.
    killed_at(&place, "effects-done:1", &["--set", "runtime.replay=2KiB"]);
    std::fs::rename(place.path("data/a"), place.path("a")).expect("moved");
    let missing = finish(&mut place.run_command(&RUN));
    assert_exit(&missing, 69);
    assert!(printed(&missing).contains("`data/a`"), "{}", printed(&missing));
    assert_eq!(sealed(&place), (0, 0));
    std::fs::rename(place.path("a"), place.path("data/a")).expect("moved");
    assert_exit(&finish(&mut place.run_command(&RUN)), 0);
    assert_eq!(sealed(&place), (610, 600));
}

#[test]
fn hours_that_a_limit_makes_short_say_so_and_so_does_the_run() {
    let place = Place::new();
    strict(&place, "path = \"play/{who}/{year}{month}{day}{hour}\"");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("name = \"plays\"", "name = \"plays\"\nmax_path_values = 2"));
    let lines: String = (0..5).map(|who| format!("a{who}\t{HOUR}\tw{who}\n")).collect();
    place.write("data/a", lines);
    let run = finish(&mut place.run_command(&RUN));
    assert_exit(&run, 1);
    assert!(printed(&run).contains("3 events were refused"), "{}", printed(&run));
    let refused: Vec<_> = manifests(&place.out(), "play").iter().map(|manifest| manifest["refused"].clone()).collect();
    assert_eq!(refused, [3, 3], "each directory of the hour says it of the hour");
    let verify = finish(&mut place.command(&["verify", "out"]));
    assert_exit(&verify, 0);
    assert!(printed(&verify).contains("all is well, 3 refused"), "{}", printed(&verify));
    let hour = tidemill_core::format_time_ms(HOUR);
    let shown = place.tidemill(&["hours", "show", "play", &hour]);
    assert!(printed(&shown).contains("refused          3 by a limit"), "{}", printed(&shown));
}
