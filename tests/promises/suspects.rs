//! An event that brings the whole process down.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use tidemill_testkit::{Fault, Faulty, Trigger};

use tidemill_harness::{Place, assert_each_once, finish, lines, printed};

const PLACE: &str = "TIDEMILL_TEST_PLACE";
const KIND: &str = "TIDEMILL_TEST_KIND";
/// SIGABRT.
const ABORTED: i32 = 6;

/// Two portions die with the event in hand, then the event itself twice.
const DEATHS: usize = 4;

/// Runs the topology of the test that started this process, with a stage that aborts it at one event.
#[test]
#[ignore = "it is the process that the test below starts and that dies"]
fn a_process_that_dies() {
    let Some(place) = std::env::var_os(PLACE) else { return };
    let kind = std::env::var(KIND).expect("a kind");
    let place = Place::of_parent(place.into());
    let inner = tidemill_actors::stage_kinds().into_iter().find(|inner| inner.spec().name == kind);
    let mut registry = tidemill::registry();
    let poison = Trigger::Bytes(b"id004321".to_vec());
    registry.add_stage(Arc::new(Faulty::new(inner.expect("the kind"), Fault::Abort, poison)));
    place.run_inside("plays.toml", &registry, place.config(true), async |_| {}).expect("it ends");
}

#[test]
fn an_event_that_aborts_the_process_is_found_by_the_starts_after_and_dead_lettered() {
    for (kind, stage) in [("tsv", "parse"), ("dedup", "dedup")] {
        let place = Place::new();
        place.plays("");
        let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
        place.write("plays.toml", text.replace("rescan =", "read_size = \"16KiB\"\nrescan ="));
        place.write("data/plays", lines(0..10_000));
        let run = || {
            let mut process = Command::new(std::env::current_exe().expect("this program"));
            process.args(["--exact", "suspects::a_process_that_dies", "--ignored", "--nocapture"]);
            finish(process.env(PLACE, place.path("")).env(KIND, kind).env("RUST_BACKTRACE", "0"))
        };
        let deaths = (1..=DEATHS).take_while(|_| run().status.signal() == Some(ABORTED)).count();
        assert_eq!(deaths, DEATHS, "{kind}");
        let last = run();
        assert!(last.status.success(), "{kind}: {}", printed(&last));
        let letters = place.published("_dead_letters");
        assert_eq!(letters.len(), 1, "{kind}: {letters:?}");
        assert_eq!((&letters[0]["stage"], &letters[0]["reason"]), (&stage.into(), &"stage_failed".into()));
        assert!(letters[0]["message"].as_str().expect("a text").contains("the process died on this event"));
        let payload = letters[0]["payload"].as_str().expect("hex");
        let line = lines(4_321..4_322);
        assert_eq!(payload, line.trim_end().bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        let mut events = place.published("play");
        assert_eq!(events.len(), 9_999, "{kind}");
        events.push(serde_json::json!({ "id": "id004321" }));
        assert_each_once(&events, 0..10_000);
        place.verified_rows();
    }
}
