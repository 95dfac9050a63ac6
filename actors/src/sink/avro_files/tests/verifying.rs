//! Whatever is changed below the root is found, with its hour.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::{HOUR, Rig, Root, plays};
use crate::sink::manifest::{Manifest, success_text};
use crate::sink::verify::{FaultCode, verify};

/// Two hours of 500 events each.
fn two_hours() -> (Rig, Root) {
    let mut rig = Rig::new(json!({"block_size": 8_192, "codec": "null"}));
    rig.write(plays(0, 500, 0));
    rig.write(plays(500, 500, HOUR));
    rig.verified();
    let root = Root::new();
    rig.disk.write_to(root.path());
    assert!(root.verify().is_clean());
    (rig, root)
}

fn codes(root: &Root) -> Vec<FaultCode> {
    root.verify().faults.iter().map(|fault| fault.code).collect()
}

#[test]
fn one_flipped_bit_anywhere_in_a_file_is_found_with_its_hour() {
    let (rig, root) = two_hours();
    let mut seed = 1u64;
    for (path, bytes) in &rig.disk.published {
        let hour = if path.contains("hour=00") { "hour=00" } else { "hour=01" };
        let places: BTreeSet<usize> = if bytes.len() < 100 {
            (0..bytes.len()).collect()
        } else {
            let mut place = |_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as usize % bytes.len()
            };
            (0..120).map(&mut place).chain([0, 1, bytes.len() - 1]).collect()
        };
        for place in places {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            fs::write(root.path().join(path), &damaged).unwrap();
            let report = root.verify();
            assert!(!report.is_clean(), "byte {place} of {path}");
            assert!(report.faults.iter().all(|fault| fault.path.contains(hour)), "byte {place} of {path}: {report}");
        }
        fs::write(root.path().join(path), bytes).unwrap();
    }
    assert!(root.verify().is_clean());
}

#[test]
fn faults_name_type_and_hour() {
    let (rig, root) = two_hours();
    let path = rig.disk.published.keys().find(|path| path.contains("hour=01") && path.ends_with(".avro")).unwrap();
    fs::write(root.path().join(path), b"Obj").unwrap();
    let report = root.verify();
    let fault = &report.faults[0];
    assert_eq!((fault.event_type.as_deref(), fault.hour.as_deref()), (Some("play"), Some("1970-01-01T01:00:00Z")));
    assert_eq!(fault.file.as_deref(), path.rsplit('/').next());
    assert!(report.to_string().contains("(hour 1970-01-01T01:00:00Z of `play`)"), "{report}");
    assert_eq!(serde_json::to_value(&report).unwrap()["faults"][0]["code"], "wrong_bytes");
}

#[test]
fn one_flipped_bit_in_any_name_is_found() {
    let (rig, root) = two_hours();
    let mut names = BTreeSet::new();
    for path in rig.disk.published.keys() {
        let mut at = Path::new(path);
        while let Some(parent) = at.parent() {
            names.insert(at.to_owned());
            at = parent;
        }
    }
    let mut tried = 0;
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for place in 0..name.len() {
            let mut flipped = name.clone().into_bytes();
            flipped[place] ^= 1;
            let flipped = String::from_utf8(flipped).unwrap();
            let (from, to) = (root.path().join(&path), root.path().join(path.with_file_name(&flipped)));
            if flipped.contains('/') || to.exists() {
                continue;
            }
            fs::rename(&from, &to).unwrap();
            assert!(!root.verify().is_clean(), "{} as {flipped}", path.display());
            fs::rename(&to, &from).unwrap();
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
    assert!(root.verify().is_clean());
}

#[test]
fn what_is_missing_or_too_much_is_found() {
    let (rig, root) = two_hours();
    let directory = root.path().join("play/year=1970/month=01/day=01/hour=01/rev=0");
    let part = rig.disk.published.keys().find(|path| path.contains("hour=01") && path.ends_with(".avro")).unwrap();

    fs::write(directory.join("part-00001-0123456789abcdef.avro"), b"x").unwrap();
    assert_eq!(codes(&root), [FaultCode::ExtraFile]);
    fs::remove_file(directory.join("part-00001-0123456789abcdef.avro")).unwrap();
    fs::write(root.path().join("play/notes.txt"), b"x").unwrap();
    assert_eq!(codes(&root), [FaultCode::ExtraFile]);
    fs::remove_file(root.path().join("play/notes.txt")).unwrap();

    fs::remove_file(directory.join("_SUCCESS")).unwrap();
    assert_eq!(codes(&root), [FaultCode::Unfinished]);
    fs::remove_file(directory.join("_manifest.json")).unwrap();
    assert_eq!(codes(&root), [FaultCode::Unfinished, FaultCode::ExtraFile]);
    fs::remove_file(root.path().join(part)).unwrap();
    assert_eq!(codes(&root), [FaultCode::Unfinished]);
    fs::remove_dir(&directory).unwrap();
    assert_eq!(codes(&root), [FaultCode::EmptyDirectory]);

    fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    assert_eq!(codes(&root), []);
    let published: BTreeSet<String> = rig.disk.published.keys().cloned().collect();
    let report = verify(root.path(), Some(&published), &|_| {}).unwrap();
    assert_eq!(report.faults.len(), 4);
    assert!(report.faults.iter().all(|fault| fault.code == FaultCode::MissingFile && fault.path.contains("hour=01")));
    let fewer = published.iter().filter(|path| path.contains("hour=01")).cloned().collect();
    let report = verify(root.path(), Some(&fewer), &|_| {}).unwrap();
    assert!(report.faults.iter().any(|fault| fault.code == FaultCode::ExtraFile && fault.path.contains("hour=00")));
}

#[test]
fn a_manifest_that_was_forged_with_its_checksums_is_found_by_the_events() {
    let (rig, root) = two_hours();
    let forge = |change: &dyn Fn(&mut Manifest)| {
        let path = rig.disk.published.keys().find(|path| path.ends_with("hour=00/rev=0/_manifest.json")).unwrap();
        let mut manifest = Manifest::from_text(std::str::from_utf8(&rig.disk.published[path]).unwrap()).unwrap();
        change(&mut manifest);
        let text = manifest.to_text();
        fs::write(root.path().join(path), &text).unwrap();
        fs::write(root.path().join(path).with_file_name("_SUCCESS"), success_text(&text)).unwrap();
        codes(&root)
    };
    assert_eq!(forge(&|_| {}), []);
    assert_eq!(forge(&|manifest| manifest.count += 1), [FaultCode::WrongContent]);
    assert_eq!(
        forge(&|manifest| manifest.ids.as_mut().unwrap().sum.replace_range(0..1, "x")),
        [FaultCode::WrongContent]
    );
    assert_eq!(forge(&|manifest| manifest.event_time.min = None), [FaultCode::WrongContent]);
    assert_eq!(forge(&|manifest| manifest.files[0].codec = "snappy".into()), [FaultCode::BadFile]);
    assert_eq!(forge(&|manifest| manifest.topology = "x".into()), [FaultCode::WrongName]);
    assert!(forge(&|manifest| manifest.event_type = "stop".into()).contains(&FaultCode::BadFile));
    let moved = forge(&|manifest| {
        manifest.hour.start = "1970-01-01T05:00:00Z".into();
        manifest.hour.end = "1970-01-01T06:00:00Z".into();
    });
    assert!(moved.contains(&FaultCode::WrongPlace) && moved.contains(&FaultCode::WrongHour), "{moved:?}");
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    assert!(verify(Path::new("/nonexistent/out"), None, &|_| {}).is_err());
}
