//! Hours that were made elsewhere.

use std::sync::Arc;

use serde_json::{Value, json};
use tidemill_core::{EventType, Late, LatePolicy, Request, RevisionMode};

use super::{HOUR, PLAY, Rig, Root, batch_of, input, limits};
use crate::sink::{AdoptedDirectory, Adoption, Manifest};

fn play() -> Arc<EventType> {
    let made = EventType::new("play", PLAY, "at", &["id".to_owned()], None).unwrap();
    let late = Late { policy: LatePolicy::Revise, within_ms: 9 * HOUR, delay_ms: 0, mode: RevisionMode::Append };
    Arc::new(made.with_late(late))
}

fn rig(ids: &[&str]) -> Rig {
    let mut rig = Rig::of(input(json!({}), &[play()], limits(HOUR)));
    ids.iter().for_each(|id| write(&mut rig, id));
    rig.barrier(&[("play", 2 * HOUR)]);
    rig
}

fn write(rig: &mut Rig, id: &str) {
    let of = rig.input.types[0].clone();
    rig.write(batch_of(&of, &[(id.to_owned(), HOUR + 1, None)]));
}

/// The hour as another sink has made it, its file given to this one.
fn made(rig: &mut Rig, ids: &[&str], given: &str) -> Adoption {
    let other = self::rig(ids);
    let text = serde_json::to_string(&other.disk.manifest("hour=01/rev=0")).unwrap();
    let manifest: Manifest = serde_json::from_str(&text).unwrap();
    let file = format!("{}/{}", manifest.path, manifest.files[0].name);
    rig.disk.logs.insert(given.to_owned(), other.disk.published[&file].clone());
    let path = manifest.path.strip_suffix("/rev=0").unwrap().to_owned();
    let directories = vec![AdoptedDirectory { path, manifest, given: vec![given.to_owned()] }];
    Adoption { event_type: "play".to_owned(), hour_start_ms: HOUR, base: 0, directories }
}

/// A barrier with the request; how many files there are then.
fn ask(rig: &mut Rig, id: &str, body: Value) -> usize {
    let files = vec!["given".to_owned()];
    let request = Request { id: id.into(), stage: "out".into(), free: Vec::new(), files, body };
    rig.request = Some(Arc::new(request));
    rig.barrier(&[]);
    rig.disk.published.len()
}

fn latest(rig: &Rig) -> (u64, u64) {
    let (_, text) = rig.disk.published.iter().find(|(path, _)| path.ends_with("hour=01/latest.json")).unwrap();
    let said: Value = serde_json::from_slice(text).unwrap();
    (said["revision"].as_u64().unwrap(), said["first"].as_u64().unwrap())
}

#[test]
fn it_stands_for_all_before_it_once_and_late_events_come_behind_it() {
    let mut rig = rig(&["a"]);
    // Late ones, in a file that is begun and in a block that is not full.
    write(&mut rig, "late");
    let adoption = made(&mut rig, &["a", "b"], "given");
    ask(&mut rig, "1", json!(adoption));
    let manifest = rig.disk.manifest("hour=01/rev=1");
    assert_eq!(
        (&manifest["mode"], &manifest["count"], &manifest["request"]),
        (&json!("replace"), &json!(2), &json!("1"))
    );
    assert_eq!((&manifest["state_id"], latest(&rig)), (&json!("5ca1ab1e"), (1, 1)));
    // A crash behind the commit: it is asked for once more, of a worker that was restored.
    rig.request = None;
    let snapshot = rig.barrier(&[]);
    rig.restart(&snapshot);
    let files = rig.disk.published.len();
    assert_eq!(ask(&mut rig, "1", json!(adoption)), files);
    write(&mut rig, "later");
    rig.revised = vec!["play".into()];
    rig.barrier(&[("play", 3 * HOUR)]);
    let late = rig.disk.manifest("hour=01/rev=2");
    assert_eq!((&late["mode"], &late["count"], latest(&rig)), (&json!("append"), &json!(2), (2, 1)));
    let root = Root::new();
    rig.disk.write_to(root.path());
    let report = root.verify();
    assert!(report.is_clean() && report.rows == 5, "{report}");
}

#[test]
fn what_does_not_belong_there_is_not_published() {
    let mut rig = rig(&["a"]);
    let right = made(&mut rig, &["a", "b"], "given");
    let files = rig.disk.published.len();
    let mut number = 0;
    let mut refused = |change: &dyn Fn(&mut Adoption)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        number += 1;
        assert_eq!(ask(&mut rig, &number.to_string(), json!(wrong)), files, "{wrong:?}");
    };
    refused(&|wrong| wrong.event_type = "skip".to_owned());
    refused(&|wrong| wrong.base = 1);
    refused(&|wrong| wrong.hour_start_ms = 2 * HOUR);
    refused(&|wrong| wrong.hour_start_ms += 1);
    refused(&|wrong| wrong.directories[0].path = "play/elsewhere".to_owned());
    refused(&|wrong| wrong.directories[0].given.clear());
    refused(&|wrong| wrong.directories[0].given = vec!["another".to_owned()]);
    refused(&|wrong| {
        let twice = wrong.directories[0].clone();
        wrong.directories.push(twice);
    });
    refused(&|wrong| wrong.directories[0].manifest.hour.width_ms = 24 * HOUR);
    assert_eq!(ask(&mut rig, "nonsense", json!({ "x": 1 })), files);
    assert!(ask(&mut rig, "right", json!(right)) > files, "a request that was refused is in nobody's way");
}
