//! Snapshots, and files that do not depend on when blocks were compressed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use tidemill_core::{PieceReader, StageInput};
use tidemill_testkit::KeptPieces;

use super::{Cut, HOUR, Rig, build, plays, typed};

fn options() -> Value {
    json!({"roll_size": 65_536, "block_size": 8_192, "path": "{event_type}/{year}-{month}-{day}T{hour}/{country}"})
}

/// Writes 40 batches over 3 hours with a cut behind each fifth; `after` is called behind each batch, with the last cut's snapshot when
/// there was one.
fn run(mut after: impl FnMut(&mut Rig, Option<&Cut>)) -> BTreeMap<String, Vec<u8>> {
    let mut rig = Rig::new(options());
    for n in 0..40 {
        rig.write(plays(n * 1_000, 1_000, n as i64 * HOUR / 15));
        rig.note("play", 0, 1);
        let horizon = if n == 24 { HOUR } else { 0 };
        let snapshot = (n % 5 == 4).then(|| rig.barrier(&[("play", horizon)]));
        after(&mut rig, snapshot.as_ref());
    }
    assert!(rig.verified().files > 9);
    rig.disk.published
}

#[test]
fn a_restart_at_any_cut_gives_the_same_files_to_the_byte() {
    let plain = run(|_, _| {});
    let restarted = run(|rig, snapshot| {
        if let Some(snapshot) = snapshot {
            rig.restart(snapshot);
        }
    });
    assert!(plain == restarted);
}

#[test]
fn a_repeat_from_the_last_cut_gives_the_same_files_to_the_byte() {
    let plain = run(|_, _| {});
    let mut cut = None;
    let mut behind = 0;
    let repeated = run(|rig, snapshot| {
        if let Some(snapshot) = snapshot {
            // What was written since the cut is lost, and written again.
            cut = Some((snapshot.clone(), rig.disk.clone(), rig.tally));
            behind = 0;
            let (snapshot, disk, tally) = cut.clone().unwrap();
            rig.write(plays(1_000_000, 3_000, 30 * HOUR / 15));
            rig.restart(&snapshot);
            (rig.disk, rig.tally) = (disk, tally);
        }
    });
    assert!(plain == repeated);
}

#[test]
fn files_do_not_depend_on_when_blocks_are_done() {
    let plain = run(|_, _| {});
    // So many calls between batches that blocks are taken back one by one, not in heaps.
    let polled = run(|rig, _| {
        for _ in 0..2_000 {
            rig.note("play", 0, 0);
            std::thread::yield_now();
        }
    });
    assert!(plain == polled);
}

#[test]
fn a_changed_schema_or_codec_begins_a_new_part() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 2_000, 0));
    let snapshot = rig.barrier(&[]);
    rig.write(plays(2_000, 10, 0));
    let snapshot_with_rows = rig.barrier(&[]);
    assert!(snapshot_with_rows.pieces.size().1 > snapshot.pieces.size().1 + 200);

    let wider = super::PLAY.replace("]}]}", "]},{\"name\":\"extra\",\"type\":[\"null\",\"long\"],\"default\":null}]}");
    let wide = typed("play", &wider, &["id"]);
    rig.input = super::input(json!({}), std::slice::from_ref(&wide), super::limits(HOUR));
    rig.restart(&snapshot_with_rows);
    let narrow = plays(3_000, 10, 0);
    let mut columns = narrow.records.columns().to_vec();
    columns.push(std::sync::Arc::new(arrow_array::Int64Array::from(vec![Some(1); 10])));
    rig.write(tidemill_testkit::batch(&wide, columns));
    let snapshot = rig.barrier(&[]);
    rig.input = super::input(json!({"codec": "deflate"}), std::slice::from_ref(&wide), super::limits(HOUR));
    rig.restart(&snapshot);
    let mut columns = plays(4_000, 10, 0).records.columns().to_vec();
    columns.push(std::sync::Arc::new(arrow_array::Int64Array::from(vec![None; 10])));
    rig.write(tidemill_testkit::batch(&wide, columns));
    assert_eq!(rig.verified().files, 3);
    let manifest = rig.disk.manifest("hour=00");
    let files = manifest["files"].as_array().unwrap();
    let rows: Vec<u64> = files.iter().map(|file| file["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [2_010, 10, 10]);
    let codecs: Vec<&str> = files.iter().map(|file| file["codec"].as_str().unwrap()).collect();
    assert_eq!(codecs, ["zstandard", "zstandard", "deflate"]);
    assert_ne!(files[0]["schema_fingerprint"], files[1]["schema_fingerprint"]);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let mut rig = Rig::new(json!({}));
    rig.write(plays(0, 2_000, 0));
    rig.write(plays(2_000, 5, 0));
    let snapshot = rig.barrier(&[]);
    let build = |input: &StageInput, head: &[u8], pieces: &KeptPieces| build(input, Some(head), pieces, 1 << 30);
    let Cut { head, pieces } = snapshot;
    for end in 0..head.len() {
        assert!(build(&rig.input, &head[..end], &pieces).is_err(), "cut at {end}");
    }
    for name in pieces.names("").iter().filter(|name| !name.starts_with("r/")) {
        let bytes = pieces.read(name).unwrap();
        for end in 0..bytes.len() {
            let short = pieces.copied();
            short.apply(&[(name.clone(), Some(bytes[..end].to_vec()))]);
            assert!(build(&rig.input, &head, &short).is_err(), "{name} cut at {end}");
        }
    }
    let mut newer = head.clone();
    newer[0] = 9;
    let refused = build(&rig.input, &newer, &pieces).err().unwrap();
    assert!(refused.message.contains("version 9"), "{refused}");
    let other = super::input(json!({}), &[typed("other", super::PLAY, &[])], super::limits(HOUR));
    let refused = build(&other, &head, &pieces).err().unwrap();
    assert!(refused.message.contains("`play`"), "{refused}");
    let wider = super::input(json!({}), &[super::play()], super::limits(2 * HOUR));
    assert!(build(&wider, &head, &pieces).is_err());
}

#[test]
fn what_does_not_fit_into_memory_gives_the_same_files_to_the_byte() {
    let plain = run(|_, _| {});
    let spilled = run(|rig, cut| {
        rig.memory_bytes = 0;
        if let Some(cut) = cut {
            rig.restart(cut);
        }
    });
    assert!(plain == spilled);
    // Without a restart: it leaves what it has in memory.
    let mut rig = Rig::new(options());
    rig.memory_bytes = 10_000;
    let begin = rig.barrier(&[]);
    rig.restart(&begin);
    for n in 0..40 {
        rig.write(plays(n * 1_000, 1_000, n as i64 * HOUR / 15));
        rig.note("play", 0, 1);
        if n % 3 == 0 {
            rig.barrier(&[("play", if n >= 24 { HOUR } else { 0 })]);
        }
    }
    rig.verified();
    let data = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        files
            .iter()
            .filter(|(path, _)| path.ends_with(".avro"))
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect()
    };
    assert!(data(&plain) == data(&rig.disk.published), "files depend on where cuts were");
    assert_eq!(rig.pieces.names("d/").len() + rig.pieces.names("r/").len(), 0, "pieces of sealed hours are left");
}

#[test]
fn a_cut_writes_what_changed() {
    let mut rig = Rig::new(options());
    for n in 0..50 {
        rig.write(plays(n * 10, 10, n as i64 * HOUR));
    }
    rig.barrier(&[]);
    let before = rig.pieces.copied();
    rig.write(plays(1_000, 1, 7 * HOUR));
    rig.barrier(&[]);
    let changed = rig.pieces.names("").into_iter().filter(|name| before.read(name).ok() != rig.pieces.read(name).ok());
    let changed: Vec<String> = changed.collect();
    let bytes: usize = changed.iter().map(|name| rig.pieces.read(name).unwrap().len()).sum();
    assert!((1..=3).contains(&changed.len()) && bytes < 1_000, "{bytes} bytes in {changed:?}");
    let begin = rig.pieces.names("r/").len();
    for n in 0..200 {
        rig.write(plays(2_000 + n, 1, 7 * HOUR));
        rig.barrier(&[]);
    }
    let directories = 3;
    assert!(rig.pieces.names("r/").len() <= begin + 16 * directories, "small pieces are not joined");
}
