//! When hours close while nothing comes: by the clock, as far as a source has proven that there is nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tidemill_core::{
    Cure, Framing, Idle, KindSpec, Moved, Origin, PartitionPosition, Polled, RawChunk, Role, Shape, Source,
    SourceContext, SourceError, SourceKind, State,
};

use tidemill_harness::inside::until;
use tidemill_harness::minutes::{add_lines, files, minutes, sealed};
use tidemill_harness::{HOUR, Place, manifests, wait_for};

/// A second type, `other`, beside `play`; the first column says which one an event is of.
fn two_types(place: &Place, of_play: &str, more: &str) {
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let other = format!("[types.other]\nschema = \"play.avsc\"\ntime = \"at\"\nid = [\"id\"]\n[types.play]\n{of_play}");
    let text = text.replace("[types.play]", &other).replace("{ const = \"play\" }", "{ column = 0 }");
    place.write("plays.toml", text + more);
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

#[test]
fn the_last_hour_of_files_that_have_gone_quiet_closes_by_the_clock_and_the_next_is_not_late() {
    let place = Place::new();
    minutes(&place, "100ms", &files("50ms"));
    // Long ago: the clock goes on from there, it does not jump to now.
    place.write("data/first", format!("one\t{}\t\n", HOUR + 59_700));
    let child = place.follow(&[]);
    let manifest = sealed(&place, "play", HOUR);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"quiet".into(), &1.into()), "{manifest}");
    place.append("data/first", &format!("two\t{}\t\n", HOUR + 150_000));
    place.write("data/second", format!("three\t{}\t\n", HOUR + 179_700));
    let manifest = sealed(&place, "play", HOUR + 120_000);
    assert_eq!((&manifest["reason"], &manifest["count"]), (&"quiet".into(), &2.into()), "{manifest}");
    child.stop();
    assert_eq!(manifests(&place.out(), "_dead_letters").len(), 0);
}

#[test]
fn an_event_from_the_future_moves_the_watermark_no_further_than_the_present() {
    let place = Place::new();
    // Nothing is quiet for a day: only events move the watermark.
    minutes(&place, "1m", &files("1d"));
    let past_ms = now_ms() - 600_000;
    place.write("data/first", format!("past\t{past_ms}\t\n"));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let seen = |wanted: u64| {
        let status: Value = serde_json::from_slice(&place.tidemill(&["status", "plays", "--json"]).stdout).ok()?;
        let stages = status["stages"].as_array()?.clone();
        let sink = stages.into_iter().find(|stage| stage["name"] == "files")?;
        (sink["tally"]["sent"].as_u64()? >= wanted).then_some(())
    };
    wait_for("the event of the past", || seen(1));
    place.append("data/first", &format!("ahead\t{}\t\n", now_ms() + 600_000));
    sealed(&place, "play", past_ms - past_ms % 60_000);
    place.append("data/first", &format!("in time\t{}\t\n", now_ms()));
    wait_for("the event in time", || seen(3));
    child.stop();
}

#[test]
fn a_type_that_says_where_it_comes_from_waits_for_nothing_else() {
    let place = Place::new();
    minutes(&place, "0ms", &files("1d"));
    two_types(&place, "comes_from = [\"lines/data/plays\"]", "");
    // This one shows nothing after its first minute, and is not idle: whoever waits for it waits.
    place.write("data/stuck/one", format!("other\to1\t{HOUR}\t\nplay\tp0\t{HOUR}\t\n"));
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("\"data/*\"", "\"data/plays/*\", \"data/stuck/*\""));
    place.write("data/plays/one", format!("play\tp1\t{}\t\nother\to2\t{}\t\n", HOUR + 1_000, HOUR + 61_000));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let manifest = sealed(&place, "play", HOUR);
    assert_eq!(manifest["reason"], "watermark", "{manifest}");
    place.append("data/plays/one", &format!("play\tp2\t{}\t\n", HOUR + 121_000));
    sealed(&place, "play", HOUR + 60_000);
    assert_eq!(manifests(&place.out(), "other").len(), 0, "it waits for all that it could come from");
    place.append("data/stuck/one", &format!("other\to3\t{}\t\n", HOUR + 121_000));
    sealed(&place, "other", HOUR + 60_000);
    child.stop();
}

#[test]
fn counts_over_types_close_when_all_is_quiet_although_one_of_the_types_has_no_events() {
    let place = Place::new();
    minutes(&place, "100ms", &files("50ms"));
    let counts = "\n[stages.counts]\nkind = \"hourly\"\nfrom = [\"dedup\"]\nmeasures = { events = \"count()\" }\n\
                  [sinks.count_files]\nkind = \"avro_files\"\nfrom = [\"counts\"]\n";
    two_types(&place, "", counts);
    place.write("data/first", format!("play\tone\t{}\t\n", HOUR + 59_700));
    let child = place.follow(&[]);
    assert_eq!(sealed(&place, "counts", HOUR)["count"], 1);
    child.stop();
    assert_eq!(manifests(&place.out(), "other").len(), 0, "a type that never came has no hours");
}

/// A source that gives one event and is quiet then, with fresh proof; from then on it fails whenever that is asked for.
#[derive(Clone, Default)]
struct OneEvent {
    fails: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
}

struct OneEventSource(OneEvent, SourceContext, u64);

static ONE_EVENT: KindSpec = KindSpec {
    name: "one_event",
    role: Role::Source,
    summary: "Gives one event.",
    details: "",
    options: &[],
    input: Shape::Nothing,
    output: Shape::Lines,
    state: State::Stateful,
    guarantee: None,
};

impl SourceKind for OneEvent {
    fn spec(&self) -> &'static KindSpec {
        &ONE_EVENT
    }

    fn open(&self, context: &SourceContext) -> Result<Box<dyn Source>, SourceError> {
        let at = context.positions.get("p").map_or(0, |position| position.next);
        Ok(Box::new(OneEventSource(self.clone(), context.clone(), at)))
    }
}

impl Source for OneEventSource {
    fn poll(&mut self) -> Result<Polled, SourceError> {
        if self.2 > 0 && self.0.fails.load(Ordering::SeqCst) {
            self.0.failures.fetch_add(1, Ordering::SeqCst);
            return Err(SourceError { message: "it can't be read".into(), cure: Cure::Reopen, source: None });
        }
        if self.2 > 0 {
            return Ok(Polled::Idle(Duration::from_millis(5)));
        }
        let line = format!("one\t{}\t\n", HOUR + 59_500);
        let (source, partition, next) = (self.1.name.clone(), "p".into(), line.len() as u64);
        self.2 = next;
        Ok(Polled::Chunk(RawChunk {
            origin: Arc::new(Origin { source, partition, first: 0, next, enters: None }),
            bytes: line.into_bytes().into(),
            framing: Framing::Lines,
            arrived_at_ms: now_ms(),
        }))
    }

    fn moved(&mut self) -> Moved {
        let at = PartitionPosition { next: self.2, resume: Arc::default(), ended: false };
        Moved { positions: [("p".into(), at)].into(), ..Moved::default() }
    }

    fn idle(&self) -> Idle {
        Idle { proven_ms: (self.2 > 0).then(now_ms), ..Idle::default() }
    }
}

#[test]
fn a_source_that_fails_for_too_long_holds_nothing_and_is_named_in_the_manifests_also_behind_a_pond() {
    let place = Place::new();
    let others = format!("{}\n[sources.more]\nkind = \"one_event\"", files("50ms"));
    minutes(&place, "100ms", &others);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    let again = "\n[sinks.again]\nkind = \"avro_files\"\nfrom = [\"dedup\"]\npond = {}\npath = \"again/{year}{month}{day}T{hour}{minute}\"\n";
    let text = text.replace("[\"lines\"]", "[\"lines\", \"more\"]");
    place.write("plays.toml", text + again);
    add_lines(&place, "hold_at_most = \"1s\"");
    place.write("data/first", format!("two\t{HOUR}\t\n"));
    let one = OneEvent::default();
    one.fails.store(true, Ordering::SeqCst);
    let mut registry = tidemill::registry();
    registry.add_source(Arc::new(one.clone()));
    place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            until(handle, |_| !manifests(&place.out(), "again").is_empty()).await;
            handle.stop();
        })
        .expect("it goes on");
    for below in ["play", "again"] {
        let manifest = &manifests(&place.out(), below)[0];
        assert_eq!((&manifest["reason"], &manifest["count"]), (&"silent".into(), &2.into()), "{manifest}");
        assert_eq!(manifest["not_waited_for"], serde_json::json!({ "more": ["p"] }));
    }
}

#[test]
fn a_source_that_fails_proves_nothing_and_holds_its_hours_whatever_others_prove() {
    let place = Place::new();
    let others = format!("{}\n[sources.more]\nkind = \"one_event\"", files("50ms"));
    minutes(&place, "100ms", &others);
    let text = std::fs::read_to_string(place.path("plays.toml")).expect("the topology");
    place.write("plays.toml", text.replace("[\"lines\"]", "[\"lines\", \"more\"]"));
    place.write("data/first", format!("two\t{HOUR}\t\n"));
    let one = OneEvent::default();
    one.fails.store(true, Ordering::SeqCst);
    let mut registry = tidemill::registry();
    registry.add_source(Arc::new(one.clone()));
    place
        .run_inside("plays.toml", &registry, place.config(false), async |handle| {
            // By then the other source has proven again and again that it has nothing more.
            until(handle, |_| one.failures.load(Ordering::SeqCst) >= 3).await;
            let begin_ms = now_ms();
            until(handle, |_| now_ms() > begin_ms + 1_500).await;
            assert_eq!(manifests(&place.out(), "play").len(), 0, "what may still come is waited for");
            one.fails.store(false, Ordering::SeqCst);
            until(handle, |_| !manifests(&place.out(), "play").is_empty()).await;
            handle.stop();
        })
        .expect("it goes on");
    assert_eq!(manifests(&place.out(), "play")[0]["count"], 2);
}

#[test]
fn a_partition_that_gives_nothing_but_broken_records_holds_no_hour_for_ever() {
    let place = Place::new();
    minutes(&place, "0ms", &files("1d"));
    add_lines(&place, "hold_at_most = \"2s\"");
    place.write("data/a", format!("a0\t{HOUR}\t\n"));
    place.write("data/b", format!("b0\t{HOUR}\t\n"));
    let child = place.follow(&["--set", "cut.interval=20ms"]);
    let mut number = 0;
    let sealed = wait_for("the seal", || {
        number += 1;
        place.append("data/a", &format!("a{number}\t{}\t\n", HOUR + number * 1_000));
        place.append("data/b", &format!("broken {number}\n"));
        manifests(&place.out(), "play").into_iter().next()
    });
    child.stop();
    assert_eq!(
        (&sealed["reason"], &sealed["not_waited_for"]["lines"][0]),
        (&"silent".into(), &"data/b".into()),
        "{sealed:#}"
    );
}
