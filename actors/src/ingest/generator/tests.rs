use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::{EventType, key_hash};
use xxhash_rust::xxh3::xxh3_128;

use super::*;

fn small() -> GeneratorConfig {
    GeneratorConfig { events: 30_000, seed: 7, ..GeneratorConfig::default() }
}

fn all_lines(config: &GeneratorConfig) -> Vec<u8> {
    let mut out = Vec::new();
    Generator::new(config).write_lines(0..config.events, &mut out);
    out
}

#[test]
fn the_first_ten_thousand_lines_never_change() {
    let mut out = Vec::new();
    Generator::new(&GeneratorConfig::default()).write_lines(0..10_000, &mut out);
    let first = std::str::from_utf8(&out).unwrap().lines().next().unwrap();
    assert_eq!((first, format!("{:032x}", xxh3_128(&out)).as_str()), (GOLDEN_LINE, GOLDEN_HASH));
}

const GOLDEN_LINE: &str = "track_played\t5e41ab087439611e955a0c8442be933e\t1767225600000\tu0242420\tUA\trbzJiOTz78l0RVrrymshvf\t173868\tandroid_phone";
const GOLDEN_HASH: &str = "a46f2713e3595364b7e727154dcb27c3";

#[test]
fn any_line_can_be_made_without_those_before_it() {
    let config = small();
    let whole = all_lines(&config);
    let generator = Generator::new(&config);
    let mut tail = Vec::new();
    generator.write_lines(12_345..config.events, &mut tail);
    assert!(whole.ends_with(&tail));
    let mut head = Vec::new();
    generator.write_lines(0..12_345, &mut head);
    assert_eq!([head, tail].concat(), whole);
}

#[test]
fn lines_are_as_promised() {
    let config = small();
    let text = String::from_utf8(all_lines(&config)).unwrap();
    let event_type = EventType::new("t", LISTENING_SCHEMA, "event_time", &["event_id".to_owned()], None).unwrap();
    let mut types = BTreeSet::new();
    let mut countries = BTreeSet::new();
    let mut newest = i64::MIN;
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), event_type.fields.len() + 1);
        types.insert(columns[0].to_owned());
        countries.insert(columns[4].to_owned());
        assert!(columns[1].len() == 32 && u128::from_str_radix(columns[1], 16).is_ok(), "{line}");
        let time: i64 = columns[2].parse().unwrap();
        assert!(time >= config.start_ms && time < config.start_ms + 3 * 3_600_000, "{line}");
        newest = newest.max(time);
        assert!(newest - time <= 2 * 30_000 + 361, "{line}");
        assert!(columns[3].len() == 8 && columns[3].starts_with('u'), "{line}");
        assert!(columns[5].len() == 22 && columns[5].bytes().all(|byte| byte.is_ascii_alphanumeric()), "{line}");
        assert!(columns[6].parse::<i32>().is_ok(), "{line}");
        assert!(LISTENING_SCHEMA.contains(&format!("\"{}\"", columns[7])), "{line}");
    }
    assert_eq!((types.len(), countries.len()), (20, 60));
    let average = text.len() / text.lines().count();
    assert!((110..=116).contains(&average), "{average} bytes a line");
}

#[test]
fn truth_equals_a_naive_fold_over_the_lines() {
    let config = GeneratorConfig { duplicates: 0.1, ..small() };
    let text = String::from_utf8(all_lines(&config)).unwrap();
    let mut seen = BTreeMap::new();
    let mut hours: BTreeMap<(String, String), (u64, u128)> = BTreeMap::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        if let Some(earlier) = seen.insert(columns[1], line) {
            assert_eq!(earlier, line, "a repeat is the same line");
            continue;
        }
        let hour = columns[2].parse::<i64>().unwrap() / 3_600_000 * 3_600_000;
        let entry = hours.entry((columns[0].to_owned(), tidemill_core::format_time_ms(hour))).or_default();
        entry.0 += 1;
        entry.1 = entry.1.wrapping_add(key_hash(&[&32u32.to_le_bytes(), columns[1].as_bytes()].concat()));
    }
    let truth = Truth::of(&config);
    assert_eq!(truth.events, 30_000);
    assert_eq!(truth.unique, seen.len() as u64);
    assert_eq!(truth.duplicates, truth.events - truth.unique);
    assert!((2_500..3_500).contains(&truth.duplicates), "{} duplicates", truth.duplicates);
    let told: BTreeMap<_, _> = truth
        .types
        .iter()
        .flat_map(|(name, of)| {
            of.iter().map(|(hour, truth)| ((name.clone(), hour.clone()), (truth.count, truth.ids.0)))
        })
        .collect();
    assert_eq!(told, hours);
}

#[test]
fn repeats_stay_within_the_disorder_when_lines_are_far_apart() {
    let config = GeneratorConfig { events: 3_600, hours: 1, duplicates: 0.5, ..GeneratorConfig::default() };
    let generator = Generator::new(&config);
    assert!((0..3_600).any(|line| generator.original_of(line) != line));
    assert_eq!(generator.duplicate_lines, 30);
}

#[test]
fn seeds_differ_and_odd_configurations_do_not_panic() {
    assert_ne!(all_lines(&small()), all_lines(&GeneratorConfig { seed: 8, ..small() }));
    let odd = GeneratorConfig {
        events: 100,
        hours: 0,
        duplicates: 7.0,
        disorder_ms: u64::MAX,
        start_ms: -5_000,
        duplicates_within: 0,
        seed: u64::MAX,
    };
    let text = String::from_utf8(all_lines(&odd)).unwrap();
    assert!(text.lines().all(|line| line.split('\t').nth(2) == Some("-5000")), "{text}");
    assert!(all_lines(&GeneratorConfig { events: 0, ..small() }).is_empty());
}
