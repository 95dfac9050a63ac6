//! The wall clock of a machine: it may be set, and goes on while the machine is suspended.

use std::time::Duration;

use crate::dice::Dice;

/// What becomes of the clock while one process lives: what happens, and after how many milliseconds of running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Vec<(u64, Turn)>);

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It is set forward by so many milliseconds, or back.
    Step(i64),
    /// The machine is suspended for so many milliseconds.
    Suspended(u64),
}

impl Clock {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let turn = |dice: &mut Dice| {
            let ms = *dice.pick(&[1_500, 10_000, 90_000, 3_600_000]);
            let turn = match dice.below(3) {
                0 => Turn::Step(ms as i64),
                1 => Turn::Step(-(ms as i64)),
                _ => Turn::Suspended(ms),
            };
            (dice.between(1, 3_000), turn)
        };
        Self((0..dice.between(1, 3)).map(|_| turn(dice)).collect())
    }

    fn turns(&self, running: Duration) -> impl Iterator<Item = Turn> {
        let is_over = move |(after_ms, _): &&(u64, Turn)| u128::from(*after_ms) <= running.as_millis();
        self.0.iter().filter(is_over).map(|(_, turn)| *turn)
    }

    /// By how much it is ahead of what it would show otherwise.
    pub(crate) fn ahead_ms(&self, running: Duration) -> i64 {
        let ms = |turn| match turn {
            Turn::Step(ms) => ms,
            Turn::Suspended(ms) => ms as i64,
        };
        self.turns(running).map(ms).sum()
    }

    /// For how long the machine was suspended.
    pub(crate) fn suspended_ms(&self, running: Duration) -> u64 {
        let ms = |turn| if let Turn::Suspended(ms) = turn { ms } else { 0 };
        self.turns(running).map(ms).sum()
    }
}
