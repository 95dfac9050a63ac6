//! A stop must come to an end, whatever the stages do.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill::core::{
    Batch, CutId, DeliveryId, Guarantee, KindSpec, Resume, Role, Shape, Sink, SinkContext, SinkError, SinkKind, State,
};
use tidemill_runtime::{RunConfig, RunError};

use tidemill_harness::inside::until;
use tidemill_harness::{Place, Process, assert_exit, finish, lines, printed, wait_for};

/// A sink that takes nothing, and can't be opened again after its first failure.
#[derive(Clone, Default)]
struct Gone {
    failed: Arc<AtomicBool>,
}

static SPEC: KindSpec = KindSpec {
    name: "gone",
    role: Role::Sink,
    summary: "Takes nothing.",
    details: "",
    options: &[],
    input: Shape::Rows,
    output: Shape::Nothing,
    state: State::Stateful,
    guarantee: Some(Guarantee::AtLeastOnce),
};

fn broken() -> SinkError {
    SinkError::Fatal { source: "it is gone".into() }
}

impl Sink for Gone {
    async fn write(&mut self, _: &Batch, _: DeliveryId) -> Result<(), SinkError> {
        self.failed.store(true, Ordering::SeqCst);
        Err(broken())
    }

    async fn flush(&mut self, _: CutId) -> Result<Resume, SinkError> {
        Ok(Resume::new())
    }
}

#[derive(serde::Deserialize)]
struct NoOptions {}

impl SinkKind for Gone {
    type Config = NoOptions;
    type Sink = Gone;

    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    async fn open(&self, _: &NoOptions, _: &SinkContext, _: Option<Resume>) -> Result<Gone, SinkError> {
        if self.failed.load(Ordering::SeqCst) { Err(broken()) } else { Ok(self.clone()) }
    }
}

/// The plays, with another sink in place of files.
fn with_sink(place: &Place, kind: &str) {
    place.plays("");
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let from = text.find("[sinks.files]").expect("a sink");
    place.write("plays.toml", format!("{}[sinks.last]\nkind = \"{kind}\"\nfrom = [\"dedup\"]\n", &text[..from]));
}

#[test]
fn a_stop_ends_although_a_sink_can_not_be_restored_and_names_it() {
    let place = Place::new();
    with_sink(&place, "gone");
    place.write("data/first", lines(0..1_000));
    let mut registry = tidemill::registry();
    registry.add_sink(Gone::default());
    let config = RunConfig { drain_ms: 300, ..place.config(false) };
    let ended = place.run_inside("plays.toml", &registry, config, async |handle| {
        until(handle, |status| status.stages.iter().any(|stage| stage.name == "last" && stage.restarts > 0)).await;
        handle.stop();
    });
    let error = ended.expect_err("there was no last cut");
    assert!(matches!(&error, RunError::Undrained { stages, .. } if stages.starts_with("`last`")), "{error}");
}

#[test]
fn when_the_reader_of_the_console_has_seen_enough_the_run_goes_on_to_its_end() {
    let place = Place::new();
    with_sink(&place, "console");
    place.write("data/first", lines(0..50_000));
    let mut command = place.run_command(&["plays.toml", "--until-end", "--set", "log.level=info"]);
    let mut child = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut first = String::new();
    BufReader::new(child.take_stdout().expect("a pipe")).read_line(&mut first).expect("a line");
    assert!(first.contains("id000000"), "{first}");
    let output = child.end();
    assert_exit(&output, 0);
    let text = printed(&output);
    assert_eq!(text.matches("nobody reads the output").count(), 1, "{text}");
    assert!(!text.contains("a worker failed"), "{text}");
}

#[test]
fn a_run_whose_console_nobody_reads_obeys_a_signal() {
    let place = Place::new();
    with_sink(&place, "console");
    place.write("data/first", lines(0..1_000));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let log = std::fs::File::create(place.path("log")).expect("a log");
    let mut command = place.run_command(&["plays.toml", "--set", "log.level=info"]);
    let child = Process::start(command.stdout(writer).stderr(log));
    wait_for("the end of demand", || {
        let log = std::fs::read_to_string(place.path("log")).ok()?;
        log.contains("nobody reads the output").then_some(())
    });
    child.stop();
    assert_exit(&finish(&mut place.run_command(&["plays.toml", "--until-end"])), 0);
}
