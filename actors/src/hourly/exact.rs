//! Sums of floats that are exact, so that they do not depend on the order of the values.
//!
//! A finite float is a whole number of 53 bits times a power of two; all of them are multiples of the least one,
//! 2^-1074. A sum is kept as a whole number of these, in digits of 32 bits, as in the small superaccumulator of Neal
//! (2015), "Fast Exact Summation Using Small and Large Superaccumulators", but of those digits only that the values
//! reach: three to five for values that are alike, 67 for all that there are. What is shown is the nearest float to
//! the sum, or to the mean; of two that are equally near, the even one.

use serde::{Deserialize, Serialize};

/// Bits of a digit. What is added to one at a time is less than 2 to the power of this.
const DIGIT_BITS: usize = 32;
/// After so many additions digits are made small again: 2^31 of them fit.
const ADDED_MAX: u32 = 1 << 30;
/// Digits below the point that a mean is worked out to, for its rounding.
const BELOW: usize = 2;

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ExactSum {
    /// Number of the lowest digit that is kept.
    first: u8,
    /// Each counts for 2^32 of the one before it. They may be negative, and greater than their base.
    digits: Vec<i64>,
    /// Additions since the digits were made small.
    added: u32,
    /// Values that are no numbers: how many of each sort is no matter.
    has_nan: bool,
    has_infinity: bool,
    has_negative_infinity: bool,
}

impl ExactSum {
    /// Adds a value: some nanoseconds.
    pub(super) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.has_nan |= value.is_nan();
            self.has_infinity |= value == f64::INFINITY;
            self.has_negative_infinity |= value == f64::NEG_INFINITY;
            return;
        }
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) as usize & 0x7ff, bits & ((1 << 52) - 1));
        if exponent == 0 && fraction == 0 {
            return;
        }
        // The value is `mantissa` times 2 to the power of `position`, counted from the least float on.
        let (mantissa, position) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let shifted = u128::from(mantissa) << (position % DIGIT_BITS);
        let at = position / DIGIT_BITS;
        self.reach(at, at + 3);
        let from = at - usize::from(self.first);
        for (number, digit) in self.digits[from..from + 3].iter_mut().enumerate() {
            let part = (shifted >> (number * DIGIT_BITS)) as u32;
            *digit += if value > 0.0 { i64::from(part) } else { -i64::from(part) };
        }
        self.added += 1;
        if self.added >= ADDED_MAX {
            self.carry();
        }
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.has_nan |= other.has_nan;
        self.has_infinity |= other.has_infinity;
        self.has_negative_infinity |= other.has_negative_infinity;
        if self.added.saturating_add(other.added) >= ADDED_MAX {
            self.carry();
            other.carry();
        }
        let first = usize::from(other.first);
        if other.digits.is_empty() {
            return;
        }
        self.reach(first, first + other.digits.len());
        let from = first - usize::from(self.first);
        for (digit, more) in self.digits[from..].iter_mut().zip(&other.digits) {
            *digit += more;
        }
        // A digit that was made small counts for one addition.
        self.added += other.added + 1;
    }

    /// Makes room for the digits from `from` to the one before `to`.
    fn reach(&mut self, from: usize, to: usize) {
        if self.digits.is_empty() {
            self.first = from as u8;
        }
        let first = usize::from(self.first);
        if from < first {
            self.digits.splice(0..0, std::iter::repeat_n(0, first - from));
            self.first = from as u8;
        }
        let first = usize::from(self.first);
        if first + self.digits.len() < to {
            self.digits.resize(to - first, 0);
        }
    }

    /// Makes all digits but the last one less than their base, and not negative.
    fn carry(&mut self) {
        let mut over = 0;
        for digit in &mut self.digits {
            let sum = *digit + over;
            over = sum >> DIGIT_BITS;
            *digit = sum & ((1 << DIGIT_BITS) - 1);
        }
        if over != 0 {
            self.digits.push(over);
        }
        self.added = 0;
    }

    /// The sum divided by a number that is not 0: by 1, the sum itself.
    pub(super) fn over(&self, count: u64) -> f64 {
        match (self.has_nan, self.has_infinity, self.has_negative_infinity) {
            (true, ..) | (_, true, true) => return f64::NAN,
            (_, true, _) => return f64::INFINITY,
            (_, _, true) => return f64::NEG_INFINITY,
            _ => {}
        }
        let mut whole = self.clone();
        whole.carry();
        let is_negative = whole.digits.last().is_some_and(|last| *last < 0);
        if is_negative {
            whole.digits.iter_mut().for_each(|digit| *digit = -*digit);
            whole.carry();
        }
        // From the highest digit down, as on paper; the last digits are below the least float.
        let zeros = usize::from(self.first) + BELOW;
        let digits = std::iter::repeat_n(0, zeros).chain(whole.digits.iter().map(|digit| *digit as u128));
        let mut digits: Vec<u128> = digits.collect();
        let mut rest = 0;
        for digit in digits.iter_mut().rev() {
            let left = rest << DIGIT_BITS | *digit;
            (*digit, rest) = (left / u128::from(count), left % u128::from(count));
        }
        let value = nearest(&digits, rest > 0);
        if is_negative { -value } else { value }
    }
}

/// The float that is nearest to digits of which the first [`BELOW`] are less than the least float; `has_more`: and to
/// a little more.
fn nearest(digits: &[u128], has_more: bool) -> f64 {
    let below = BELOW * DIGIT_BITS;
    let bit = |at: usize| digits[at / DIGIT_BITS] >> (at % DIGIT_BITS) & 1;
    let Some(highest) = (0..digits.len() * DIGIT_BITS).rev().find(|at| bit(*at) == 1) else { return 0.0 };
    // The lowest bit that the float has room for.
    let lowest = highest.saturating_sub(52).max(below);
    let mantissa = (lowest..=highest).rev().fold(0, |mantissa, at| mantissa << 1 | bit(at) as u64);
    let has_half = bit(lowest - 1) == 1;
    let is_above_half = has_half && (has_more || (0..lowest - 1).any(|at| bit(at) == 1));
    let rounds_up = is_above_half || has_half && mantissa & 1 == 1;
    // The bits of a float are one number, exponent and fraction: a mantissa that grows too long by rounding makes the
    // exponent one more.
    let exponent = (lowest - below) as u64;
    let bits = (exponent << 52).saturating_add(mantissa) + u64::from(rounds_up);
    if bits >= f64::INFINITY.to_bits() { f64::INFINITY } else { f64::from_bits(bits) }
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    #[test]
    fn what_rounding_loses_is_there() {
        assert_eq!(sum(&[1e16, 1.0, -1e16]).over(1), 1.0);
        assert_eq!(sum(&[0.1; 10]).over(1), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).over(1), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).over(1), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).over(2), f64::MAX);
        assert_eq!(sum(&[f64::MIN_POSITIVE, 5e-324, -f64::MIN_POSITIVE]).over(1), 5e-324);
        assert_eq!(sum(&[5e-324]).over(2), 0.0, "half of the least one goes to the even one");
        assert_eq!(sum(&[5e-324, 5e-324, 5e-324]).over(2), 1e-323);
        assert_eq!(sum(&[1.0, 1.0, 1.0]).over(3), 1.0);
        assert_eq!(sum(&[1.0]).over(3), 1.0 / 3.0);
        assert_eq!(sum(&[]).over(1).to_bits(), 0);
        assert_eq!(sum(&[-0.0]).over(1).to_bits(), 0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]).over(1), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).over(1).is_nan() && sum(&[f64::NAN]).over(1).is_nan());
    }

    #[test]
    fn a_sum_of_two_is_that_of_the_processor_and_a_quotient_too() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        for _ in 0..50_000 {
            // Half of them with exponents that are near, so that there is something to round.
            let mut value = |near: u64| {
                let bits = random.next_u64();
                let exponent = if near == 0 { bits >> 53 } else { 1_000 + (bits >> 53) % 60 };
                f64::from_bits((bits & 0x800f_ffff_ffff_ffff) | (exponent & 0x7ff) << 52)
            };
            for near in [0, 1] {
                let (a, b) = (value(near), value(near));
                if !a.is_finite() || !b.is_finite() {
                    continue;
                }
                assert_eq!(sum(&[a, b]).over(1).to_bits(), (a + b + 0.0).to_bits(), "{a:e} + {b:e}");
                let count = b.to_bits() % (1 << 53);
                if count > 0 {
                    assert_eq!(sum(&[a]).over(count), a / count as f64, "{a:e} / {count}");
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_values_and_a_snapshot_in_between_change_nothing() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(9);
        for _ in 0..200 {
            let mut values: Vec<f64> = (0..50).map(|_| f64::from_bits(random.next_u64())).collect();
            values.retain(|value| value.is_finite());
            let forward = sum(&values);
            values.sort_by(f64::total_cmp);
            let (first, second) = values.split_at(values.len() / 2);
            let bytes = postcard::to_stdvec(&sum(first)).unwrap();
            let mut sorted: ExactSum = postcard::from_bytes(&bytes).unwrap();
            sorted.added = ADDED_MAX - 3;
            second.iter().for_each(|value| sorted.add(*value));
            assert_eq!(sorted.over(1).to_bits(), forward.over(1).to_bits());
            values.iter().for_each(|value| sorted.add(-value));
            assert_eq!(sorted.over(1), 0.0);
        }
    }
}
