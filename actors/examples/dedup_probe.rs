//! What a probe of `dedup`'s table costs, how much memory an id takes and how long the longest growth step is.
//!
//! `cargo run --release -p tidemill-actors --example dedup_probe`

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidemill_actors::dedup::IdSet;

/// Different ids that look random.
fn id(number: u64) -> u128 {
    let low = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = (low ^ (low >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (u128::from(high) << 64) | u128::from(low ^ (high >> 31))
}

fn per_probe(set: &IdSet, first: u64, among: u64) -> f64 {
    const PROBES: u64 = 4_000_000;
    let start = Instant::now();
    let found = (0..PROBES).filter(|probe| set.contains(id(first + probe.wrapping_mul(0x9e37_79b9) % among))).count();
    black_box(found);
    start.elapsed().as_secs_f64() * 1e9 / PROBES as f64
}

fn main() {
    for size in [1_000_000u64, 20_000_000] {
        let mut set = IdSet::default();
        let (mut longest, mut most_bytes) = (Duration::ZERO, 0.0f64);
        let start = Instant::now();
        for number in 0..size {
            let before = Instant::now();
            set.insert(id(number));
            longest = longest.max(before.elapsed());
            if number > 100_000 && number % 65_536 == 0 {
                most_bytes = most_bytes.max(set.memory_bytes() as f64 / set.len() as f64);
            }
        }
        let insert = start.elapsed().as_secs_f64() * 1e9 / size as f64;
        println!("{size} ids:");
        println!(
            "  insert {insert:.1} ns (with reading the clock), longest step {:.3} ms",
            longest.as_secs_f64() * 1e3
        );
        println!(
            "  probe of a known id {:.1} ns, of a new one {:.1} ns",
            per_probe(&set, 0, size),
            per_probe(&set, size, size)
        );
        let bytes = set.memory_bytes() as f64 / set.len() as f64;
        println!("  {bytes:.1} bytes an id, {most_bytes:.1} at most on the way");
    }
}
