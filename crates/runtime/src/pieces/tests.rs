use tidemill_core::PieceReader;

use super::*;
use crate::host::System;

type Model = BTreeMap<(String, String), Vec<u8>>;

/// A directory of pieces, and what they are to hold.
struct Rig {
    dir: tempfile::TempDir,
    pieces: Arc<Pieces>,
    cut: CutId,
    extent: Option<Extent>,
    model: Model,
}

fn opened(dir: &Path, extent: Option<Extent>, cut: CutId) -> Result<Arc<Pieces>, RunError> {
    let mut pieces = Pieces::open(Arc::new(System), dir.to_owned(), extent, cut)?;
    Arc::get_mut(&mut pieces).expect("nobody else has them").segment_bytes = 2_000;
    Ok(pieces)
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pieces = opened(dir.path(), None, 0).unwrap();
        Self { dir, pieces, cut: 0, extent: None, model: Model::new() }
    }

    fn cut(&mut self, changes: &[(&str, &str, Option<Vec<u8>>)]) {
        let mut by_stage: BTreeMap<Arc<str>, Changes> = [("a".into(), Vec::new()), ("b".into(), Vec::new())].into();
        for (stage, name, bytes) in changes {
            by_stage.entry((*stage).into()).or_default().push(((*name).to_owned(), bytes.clone().map(Arc::new)));
            let key = ((*stage).to_owned(), (*name).to_owned());
            match bytes {
                Some(bytes) => drop(self.model.insert(key, bytes.clone())),
                None => drop(self.model.remove(&key)),
            }
        }
        self.cut += 1;
        let written = self.pieces.write(self.cut, &by_stage, true).unwrap();
        self.extent = Some(written.extent);
        for path in self.pieces.take_over(written) {
            std::fs::remove_file(path).unwrap();
        }
    }

    fn reader(&self, stage: &str) -> Arc<OfStage> {
        self.pieces.reader(stage.into(), Arc::default())
    }

    fn reopen(&mut self) {
        self.pieces = opened(self.dir.path(), self.extent, self.cut).unwrap();
    }

    fn check(&self) {
        let mut found = Model::new();
        for stage in ["a", "b"] {
            for name in self.reader(stage).names("") {
                let bytes = self.pieces.read(stage, &name).unwrap();
                found.insert((stage.to_owned(), name), bytes);
            }
        }
        assert_eq!(found, self.model);
    }

    fn bytes_on_disk(&self) -> u64 {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }
}

#[test]
fn what_was_said_last_holds_over_any_number_of_segments_and_starts() {
    let seed: u64 = rand_seed();
    println!("seed {seed}");
    let mut state = seed;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut rig = Rig::new();
    for _ in 0..300 {
        let mut changes = Vec::new();
        for _ in 0..next(6) {
            let stage = ["a", "b"][next(2) as usize];
            let name = format!("piece-{}", next(30));
            let bytes = (next(4) > 0).then(|| vec![next(256) as u8; next(300) as usize]);
            changes.retain(|(other, known, _): &(&str, String, _)| *other != stage || *known != name);
            changes.push((stage, name, bytes));
        }
        let changes: Vec<_> = changes.iter().map(|(stage, name, bytes)| (*stage, &**name, bytes.clone())).collect();
        rig.cut(&changes);
        if next(4) == 0 {
            rig.reopen();
        }
        rig.check();
        let live: usize = rig.model.values().map(Vec::len).sum();
        assert!(rig.bytes_on_disk() < 2 * live as u64 + 10_000, "{} bytes for {live}", rig.bytes_on_disk());
    }
    assert!(rig.extent.unwrap().first > 5, "no segment was emptied, so nothing was shown");
}

fn rand_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

#[test]
fn a_cut_that_was_not_committed_leaves_nothing() {
    let mut rig = Rig::new();
    rig.cut(&[("a", "x", Some(vec![1]))]);
    let put = Some(Arc::new(vec![2; 3_000]));
    let lost = [("a".into(), vec![("x".to_owned(), None), ("y".to_owned(), put)])].into();
    drop(rig.pieces.write(2, &lost, true).unwrap());
    rig.reopen();
    rig.check();
    rig.cut(&[("b", "z", Some(vec![3]))]);
    rig.reopen();
    rig.check();
}

#[test]
fn state_of_a_later_cut_says_that_the_ledger_has_lost_records() {
    let mut rig = Rig::new();
    rig.cut(&[("a", "x", Some(vec![1]))]);
    let (extent, cut) = (rig.extent, rig.cut);
    for _ in 0..2 {
        rig.cut(&[("a", "x", Some(vec![2; 1_500]))]);
    }
    let refused = opened(rig.dir.path(), extent, cut).err().expect("it is refused").to_string();
    assert!(refused.contains("lost records"), "{refused}");
}

#[test]
fn what_is_cut_short_flipped_or_gone_is_refused() {
    let mut rig = Rig::new();
    for n in 0..4 {
        rig.cut(&[("a", &format!("x{n}"), Some(vec![n; 1_500]))]);
    }
    let path = path_of(rig.dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let refused = |rig: &Rig| opened(rig.dir.path(), rig.extent, rig.cut).is_err();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(refused(&rig), "cut short");
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert!(refused(&rig), "a flipped header");
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let pieces = opened(rig.dir.path(), rig.extent, rig.cut).unwrap();
    let errors = (0..4).filter_map(|n| pieces.read("a", &format!("x{n}")).err()).count();
    assert_eq!(errors, 1, "a flipped piece is refused when it is read, and no other");
    std::fs::remove_file(&path).unwrap();
    assert!(refused(&rig), "gone");
}

#[test]
fn a_stage_sees_what_it_gave_before_that_is_committed() {
    let mut rig = Rig::new();
    rig.cut(&[("a", "x", Some(vec![1])), ("a", "y", Some(vec![2]))]);
    let reader = rig.reader("a");
    let given = vec![("x".to_owned(), None), ("z".to_owned(), Some(Arc::new(vec![3])))];
    rig.pieces.give(&"a".into(), &given);
    assert_eq!(reader.names(""), ["y", "z"]);
    assert_eq!(reader.read("z").unwrap(), [3]);
    assert!(reader.take_fault().is_none());
    assert!(reader.read("x").is_err());
    assert!(reader.take_fault().is_some(), "a stage that fails by it is not to blame");
    assert_eq!(rig.pieces.read_committed("a", "x").unwrap(), [1]);
}

#[test]
fn the_pieces_of_a_stage_that_is_gone_go() {
    let mut rig = Rig::new();
    rig.cut(&[("a", "x", Some(vec![1])), ("b", "x", Some(vec![2]))]);
    let written = rig.pieces.write(2, &[("a".into(), Vec::new())].into(), true).unwrap();
    rig.pieces.take_over(written);
    assert!(rig.reader("b").names("").is_empty());
    assert_eq!(rig.reader("a").names(""), ["x"]);
}

#[test]
fn an_attempt_that_found_no_room_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.cut(&[("a", "x", Some(vec![1; 100]))]);
    let path = path_of(rig.dir.path(), 1);
    let length = std::fs::metadata(&path).unwrap().len();
    // What an attempt has left that got further than the one that held.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 5_000], length).unwrap();
    rig.cut(&[("a", "y", Some(vec![2; 2_000]))]);
    assert!(std::fs::metadata(&path).unwrap().len() < 3_000, "it goes with the next one");
    rig.cut(&[("a", "z", Some(vec![3; 10]))]);
    assert!(path_of(rig.dir.path(), 2).exists(), "another segment has begun");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], &[0xff; 5_000]].concat()).unwrap();
    rig.reopen();
    rig.check();
    // One that is too short by whole frames says less than it did.
    std::fs::write(&path, &whole[..length as usize]).unwrap();
    assert!(opened(rig.dir.path(), rig.extent, rig.cut).is_err(), "the next segment says where it ends");
}
