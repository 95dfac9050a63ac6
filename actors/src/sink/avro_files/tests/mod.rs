//! The sink as the runtime drives it, with the Logs in memory.

mod adopt;
mod encoding;
mod hours;
mod late;
mod restart;
mod verifying;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringViewArray, TimestampMillisecondArray};
use serde_json::{Value, json};
use tidemill_core::{
    Batch, DeadLetter, Effects, EventType, Horizon, Hour, HourNote, Input, Limits, Options, PartitionPosition, Request,
    SealReason, Seals, Stage, StageContext, StageError, StageInput, StageKind, Tally,
};

use super::AvroFiles;
use tidemill_testkit::KeptPieces;

pub(super) const HOUR: i64 = 3_600_000;

const PLAY: &str = r#"{"type":"record","name":"Play","fields":[
    {"name":"id","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"country","type":["null","string"]}]}"#;

/// A type with an id, a time and a country.
pub(super) fn play() -> Arc<EventType> {
    typed("play", PLAY, &["id"])
}

pub(super) fn typed(name: &str, schema: &str, id: &[&str]) -> Arc<EventType> {
    let id: Vec<String> = id.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(EventType::new(name, schema, "at", &id, Some("team-a".into())).unwrap())
}

/// Rows of id, time and country.
pub(super) fn batch_of(event_type: &Arc<EventType>, rows: &[(String, i64, Option<&str>)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| &row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC")),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|row| row.2))),
    ];
    tidemill_testkit::batch(event_type, columns)
}

/// `count` plays with ids from `first` on, one each 100 ms from `start` on.
pub(super) fn plays(first: usize, count: usize, start: i64) -> Batch {
    let row = |n: usize| {
        let id = format!("{:016x}-{n}", xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()));
        (id, start + (n - first) as i64 * 100, ["SE", "DE"].get(n % 3).copied())
    };
    batch_of(&play(), &(first..first + count).map(row).collect::<Vec<_>>())
}

/// The Logs and the output root.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) logs: BTreeMap<String, Vec<u8>>,
    pub(super) published: BTreeMap<String, Vec<u8>>,
    names: BTreeSet<String>,
}

impl Disk {
    fn apply(&mut self, effects: &Effects) {
        for (log, bytes) in &effects.appends {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
            assert!(log.name.chars().all(plain) && log.name.len() <= 200, "{}", log.name);
            assert!(!self.names.contains(&log.name), "{} is used again", log.name);
            self.logs.entry(log.name.clone()).or_default().extend_from_slice(bytes);
        }
        for publication in &effects.publications {
            let bytes = self.logs.remove(&publication.log.name).expect("what is published was written");
            self.names.insert(publication.log.name.clone());
            assert!(publication.path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", publication.path);
            let before = self.published.insert(publication.path.clone(), bytes);
            assert!(before.is_none() || publication.replaces, "{} twice", publication.path);
        }
    }

    pub(super) fn write_to(&self, root: &Path) {
        for (path, bytes) in &self.published {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// The only manifest below paths that contain `part`.
    pub(super) fn manifest(&self, part: &str) -> Value {
        let named = |path: &&String| path.contains(part) && path.ends_with("_manifest.json");
        let paths: Vec<&String> = self.published.keys().filter(named).collect();
        assert_eq!(paths.len(), 1, "{paths:?}");
        serde_json::from_slice(&self.published[paths[0]]).unwrap()
    }
}

pub(super) fn limits(bucket_ms: i64) -> Limits {
    Limits { bucket_ms, allowed_lateness_ms: 600_000, max_ahead_ms: HOUR, ..tidemill_testkit::limits() }
}

/// The options of the kind with its defaults, `changes` put over them.
pub(super) fn options(changes: Value) -> Options {
    let mut options = json!({
        "codec": "zstandard", "block_size": 131_072, "roll_size": 268_435_456,
    });
    for (name, value) in changes.as_object().unwrap() {
        options[name] = value.clone();
    }
    Options(options.as_object().unwrap().clone())
}

pub(super) fn input(changes: Value, types: &[Arc<EventType>], limits: Limits) -> StageInput {
    StageInput { name: "out".into(), options: options(changes), types: types.to_vec(), limits: Arc::new(limits) }
}

/// What a cut holds.
#[derive(Clone)]
pub(super) struct Cut {
    pub(super) head: Vec<u8>,
    pub(super) pieces: KeptPieces,
}

pub(super) fn build(
    input: &StageInput,
    snapshot: Option<&[u8]>,
    pieces: &KeptPieces,
    memory_bytes: u64,
) -> Result<Box<dyn Stage>, StageError> {
    AvroFiles.build(&StageContext {
        input: input.clone(),
        outputs: Vec::new(),
        state_id: "5ca1ab1e".into(),
        key: &tidemill_core::StateKey::new([0; 16]),
        topology: "test".into(),
        sealed_before_ms: BTreeMap::new(),
        snapshot,
        pieces: Arc::new(pieces.clone()),
        memory_bytes,
        logs: &tidemill_testkit::NoLogs,
        gives_way: 0,
    })
}

/// A sink with its disk.
pub(super) struct Rig {
    pub(super) input: StageInput,
    pub(super) stage: Box<dyn Stage>,
    pub(super) disk: Disk,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) tally: Tally,
    pub(super) pieces: KeptPieces,
    /// Of the stage. It holds from the next restart on.
    pub(super) memory_bytes: u64,
    cut: u64,
    /// Types whose revisions end at the next barrier.
    pub(super) revised: Vec<Arc<str>>,
    /// What somebody outside asks for at all barriers.
    pub(super) request: Option<Arc<Request>>,
}

impl Rig {
    pub(super) fn new(changes: Value) -> Self {
        Self::of(input(changes, &[play()], limits(HOUR)))
    }

    pub(super) fn of(input: StageInput) -> Self {
        assert_eq!(AvroFiles.plan(&input).map(|types| types.len()), Ok(0));
        let (pieces, memory_bytes) = (KeptPieces::default(), 1 << 30);
        let stage = build(&input, None, &pieces, memory_bytes).unwrap();
        Self {
            input,
            stage,
            disk: Disk::default(),
            dead: Vec::new(),
            tally: Tally::default(),
            pieces,
            memory_bytes,
            cut: 0,
            revised: Vec::new(),
            request: None,
        }
    }

    fn done(&mut self, effects: Effects) {
        assert!(effects.tally.is_conserved(), "{:?}", effects.tally);
        self.disk.apply(&effects);
        self.tally.add(&effects.tally);
        self.dead.extend(effects.dead);
    }

    pub(super) fn write(&mut self, batch: Batch) {
        let mut effects = Effects::default();
        self.stage.process(&Input::Rows(batch), &mut effects).unwrap();
        self.done(effects);
    }

    pub(super) fn note(&mut self, event_type: &str, start_ms: i64, duplicates: u64) {
        let hour = Hour { start_ms, width_ms: self.input.limits.bucket_ms };
        let mut effects = Effects::default();
        let note = HourNote { duplicates, ..HourNote::on(event_type.into(), hour) };
        self.stage.process(&Input::Note(note), &mut effects).unwrap();
        self.done(effects);
    }

    /// A barrier: seals, then the snapshot.
    pub(super) fn barrier(&mut self, horizons: &[(&str, i64)]) -> Cut {
        self.barrier_for(horizons, SealReason::Watermark)
    }

    pub(super) fn barrier_for(&mut self, horizons: &[(&str, i64)], reason: SealReason) -> Cut {
        self.cut += 1;
        let horizon = |(name, before): &(&str, i64)| Horizon::new((*name).into(), *before, reason);
        let position = PartitionPosition { next: 77, resume: Arc::default(), ended: false };
        let seals = Seals {
            cut: self.cut,
            at_ms: 1_700_000_000_000,
            horizons: horizons.iter().map(horizon).collect(),
            revised: std::mem::take(&mut self.revised),
            positions: BTreeMap::from([("s".into(), Arc::new(BTreeMap::from([("p".into(), position)])))]),
            request: self.request.clone(),
            ..tidemill_testkit::seals()
        };
        let mut effects = Effects::default();
        self.stage.seal(&seals, &mut effects).unwrap();
        self.done(effects);
        let mut effects = Effects::default();
        let head = self.stage.snapshot(&mut effects).unwrap();
        self.pieces.apply(&effects.pieces);
        self.done(effects);
        Cut { head, pieces: self.pieces.copied() }
    }

    /// Builds the worker anew.
    pub(super) fn restart(&mut self, cut: &Cut) {
        self.pieces = cut.pieces.copied();
        self.stage = build(&self.input, Some(&cut.head), &self.pieces, self.memory_bytes).unwrap();
    }

    /// Seals all, and verifies what lies on the disk then.
    pub(super) fn verified(&mut self) -> crate::sink::verify::Report {
        let names: Vec<String> = self.input.types.iter().map(|event_type| event_type.name.to_string()).collect();
        self.revised = names.iter().map(|name| name.as_str().into()).collect();
        self.barrier(&names.iter().map(|name| (name.as_str(), i64::MAX)).collect::<Vec<_>>());
        assert_eq!(self.disk.logs.len(), 0);
        let root = Root::new();
        self.disk.write_to(root.path());
        let report = root.verify();
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.rows, self.tally.sent);
        report
    }
}

/// A directory that is removed at the end.
pub(super) struct Root(std::path::PathBuf);

impl Root {
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidemill-sink-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn verify(&self) -> crate::sink::verify::Report {
        crate::sink::verify::verify(&self.0, None, &|_| {}).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
