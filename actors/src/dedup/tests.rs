//! `dedup` against its definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{StringViewArray, TimestampMillisecondArray};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::json;
use tidemill_core::{Batch, Effects, EventType, Hour, Limits, Reason, Severity, Stage, StageInput};

use super::kind;
use super::support::{HOUR, Logs, batch, build, build_within, event_type, input, limits, process, seals};

const WINDOW: i64 = 4 * HOUR;

fn plays() -> Arc<EventType> {
    event_type("play", r#"{"name":"key","type":"string"}"#, &["key"])
}

fn planned(types: &[Arc<EventType>]) -> StageInput {
    input("dedup", json!({ "window": WINDOW }), types, limits())
}

fn events(of: &Arc<EventType>, rows: &[(i64, String)]) -> Batch {
    let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0)).with_timezone("UTC");
    let keys = StringViewArray::from_iter_values(rows.iter().map(|row| &row.1));
    batch(of, vec![Arc::new(times), Arc::new(keys)])
}

fn one(stage: &mut dyn Stage, of: &Arc<EventType>, time: i64, key: &str) -> &'static str {
    verdicts(&process(stage, events(of, &[(time, key.to_owned())])), 1)[0]
}

/// What became of each row of a call, where dead letters are told apart by their order.
fn verdicts(effects: &Effects, rows: usize) -> Vec<&'static str> {
    let mut verdicts = vec!["refused"; rows];
    for batch in &effects.batches {
        batch.indexes().for_each(|row| verdicts[row] = "taken");
    }
    if rows == 1 && effects.tally.duplicates == 1 {
        verdicts[0] = "duplicate";
    }
    if let (1, Some(letter)) = (rows, effects.dead.first()) {
        verdicts[0] = letter.reason.as_str();
    }
    verdicts
}

fn keep(logs: &mut Logs, effects: &Effects) {
    for (name, bytes) in &effects.appends {
        assert!(!bytes.is_empty() && bytes.len() % 16 == 0);
        logs.0.entry(name.clone()).or_default().extend_from_slice(bytes);
    }
    for name in &effects.retired {
        assert!(logs.0.remove(name).is_some(), "{name:?} was never there");
    }
}

/// The definition, by looking at every event taken so far.
#[derive(Default)]
struct Oracle {
    taken: Vec<(String, i64, String)>,
    forgotten_before: std::collections::BTreeMap<String, i64>,
    sealed: std::collections::BTreeMap<String, i64>,
}

impl Oracle {
    fn judge(&mut self, of: &str, time: i64, key: &str) -> &'static str {
        let bucket = |time: i64| time.div_euclid(WINDOW / 4);
        if self.forgotten_before.get(of).is_some_and(|forgotten| bucket(time) - 4 < *forgotten) {
            return "too_old_to_judge";
        }
        let same = |known: &(String, i64, String)| {
            known.0 == of && known.2 == key && (bucket(known.1) - bucket(time)).abs() <= 4
        };
        if self.taken.iter().any(same) {
            return "duplicate";
        }
        if self.sealed.get(of).is_some_and(|sealed| Hour::of(time, HOUR).end_ms() <= *sealed) {
            return "late";
        }
        self.taken.push((of.to_owned(), time, key.to_owned()));
        "taken"
    }

    /// The horizon of a type moves.
    fn seal(&mut self, of: &str, before: i64) {
        let horizon = self.sealed.entry(of.to_owned()).or_insert(i64::MIN);
        *horizon = (*horizon).max(before);
        self.forgotten_before.insert(of.to_owned(), horizon.div_euclid(WINDOW / 4) - 8);
    }
}

#[test]
fn random_streams_come_out_as_defined_across_seals_and_restores() {
    for seed in 0..12 {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut below = move |most: u64| (random.next_u64() % most) as i64;
        let types = [plays(), event_type("skip", r#"{"name":"key","type":"string"}"#, &["key"])];
        let planned = planned(&types);
        let (mut logs, mut oracle) = (Logs::default(), Oracle::default());
        // All in memory, nothing in memory from cut to cut, or the buckets that were added to last.
        let memory_bytes = [512 << 20, 0, 3_000][seed as usize % 3];
        let build = |snapshot: Option<&[u8]>, logs: &Logs| {
            build_within(&*kind(), &planned, snapshot, logs, memory_bytes).unwrap()
        };
        let mut stage = build(None, &logs);
        // From before 1970 on, so that buckets have negative numbers too.
        let mut now = -3 * WINDOW;
        let mut seen = BTreeMap::<&str, u64>::new();
        for step in 0..300 {
            now += below(HOUR as u64 / 2);
            let of = &types[below(2) as usize];
            let rows: Vec<(i64, String)> = (0..1 + below(40))
                .map(|_| {
                    let back = if below(4) == 0 { below(14 * HOUR as u64) } else { below(HOUR as u64) };
                    // Half of the keys are hex ids, of which few differ.
                    let key = below(60);
                    (now - back, if key % 2 == 0 { format!("{key:032x}") } else { format!("key {key}") })
                })
                .collect();
            let effects = process(&mut *stage, events(of, &rows));
            let expected: Vec<_> = rows.iter().map(|(time, key)| oracle.judge(&of.name, *time, key)).collect();
            let taken: Vec<bool> = verdicts(&effects, rows.len()).iter().map(|verdict| *verdict == "taken").collect();
            assert_eq!(taken, expected.iter().map(|verdict| *verdict == "taken").collect::<Vec<_>>(), "{seed} {step}");
            let number = |wanted: &str| expected.iter().filter(|verdict| **verdict == wanted).count() as u64;
            assert_eq!(effects.tally.duplicates, number("duplicate"), "seed {seed} step {step}");
            assert_eq!(effects.tally.late, number("late"), "seed {seed} step {step}");
            assert_eq!(effects.tally.dead, number("too_old_to_judge"), "seed {seed} step {step}");
            let sealed = oracle.sealed.get(&*of.name).copied().unwrap_or(i64::MIN);
            let mut noted = BTreeMap::<Hour, u64>::new();
            let duplicates = rows.iter().zip(&expected).filter(|(_, verdict)| **verdict == "duplicate");
            let hours = duplicates.map(|((time, _), _)| Hour::of(*time, HOUR));
            hours.filter(|hour| hour.end_ms() > sealed).for_each(|hour| *noted.entry(hour).or_default() += 1);
            let notes: Vec<_> = effects.notes.iter().map(|note| (note.hour, note.duplicates)).collect();
            assert_eq!(notes, noted.into_iter().collect::<Vec<_>>());
            expected.iter().for_each(|verdict| *seen.entry(verdict).or_default() += 1);
            keep(&mut logs, &effects);
            if below(3) == 0 {
                let sealed = now - below(2 * HOUR as u64);
                oracle.seal(&of.name, sealed);
                let (mut effects, cut) = (Effects::default(), 1_000 + step);
                stage.seal(&tidemill_core::Seals { cut, ..seals(&of.name, sealed) }, &mut effects).unwrap();
                keep(&mut logs, &effects);
            }
            if below(10) == 0 {
                // Each barrier begins with its cut.
                let mut effects = Effects::default();
                let seals = tidemill_core::Seals { cut: 1_000 + step, ..tidemill_testkit::seals() };
                stage.seal(&seals, &mut effects).unwrap();
                let snapshot = stage.snapshot(&mut effects).unwrap();
                keep(&mut logs, &effects);
                if below(2) == 0 {
                    stage = build(Some(&snapshot), &logs);
                }
            }
        }
        assert!(logs.0.len() <= 9 + 8, "old Logs are retired: {:?}", logs.0.keys());
        for verdict in ["taken", "duplicate", "late", "too_old_to_judge"] {
            assert!(seen.get(verdict).is_some_and(|count| *count > 20), "{verdict}: {seen:?}");
        }
    }
}

#[test]
fn the_same_key_of_two_types_is_two_events() {
    let (plays, skips) = (plays(), event_type("skip", r#"{"name":"key","type":"string"}"#, &["key"]));
    let mut stage = build(&*kind(), &planned(&[plays.clone(), skips.clone()]), None, &Logs::default()).unwrap();
    for key in ["00000000000000000000000000000001", "plain"] {
        assert_eq!(one(&mut *stage, &plays, 0, key), "taken");
        assert_eq!(one(&mut *stage, &skips, 0, key), "taken");
        assert_eq!(one(&mut *stage, &plays, 0, key), "duplicate");
        assert_eq!(one(&mut *stage, &skips, 0, key), "duplicate");
    }
}

#[test]
fn the_window_ends_between_one_and_one_and_a_quarter() {
    let plays = plays();
    let judge = |first: i64, second: i64| {
        let mut stage = build(&*kind(), &planned(std::slice::from_ref(&plays)), None, &Logs::default()).unwrap();
        assert_eq!(one(&mut *stage, &plays, first, "a"), "taken");
        one(&mut *stage, &plays, second, "a")
    };
    assert_eq!(judge(0, WINDOW), "duplicate");
    assert_eq!(judge(0, WINDOW + HOUR - 1), "duplicate");
    assert_eq!(judge(0, WINDOW + HOUR), "taken");
    assert_eq!(judge(HOUR - 1, WINDOW + HOUR - 1), "duplicate");
    assert_eq!(judge(WINDOW, 0), "duplicate");
    assert_eq!(judge(WINDOW + HOUR, HOUR - 1), "taken");
}

#[test]
fn a_repeat_of_a_sealed_hour_is_a_duplicate_and_a_new_event_is_late() {
    let plays = plays();
    let mut stage = build(&*kind(), &planned(std::slice::from_ref(&plays)), None, &Logs::default()).unwrap();
    assert_eq!(one(&mut *stage, &plays, 5, "a"), "taken");
    stage.seal(&seals("play", HOUR), &mut Effects::default()).unwrap();
    let effects = process(&mut *stage, events(&plays, &[(5, "a".into())]));
    assert_eq!((effects.tally.duplicates, effects.notes.len()), (1, 0), "the manifest is out already");
    assert_eq!(one(&mut *stage, &plays, 5, "b"), "late");
    assert_eq!(one(&mut *stage, &plays, 5, "b"), "late", "a late event is not remembered");
    assert_eq!(one(&mut *stage, &plays, HOUR, "b"), "taken");
    assert_eq!(one(&mut *stage, &plays, 5, "b"), "duplicate", "of the one that was taken");
}

#[test]
fn partitions_of_different_days_are_all_judged_until_their_hours_are_sealed() {
    let plays = plays();
    let mut stage = build(&*kind(), &planned(std::slice::from_ref(&plays)), None, &Logs::default()).unwrap();
    let mut logs = Logs::default();
    for hour in 0..24 {
        for day in [0, 2, 4] {
            let time = (day * 24 + hour) * HOUR;
            let effects =
                process(&mut *stage, events(&plays, &[(time, format!("{day} {hour}")), (time, "same".into())]));
            assert_eq!(effects.tally.dead + effects.tally.late, 0);
            keep(&mut logs, &effects);
        }
    }
    let all = logs.0.len();
    let mut effects = Effects::default();
    stage.seal(&seals("play", 2 * 24 * HOUR), &mut effects).unwrap();
    assert_eq!(effects.retired.len(), 24, "the first day's, which lies more than two windows back, of {all}");
    keep(&mut logs, &effects);
    assert_eq!(one(&mut *stage, &plays, 0, "new"), "too_old_to_judge");
    assert_eq!(one(&mut *stage, &plays, 2 * 24 * HOUR, "2 0"), "duplicate");
    assert_eq!(one(&mut *stage, &plays, 2 * 24 * HOUR - WINDOW, "new"), "late", "but judged");
    let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
    assert!(build(&*kind(), &planned(&[plays]), Some(&snapshot), &logs).is_ok());
}

#[test]
fn a_type_that_never_comes_keeps_no_ids_and_a_slow_one_keeps_its_own() {
    let types = [plays(), event_type("skip", r#"{"name":"key","type":"string"}"#, &["key"])];
    let [plays, skips] = &types;
    let input = planned(&types);
    let mut logs = Logs::default();
    let mut stage = build(&*kind(), &input, None, &logs).unwrap();
    let mut cut = 0;
    // Each has an id in the first bucket, and then plays alone go on.
    let mut pass = |stage: &mut Box<dyn Stage>, logs: &mut Logs, of: &str, before_ms: i64| {
        cut += 1;
        let mut effects = Effects::default();
        stage.seal(&tidemill_core::Seals { cut, ..seals(of, before_ms) }, &mut effects).unwrap();
        keep(logs, &effects);
        let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
        *stage = build(&*kind(), &input, Some(&snapshot), logs).unwrap();
    };
    keep(&mut logs, &process(&mut *stage, events(skips, &[(0, "s".into())])));
    for bucket in 0..100 {
        let time = bucket * (WINDOW / 4);
        keep(&mut logs, &process(&mut *stage, events(plays, &[(time, format!("{bucket}"))])));
        pass(&mut stage, &mut logs, "play", time);
        assert!(logs.0.len() <= 9 + 1, "{:?}", logs.0.keys());
    }
    assert_eq!(one(&mut *stage, skips, 0, "s"), "duplicate", "it may still come");
    assert_eq!(one(&mut *stage, plays, 0, "0"), "too_old_to_judge", "by its own type");
    // A bucket that was forgotten comes back for the slow type, under another name.
    let effects = process(&mut *stage, events(skips, &[(20 * (WINDOW / 4), "t".into())]));
    assert_eq!(effects.appends[0].0.name, "ids-20-100");
    keep(&mut logs, &effects);
    pass(&mut stage, &mut logs, "skip", 21 * (WINDOW / 4));
    assert!(!logs.0.keys().any(|name| name.name.starts_with("ids-0-")), "{:?}", logs.0.keys());
    assert_eq!(one(&mut *stage, skips, 20 * (WINDOW / 4), "t"), "duplicate");
    assert_eq!(one(&mut *stage, skips, 20 * (WINDOW / 4), "u"), "late", "but judged");
}

#[test]
fn a_batch_without_duplicates_passes_as_it_is() {
    let plays = plays();
    let mut stage = build(&*kind(), &planned(std::slice::from_ref(&plays)), None, &Logs::default()).unwrap();
    let rows = [(0, "a".into()), (1, "b".into()), (2, "a".into())];
    let effects = process(&mut *stage, events(&plays, &rows[..2]));
    assert!(effects.batches[0].selection.is_none());
    let effects = process(&mut *stage, events(&plays, &rows));
    assert!(effects.batches.is_empty(), "no empty batch is sent");
    let effects = process(&mut *stage, events(&plays, &[(0, "c".into()), (0, "c".into())]));
    assert_eq!(effects.batches[0].selection.as_deref(), Some(&[0][..]));
}

#[test]
fn a_damaged_state_and_another_window_are_refused() {
    let plays = plays();
    let planned = planned(std::slice::from_ref(&plays));
    let mut logs = Logs::default();
    let mut stage = build(&*kind(), &planned, None, &logs).unwrap();
    keep(&mut logs, &process(&mut *stage, events(&plays, &[(0, "a".into()), (0, "b".into())])));
    let snapshot = stage.snapshot(&mut Effects::default()).unwrap();
    let refused = |snapshot: &[u8], planned: &StageInput, logs: &Logs| {
        build(&*kind(), planned, Some(snapshot), logs).err().expect("it is refused")
    };
    let mut short = logs.clone();
    short.0.values_mut().for_each(|bytes| bytes.truncate(31));
    assert!(refused(&snapshot, &planned, &short).contains("damaged"));
    let mut twice = logs.clone();
    twice.0.values_mut().for_each(|bytes| bytes.copy_within(..16, 16));
    assert!(refused(&snapshot, &planned, &twice).contains("damaged"));
    let mut flipped = logs.clone();
    flipped.0.values_mut().for_each(|bytes| bytes[7] ^= 1);
    assert!(refused(&snapshot, &planned, &flipped).contains("checksum"));
    assert!(refused(&snapshot, &planned, &Logs::default()).contains("can't read"));
    let other = postcard::to_stdvec(&(vec![9u8], Vec::<(String, Option<Vec<u8>>)>::new())).unwrap();
    assert!(refused(&other, &planned, &logs).contains("version"));
    let wider = input("dedup", json!({ "window": 2 * WINDOW }), std::slice::from_ref(&plays), limits());
    assert!(refused(&snapshot, &wider, &logs).contains("window"));
}

#[test]
fn no_number_of_buckets_refuses_an_event() {
    let plays = plays();
    let few = Limits { max_open_hours: 3, ..limits() };
    let planned = input("dedup", json!({ "window": WINDOW }), std::slice::from_ref(&plays), few);
    let mut stage = build(&*kind(), &planned, None, &Logs::default()).unwrap();
    let scattered: Vec<(i64, String)> = (0..50).map(|at| (at * WINDOW, format!("id{at}"))).collect();
    assert_eq!(process(&mut *stage, events(&plays, &scattered)).tally.sent, 50);
    assert_eq!(process(&mut *stage, events(&plays, &scattered)).tally.duplicates, 50);
}

#[test]
fn options_that_do_not_fit_the_types_are_found() {
    let fields = r#"{"name":"key","type":"string"},{"name":"maybe","type":["null","string"]}"#;
    let of = event_type("play", fields, &[]);
    let plan = |options| kind().plan(&input("dedup", options, std::slice::from_ref(&of), limits()));
    assert!(plan(json!({ "window": WINDOW, "keys": ["key", "at"] })).is_ok());
    assert_eq!(plan(json!({ "window": WINDOW })).unwrap_err()[0].code, "no-id");
    let findings = plan(json!({ "window": WINDOW, "keys": ["kye", "maybe"] })).unwrap_err();
    let codes: Vec<_> = findings.iter().map(|finding| (finding.code, finding.item.as_deref())).collect();
    assert_eq!(codes, [("unknown-field", Some("0")), ("bad-key", Some("1"))]);
    assert_eq!(findings[0].help.as_deref(), Some("did you mean `key`?"));
    let warnings = kind().warnings(&input("dedup", json!({ "window": 60_000 }), &[plays()], limits()));
    assert_eq!((warnings.len(), warnings[0].severity), (1, Severity::Warning));
    assert!(kind().warnings(&planned(&[plays()])).is_empty());
    assert_eq!(Reason::TooOldToJudge.as_str(), "too_old_to_judge");
}

#[test]
fn late_events_are_taken_within_the_bound_of_their_type_and_told_from_repetitions() {
    let of = super::support::revised(&plays(), 2 * HOUR);
    let mut stage = build(&*kind(), &planned(std::slice::from_ref(&of)), None, &Logs::default()).unwrap();
    let stage = &mut *stage;
    assert_eq!(one(stage, &of, 5 * HOUR, "a"), "taken");
    stage.seal(&seals("play", 6 * HOUR), &mut Effects::default()).unwrap();
    let effects = process(stage, events(&of, &[(4 * HOUR, "b".to_owned())]));
    assert_eq!((effects.tally.sent, effects.tally.taken_late, effects.dead.len()), (1, 1, 0));
    assert_eq!(one(stage, &of, 4 * HOUR + 1, "b"), "duplicate");
    assert_eq!(one(stage, &of, 5 * HOUR + 1, "a"), "duplicate");
    assert_eq!(one(stage, &of, 4 * HOUR - 1, "c"), "late", "its hour ended two hours before the horizon");
    let effects = process(stage, events(&of, &[(6 * HOUR, "d".to_owned())]));
    assert_eq!((effects.tally.sent, effects.tally.taken_late), (1, 0));
}

#[test]
fn a_bound_for_late_events_beyond_the_window_is_warned_of_and_aggregates_that_are_revised_are_refused() {
    let of = super::support::revised(&plays(), WINDOW + 1);
    let warnings = kind().warnings(&planned(&[of]));
    assert_eq!((warnings.len(), warnings[0].severity), (1, Severity::Warning));
    let late =
        tidemill_core::Late { mode: tidemill_core::RevisionMode::Replace, ..super::support::revised(&plays(), 1).late };
    let made = EventType::new("play", &plays().schema_json, "at", &["key".into()], None).unwrap().with_late(late);
    let findings = kind().plan(&planned(&[Arc::new(made)])).unwrap_err();
    assert!(findings[0].message.contains("come again"), "{findings:?}");
}
