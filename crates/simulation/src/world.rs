//! One simulation: a machine, a topology, an input, and a series of processes of which only the last one comes to a good end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::check::check;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::input::Input;
use crate::life::{Became, Fate, live};
use crate::machine::{EPOCH_MS, Machine};
use crate::outside::Outside;
use crate::shape::Shape;

/// See the module.
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) input: Arc<Input>,
    pub(crate) machine: Arc<Mutex<Machine>>,
    pub(crate) outside: Arc<Mutex<Outside>>,
    /// Hours that one barrier seals at most.
    pub(crate) step_hours: u64,
    pub(crate) told: Arc<Mutex<BTreeMap<Arc<str>, u64>>>,
    pub(crate) violations: Arc<Mutex<Vec<String>>>,
    /// Of the real machine.
    pub(crate) lock_dir: PathBuf,
    pub(crate) state_root: PathBuf,
    pub(crate) output_root: PathBuf,
}

/// What a simulation was, and what was wrong.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What must not be and was; empty when all invariants hold.
    pub violations: Vec<String>,
    /// What happened, for a reader who wants to know why.
    pub story: Vec<String>,
    /// Events of the input.
    pub events: u64,
    /// Processes that came to a bad end.
    pub deaths: u64,
    /// Revisions of hours that were published for late events.
    pub revisions: u64,
    /// Times that the power failed.
    pub power_cuts: u64,
    /// A digest of everything that was left behind: the same for the same seed.
    pub digest: u64,
}

impl World {
    fn roll(dice: &mut Dice, dir: &Path) -> Self {
        let shape = Shape::roll(dice);
        Self {
            input: Arc::new(Input::roll(dice, shape.graph.as_ref(), shape.outlier)),
            shape,
            machine: Arc::new(Mutex::new(Machine { disk: Disk::default(), now_ms: EPOCH_MS + 10 * 86_400_000 })),
            outside: Arc::default(),
            step_hours: if dice.one_in(2) { dice.between(1, 8) } else { 256 },
            told: Arc::default(),
            violations: Arc::default(),
            lock_dir: dir.to_owned(),
            state_root: "/state".into(),
            output_root: "/output".into(),
        }
    }
}

/// Runs the simulation of a seed. `dir` is a directory of the real machine for the lock of the state; it may be used again.
pub fn simulate(seed: u64, dir: &Path) -> Outcome {
    let mut dice = Dice::new(seed);
    let mut outcome = Outcome::default();
    let world = World::roll(&mut dice, dir);
    outcome.events = world.input.events.len() as u64;
    outcome.story.push(format!(
        "{:?}, {} hours a step, {} events in {} partitions",
        world.shape,
        world.step_hours,
        outcome.events,
        world.input.partitions.len()
    ));
    // Files that somebody could see, and what was in them.
    let mut public: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut left = dice.below(7);
    // The last but one may read all there is, and wait until everything is sealed by itself.
    let mut rests = dice.one_in(6) && !(world.shape.outlier && world.shape.is_patient);
    loop {
        let fate = match left {
            0 if rests => Fate::rest(&mut dice),
            0 => Fate::quiet(&mut dice),
            _ => Fate::roll(&mut dice),
        };
        let became = live(&world, &fate, &mut dice);
        outcome.story.push(format!("{fate:?}: {became:?}"));
        let mut machine = world.machine.lock().expect("nobody panicked");
        look(&world, &machine.disk, &mut public, &mut outcome.violations);
        outcome.deaths += u64::from(matches!(became, Became::Dead | Became::Failed(_)));
        if fate.power_fails {
            outcome.power_cuts += 1;
            machine.disk.lose_power(&mut dice);
        }
        drop(machine);
        if let Became::Wrong(why) = &became {
            outcome.violations.push(why.clone());
            break;
        }
        if left == 0 && std::mem::take(&mut rests) {
            if became != Became::Stopped {
                outcome.violations.push(format!("a process that is left alone should stop well: {became:?}"));
                break;
            }
            continue;
        }
        if left == 0 {
            if became != Became::Finished {
                outcome.violations.push(format!("the last process should come to a good end: {became:?}"));
            }
            break;
        }
        left -= 1;
    }
    if outcome.violations.is_empty() {
        let machine = world.machine.lock().expect("nobody panicked");
        check(&world, &machine.disk, &mut outcome.violations);
        outcome.digest = digest(&world, &machine);
        let is_revision = |path: &&PathBuf| path.ends_with("_SUCCESS") && !path.to_string_lossy().contains("/rev=0/");
        outcome.revisions = public_paths(&world, &machine.disk).filter(is_revision).count() as u64;
        for path in public.keys().filter(|path| !machine.disk.exists(path)) {
            outcome.violations.push(format!("I5: {} was there, and is gone", path.display()));
        }
    }
    outcome.violations.append(&mut world.violations.lock().expect("nobody panicked"));
    outcome.violations.append(&mut world.outside.lock().expect("nobody panicked").violations);
    outcome
}

/// Notes the files that readers see; what was seen before must be the same, but for pointers to the latest revision.
fn look(world: &World, disk: &Disk, public: &mut BTreeMap<PathBuf, Vec<u8>>, violations: &mut Vec<String>) {
    for path in public_paths(world, disk) {
        let bytes = disk.read(path).expect("it is there");
        match public.get(path) {
            Some(known) if *known != bytes && !path.ends_with("latest.json") => {
                violations.push(format!("I5: {} has changed", path.display()))
            }
            Some(_) => {}
            None => drop(public.insert(path.clone(), bytes)),
        }
    }
}

/// Files below the output root that readers may look at.
pub(crate) fn public_paths<'a>(world: &'a World, disk: &'a Disk) -> impl Iterator<Item = &'a PathBuf> {
    disk.paths().filter(|path| {
        path.strip_prefix(&world.output_root).is_ok_and(|below| {
            below.components().next().is_none_or(|first| first.as_os_str().as_encoded_bytes()[0] != b'.')
        })
    })
}

fn digest(world: &World, machine: &Machine) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for path in public_paths(world, &machine.disk) {
        (path, machine.disk.read(path).expect("it is there")).hash(&mut hasher);
    }
    // Two that do the same take the same time.
    machine.now_ms.hash(&mut hasher);
    hasher.finish()
}
