//! One process: from its start to its end, good or bad.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_actors::stage_kinds;
use tidemill_runtime::{
    Decision, Ended, Registry, RunConfig, RunError, SealAt, StateLock, Status, decide_by, state_files_of, steps_of,
};

use crate::clock::Clock;
use crate::dice::Dice;
use crate::machine::{Process, Weather};
use crate::outside::{Atomic, Keyed, Reach};
use crate::shaky::{Shaky, Trouble};
use crate::source::Rolled;
use crate::world::World;

/// What is in store for a process.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) weather: Weather,
    /// It is killed, or asked to stop, after so long.
    pub(crate) killed_after_ms: Option<u64>,
    pub(crate) stopped_after_ms: Option<u64>,
    /// How it comes to its end does not matter to the disk, unless the power fails with it.
    pub(crate) power_fails: bool,
    /// Panics of the runtime's own code at this point of many, counted.
    pub(crate) panics_at: Option<u64>,
    pub(crate) troubles: u64,
    pub(crate) trouble_one_in: u64,
    /// External sinks take nothing between these times after its start.
    pub(crate) closed_ms: Option<(u64, u64)>,
    /// It is left alone until all hours are sealed.
    pub(crate) rests: bool,
    /// It reads to the end of the input, and seals what is open.
    pub(crate) until_end: bool,
    pub(crate) seal_at: SealAt,
    /// A partition that gives nothing, when there is one of that number.
    pub(crate) stuck: Option<usize>,
    pub(crate) cut_interval_ms: u64,
    pub(crate) lane_bytes: usize,
    pub(crate) replay_bytes: u64,
    pub(crate) state_memory_bytes: u64,
    pub(crate) state_file_bytes: u64,
    /// What a cut seals is published so much later, at most.
    pub(crate) publication_ms: u64,
}

impl Fate {
    /// The fate of a process that comes to a bad end, mostly.
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let mut fate = Self::quiet(dice);
        fate.until_end = dice.one_in(3);
        fate.stuck = (!fate.until_end && dice.one_in(4)).then(|| dice.below(4) as usize);
        match dice.below(8) {
            0..=3 => {
                fate.weather.dies_at = Some(dice.between(1, 1_500));
                fate.killed_after_ms = Some(dice.between(1_000, 60_000));
            }
            4 => fate.killed_after_ms = Some(dice.between(1, 3_000)),
            5 => fate.stopped_after_ms = Some(dice.between(1, 3_000)),
            6 => {
                fate.weather.failing_syncs = Some(dice.between(10, 80));
                fate.killed_after_ms = Some(6_000);
            }
            _ => {
                fate.panics_at = Some(dice.between(1, 1_000));
                fate.killed_after_ms = Some(6_000);
            }
        }
        if dice.one_in(5) {
            let from = dice.between(60, 800);
            fate.weather.no_room = Some((from, from + dice.between(1, 60)));
        }
        fate.power_fails = dice.one_in(2);
        if dice.one_in(4) {
            fate.weather.clock = Clock::roll(dice);
        }
        fate
    }

    /// The fate of the last process: what happens to it is not its end.
    pub(crate) fn quiet(dice: &mut Dice) -> Self {
        let from = dice.below(1_000);
        Self {
            weather: Weather::default(),
            killed_after_ms: None,
            stopped_after_ms: None,
            power_fails: false,
            panics_at: None,
            troubles: dice.below(8),
            trouble_one_in: dice.between(2, 60),
            closed_ms: dice.one_in(3).then(|| (from, from + dice.between(10, 5_000))),
            rests: false,
            until_end: true,
            seal_at: if dice.one_in(2) { SealAt::End } else { SealAt::Watermark },
            stuck: None,
            cut_interval_ms: dice.between(5, 400),
            lane_bytes: dice.between(200, 8_000) as usize,
            replay_bytes: dice.between(2_000, 60_000),
            state_file_bytes: if dice.one_in(2) { dice.between(200, 10_000) } else { 64 << 10 },
            state_memory_bytes: if dice.one_in(2) { dice.between(0, 20_000) } else { 64 << 20 },
            publication_ms: if dice.one_in(3) { 2_000 } else { 4 },
        }
    }

    /// A process that follows its input, and is stopped when nothing can be open any more.
    pub(crate) fn rest(dice: &mut Dice) -> Self {
        Self { rests: true, until_end: false, stopped_after_ms: Some(REST_MS), ..Self::quiet(dice) }
    }

    /// Whether a run may come to a bad end by itself.
    fn may_fail(&self, process: &Process) -> bool {
        process.was_hurt() || self.panics_at.is_some()
    }
}

/// How long a process may take to come to its end, by its own clock.
const LONGEST: Duration = Duration::from_secs(600);
/// How long it takes at most until all hours are sealed: those of several regions in a row, and revisions in each.
const REST_MS: u64 = 300_000;

/// What became of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Became {
    Finished,
    Stopped,
    Dead,
    /// It ended with this, which was no wonder.
    Failed(String),
    /// It ended with this, and should not have; or did not come to an end.
    Wrong(String),
}

/// Lets a process live.
pub(crate) fn live(world: &World, fate: &Fate, dice: &mut Dice) -> Became {
    let mut schedule = dice.split();
    let mut points = 0;
    let panics_at = fate.panics_at;
    let publication_ms = fate.publication_ms;
    decide_by(Some(Box::new(move |name| {
        points += 1;
        match schedule.below(8) {
            _ if panics_at == Some(points) => Decision::Panic,
            _ if name == "publication-begins" => {
                Decision::Wait(Duration::from_millis(schedule.between(0, publication_ms)))
            }
            0..=2 => Decision::Wait(Duration::from_millis(schedule.between(1, 4))),
            3 => Decision::Wait(Duration::ZERO),
            _ => Decision::GoOn,
        }
    })));
    state_files_of(Some(fate.state_file_bytes));
    steps_of(Some(world.step_hours));
    let runtime = || {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().expect("a runtime")
    };
    let became = actix_rt::System::with_tokio_rt(runtime).block_on(run(world, fate, dice));
    decide_by(None);
    became
}

async fn run(world: &World, fate: &Fate, dice: &mut Dice) -> Became {
    let process = Process::start(world.machine.clone(), fate.weather.clone(), dice.split());
    let registry = registry(world, fate, &process, dice);
    let plan = world.shape.plan(&registry, world.input.partitions.len());
    let config = RunConfig {
        state_root: world.state_root.clone(),
        output_root: world.output_root.clone(),
        reads: tidemill_runtime::Reads::All,
        until_end: fate.until_end,
        seal_at: fate.seal_at,
        cut_interval_ms: fate.cut_interval_ms,
        lane_bytes: fate.lane_bytes,
        replay_bytes: fate.replay_bytes,
        state_memory_bytes: fate.state_memory_bytes,
        drain_ms: 60_000,
        heartbeat_ms: 60_000,
        clusters: Arc::default(),
        admin: None,
        host: Arc::new(process.clone()),
    };
    let ended = async {
        let lock = StateLock::take(&world.lock_dir)?;
        let running = tidemill_runtime::start_locked(plan, registry, config, lock)?;
        let handle = running.handle();
        let mut open = Vec::new();
        let stops = async {
            match fate.stopped_after_ms {
                Some(after_ms) => tokio::time::sleep(Duration::from_millis(after_ms)).await,
                None => std::future::pending().await,
            }
            if fate.rests {
                open = still_open(&handle.status());
            }
            handle.stop();
            std::future::pending().await
        };
        let ended = tokio::select! {
            biased;
            ended = running.wait() => ended,
            never = stops => never,
        };
        if !open.is_empty() {
            let what = format!("I10: hours are open although all is read and quiet: {open:?}");
            world.violations.lock().expect("nobody panicked").push(what);
        }
        ended
    };
    let dies = async {
        let killed_after = fate.killed_after_ms.map_or(LONGEST * 2, Duration::from_millis);
        let killed_at = tokio::time::Instant::now() + killed_after;
        while !process.is_dead() && tokio::time::Instant::now() < killed_at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let became = tokio::select! {
        biased;
        ended = ended => became(ended, fate, &process),
        () = dies => Became::Dead,
        () = tokio::time::sleep(LONGEST) => Became::Wrong("it does not come to its end".into()),
    };
    world.machine.lock().expect("nobody panicked").now_ms = process.now_ms();
    process.die();
    became
}

/// Stages that hold hours open, and types. Those of dead letters go by the clock.
fn still_open(status: &Status) -> Vec<String> {
    let stages = status.stages.iter().filter(|stage| stage.open_hours > 0 && stage.name != "dead_letters");
    let stages = stages.map(|stage| format!("{} hours in `{}`", stage.open_hours, stage.name));
    let types = status.types.iter().filter(|of| of.open_hours > 0);
    let types = types
        .map(|of| format!("{} of `{}` at {:?}, held by {:?}", of.open_hours, of.name, of.watermark_ms, of.held_by));
    stages.chain(types).collect()
}

fn became(ended: Result<Ended, RunError>, fate: &Fate, process: &Process) -> Became {
    match ended {
        // Whatever it says, it said so when it was dead.
        _ if process.is_dead() => Became::Dead,
        Ok(Ended::Finished) => Became::Finished,
        Ok(Ended::Stopped) => Became::Stopped,
        Err(error @ (RunError::Io { .. } | RunError::Internal(_))) if fate.may_fail(process) => {
            Became::Failed(error.chain())
        }
        Err(error) => Became::Wrong(error.chain()),
    }
}

fn registry(world: &World, fate: &Fate, process: &Process, dice: &mut Dice) -> Registry {
    let mut registry = Registry::default();
    let trouble = Trouble {
        dice: dice.split(),
        left: fate.troubles,
        one_in: fate.trouble_one_in,
        struck: Default::default(),
        cuts_up: world.shape.poisons.is_some(),
    };
    let trouble = Arc::new(Mutex::new(trouble));
    for inner in stage_kinds() {
        let is_poisoned = world.shape.poisons == Some(inner.spec().name);
        registry.add_stage(Arc::new(Shaky { inner, trouble: trouble.clone(), is_poisoned }));
    }
    registry.add_source(Arc::new(Rolled {
        input: world.input.clone(),
        process: process.clone(),
        dice: Mutex::new(dice.split()),
        stuck: fate.stuck,
        errors_left: Arc::new(AtomicU64::new(5)),
        told: world.told.clone(),
        violations: world.violations.clone(),
    }));
    let started_ms = process.now_ms();
    let reach = Reach {
        outside: world.outside.clone(),
        process: process.clone(),
        dice: Arc::new(Mutex::new(dice.split())),
        closed_ms: fate.closed_ms.map(|(from, to)| (started_ms + from as i64, started_ms + to as i64)),
    };
    registry.add_sink(Atomic(reach.clone()));
    registry.add_sink(Keyed(reach));
    registry
}
