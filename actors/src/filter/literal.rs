//! Literals as values of a column.

use super::parser::Compare;
use super::typed::Test;

/// A number `floor`, or, when not `exact`, one between it and the next whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) floor: i128,
    pub(super) exact: bool,
}

impl Bound {
    pub(super) fn of_integer(value: i64) -> Self {
        Self { floor: value.into(), exact: true }
    }

    /// Saturates, which is far outside of what a column holds.
    pub(super) fn of_float(value: f64) -> Self {
        Self { floor: value.floor() as i128, exact: value.fract() == 0.0 }
    }

    /// An RFC 3339 time, or a date or a time of day without an offset, which are UTC; in units of so many nanoseconds.
    pub(super) fn of_time(text: &str, unit_ns: i128) -> Option<Self> {
        let civil = |text: &str| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            Some(civil.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        };
        let time: jiff::Timestamp = text.parse().ok().or_else(|| civil(text))?;
        let ns = time.as_nanosecond();
        Some(Self { floor: ns.div_euclid(unit_ns), exact: ns.rem_euclid(unit_ns) == 0 })
    }

    /// A date such as `2024-02-29`, in days since 1970.
    pub(super) fn of_date(text: &str) -> Option<Self> {
        let date: jiff::civil::Date = text.parse().ok()?;
        let midnight = date.to_zoned_datetime(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Self::of_integer(midnight.as_second().div_euclid(86_400)))
    }

    /// The whole number that it is, if a column of 64 bits can hold it.
    pub(super) fn whole(self) -> Option<i64> {
        i64::try_from(self.floor).ok().filter(|_| self.exact)
    }

    /// The comparison of a whole number with it, done in whole numbers.
    pub(super) fn test(self, op: Compare) -> Test {
        let Ok(value) = i64::try_from(self.floor) else {
            let above = self.floor > 0;
            return Test::Fixed(match op {
                Compare::Equal => false,
                Compare::NotEqual => true,
                Compare::Less | Compare::LessOrEqual => above,
                Compare::Greater | Compare::GreaterOrEqual => !above,
            });
        };
        let op = match (op, self.exact) {
            (Compare::Equal, false) => return Test::Fixed(false),
            (Compare::NotEqual, false) => return Test::Fixed(true),
            (Compare::Less, false) => Compare::LessOrEqual,
            (Compare::GreaterOrEqual, false) => Compare::Greater,
            (op, _) => op,
        };
        Test::Whole { op, value }
    }
}
