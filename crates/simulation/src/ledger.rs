//! The ledger by itself, over many lives on a disk that loses what was not synced: what it has confirmed is there for ever, what it says was written, and nothing in
//! between is missing.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tidemill_runtime::fuzzing::{LedgerAlone, Said};
use tidemill_runtime::{Host, RunError};

use crate::dice::Dice;
use crate::machine::{EPOCH_MS, Machine, Process, Weather};

const LIVES: u64 = 12;

fn weather(dice: &mut Dice) -> Weather {
    let dies_at = dice.one_in(2).then(|| dice.between(1, 90));
    let no_room = dice.one_in(3).then(|| {
        let from = dice.below(80);
        (from, from + dice.between(1, 6))
    });
    Weather { dies_at, no_room, failing_syncs: dice.one_in(3).then(|| dice.between(2, 20)), ..Weather::default() }
}

/// What the lives of one ledger have come to.
#[derive(Debug, Default)]
struct Tally {
    confirmed: u64,
    /// Starts that found a record which was never confirmed.
    unconfirmed: u64,
    /// Starts behind a failure of the power.
    outages: u64,
    retries: u64,
    rotations: u64,
}

/// One life: opens the ledger, compares what it says with what it may say, and appends until it fails or ends.
fn live(host: &Arc<dyn Host>, process: &Process, dice: &mut Dice, known: &mut Vec<Said>, tally: &mut Tally) {
    let act = |said: Said| {
        assert!(known.contains(&said), "it says {said:?}, not one of {known:?}");
        tally.unconfirmed += u64::from(said != known[0]);
        // What is done about it can't be called back, whether the start succeeds or not.
        *known = vec![said];
    };
    let mut ledger = match LedgerAlone::open(host, Path::new("/state"), act) {
        Ok(ledger) => ledger,
        Err(error) => {
            assert!(process.is_dead() || process.was_hurt(), "a start failed: {error}");
            return;
        }
    };
    for _ in 0..dice.between(0, 25) {
        loop {
            // What is tried after a failure is another record, which may be shorter.
            let log = "x".repeat(dice.between(1, 5) as usize);
            let next = known[0].with(dice.next(), &log, dice.below(1 << 40));
            known.push(next.clone());
            match ledger.append(&next, &log) {
                Ok(()) => {
                    *known = vec![next];
                    break;
                }
                Err(RunError::Io { action: "sync", .. }) => return,
                Err(_) if process.is_dead() => return,
                Err(_) => tally.retries += 1,
            }
        }
        tally.confirmed += 1;
        if dice.one_in(6) {
            tally.rotations += 1;
            if ledger.rotate().is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn what_was_confirmed_outlives_every_death_and_nothing_else_is_made_up() {
    let mut tally = Tally::default();
    for seed in 0..2_000 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let machine = Arc::new(Mutex::new(Machine { disk: Default::default(), now_ms: EPOCH_MS }));
        machine.lock().unwrap().disk.create_dir(Path::new("/state")).unwrap();
        machine.lock().unwrap().disk.sync_everything();
        // Confirmed, and what may be there instead.
        let mut known = vec![Said::default()];
        for life in 0..LIVES {
            let weather = if life + 1 == LIVES { Weather::default() } else { weather(&mut dice) };
            let process = Process::start(machine.clone(), weather, dice.split());
            let host: Arc<dyn Host> = Arc::new(process.clone());
            live(&host, &process, &mut dice, &mut known, &mut tally);
            process.die();
            if dice.one_in(2) {
                tally.outages += 1;
                machine.lock().unwrap().disk.lose_power(&mut dice);
            }
        }
    }
    println!("{tally:?}");
    let Tally { confirmed, unconfirmed, outages, retries, rotations } = tally;
    assert!(
        [confirmed, unconfirmed, outages, retries, rotations].iter().all(|count| *count > 100),
        "it says something"
    );
}
