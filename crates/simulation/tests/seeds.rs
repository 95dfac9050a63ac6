//! Some seeds with every build; many more in the fault matrix.

use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_simulation::simulate;

/// Planned panics are many, and say nothing.
fn quietly() {
    std::panic::set_hook(Box::new(|_| {}));
}

#[test]
fn the_invariants_hold_over_power_cuts_and_failures_of_every_sort() {
    quietly();
    let next = AtomicU64::new(1);
    let work = || {
        let dir = tempfile::tempdir().expect("a directory");
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed > 400 {
                return wrong;
            }
            let outcome = simulate(seed, dir.path());
            wrong.extend(outcome.violations.into_iter().map(|what| format!("seed {seed}: {what}")));
        }
    };
    let wrong = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().unwrap_or_else(|_| vec!["a simulation panicked".to_owned()])).concat()
    });
    assert!(wrong.is_empty(), "{}\nagain: cargo run --release -p tidemill-simulation -- --seed N", wrong.join("\n"));
}

#[test]
fn a_seed_gives_the_same_simulation_every_time() {
    quietly();
    let dir = tempfile::tempdir().expect("a directory");
    for seed in 1..=20 {
        let [first, second] = [(); 2].map(|()| simulate(seed, dir.path()));
        assert_eq!((first.digest, first.story), (second.digest, second.story), "seed {seed}");
    }
}
