//! Text and numbers to times.

use serde::Deserialize;

/// How times are written: the option `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimeForm {
    /// `2013-01-01T10:15:00Z`, with fractions and offsets.
    Iso8601,
    /// Seconds since 1970.
    EpochS,
    /// Milliseconds since 1970.
    EpochMs,
    /// Microseconds since 1970.
    EpochUs,
}

/// What a timestamp field counts. Finer fractions are rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
}

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTime {
    /// It has not the form.
    Form,
    /// It has, but is too far from 1970 to be held.
    Range,
}

impl TimeForm {
    /// The choices of the option.
    pub(super) const NAMES: &[&str] = &["iso8601", "epoch_s", "epoch_ms", "epoch_us"];

    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Iso8601 => "a time such as 2013-01-31T10:15:00Z or 2013-01-31T10:15:00.25+01:00",
            Self::EpochS => "a number of seconds since 1970",
            Self::EpochMs => "a number of milliseconds since 1970",
            Self::EpochUs => "a number of microseconds since 1970",
        }
    }

    /// Microseconds in one.
    fn micros(self) -> i64 {
        match self {
            Self::EpochS | Self::Iso8601 => 1_000_000,
            Self::EpochMs => 1_000,
            Self::EpochUs => 1,
        }
    }

    /// The time that `text` stands for.
    #[inline]
    pub(super) fn parse(self, text: &[u8], unit: Unit) -> Result<i64, NoTime> {
        if self != Self::Iso8601 {
            return match super::value::long(text) {
                Some(number) => self.whole(number, unit),
                None => self.fraction(text, unit),
            };
        }
        if let Some((seconds, nanos)) = iso(text) {
            return Ok(unit.of(seconds, nanos));
        }
        let text = std::str::from_utf8(text).map_err(|_| NoTime::Form)?;
        let time: jiff::Timestamp = text.parse().map_err(|_| NoTime::Form)?;
        let nanos = time.as_nanosecond();
        Ok(unit.of(nanos.div_euclid(1_000_000_000) as i64, nanos.rem_euclid(1_000_000_000) as u32))
    }

    /// The time that a whole number of this form stands for.
    #[inline]
    pub(super) fn whole(self, number: i64, unit: Unit) -> Result<i64, NoTime> {
        match (self.micros(), unit.micros()) {
            (form, unit) if form >= unit => number.checked_mul(form / unit).ok_or(NoTime::Range),
            (form, unit) => Ok(number.div_euclid(unit / form)),
        }
    }

    /// Numbers with a fraction, and whole ones that 64 bits do not hold.
    fn fraction(self, text: &[u8], unit: Unit) -> Result<i64, NoTime> {
        let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
        let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
        let (whole, rest) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
        if whole.is_empty() || !whole.iter().chain(rest).all(u8::is_ascii_digit) {
            return Err(NoTime::Form);
        }
        let whole = super::value::long(whole).ok_or(NoTime::Range)?;
        // Twelve digits of a second are more than a microsecond needs; what is cut off can only matter to the rounding
        // of negative numbers, so it is kept as one more digit.
        let mut fraction = 0i128;
        for at in 0..12 {
            fraction = fraction * 10 + i128::from(rest.get(at).map_or(0, |byte| byte - b'0'));
        }
        let more = i128::from(rest.iter().skip(12).any(|byte| *byte != b'0'));
        let scaled = (i128::from(whole) * 1_000_000_000_000 + fraction) * 10 + more;
        let scaled = if negative { -scaled } else { scaled } * i128::from(self.micros());
        i64::try_from(scaled.div_euclid(10_000_000_000_000 * i128::from(unit.micros()))).map_err(|_| NoTime::Range)
    }
}

impl Unit {
    /// Microseconds in one.
    fn micros(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1,
        }
    }

    /// Seconds since 1970 (from the years 0 to 9999) and nanoseconds in this unit.
    #[inline]
    fn of(self, seconds: i64, nanos: u32) -> i64 {
        match self {
            Self::Millis => seconds * 1_000 + i64::from(nanos / 1_000_000),
            Self::Micros => seconds * 1_000_000 + i64::from(nanos / 1_000),
        }
    }

    /// Milliseconds of a number of this unit, rounded down.
    #[inline]
    pub(super) fn to_ms(self, value: i64) -> i64 {
        match self {
            Self::Millis => value,
            Self::Micros => value.div_euclid(1_000),
        }
    }
}

/// `YYYY-MM-DD?HH:MM:SS[.f...](Z|+HH:MM|+HHMM|+HH)` as seconds since 1970 and nanoseconds.
/// `None` for all other forms, and for what is no time of the calendar.
#[inline]
fn iso(text: &[u8]) -> Option<(i64, u32)> {
    let (head, tail) = text.split_first_chunk::<19>()?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T' | b't' | b' ', h0, h1, b':', i0, i1, b':', s0, s1] = *head
    else {
        return None;
    };
    let days = days(number([y0, y1])? * 100 + number([y2, y3])?, number([m0, m1])?, number([d0, d1])?)?;
    let (hour, minute, second) = (number([h0, h1])?, number([i0, i1])?, number([s0, s1])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(days) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    if let [b'Z' | b'z'] = tail {
        return Some((seconds, 0));
    }
    let (nanos, zone) = match tail {
        [b'.' | b',', digits @ ..] => {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, zone) = digits.split_at(count);
            if count == 0 {
                return None;
            }
            let nanos =
                (0..9).fold(0, |nanos, at| nanos * 10 + digits.get(at).map_or(0, |byte| u32::from(byte - b'0')));
            (nanos, zone)
        }
        zone => (0, zone),
    };
    Some((seconds - offset(zone)?, nanos))
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match *zone {
        [b'Z' | b'z'] => return Some(0),
        [sign, h0, h1] => (sign, number([h0, h1])?, 0),
        [sign, h0, h1, m0, m1] | [sign, h0, h1, b':', m0, m1] => (sign, number([h0, h1])?, number([m0, m1])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours * 3_600 + minutes * 60);
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// `YYYY-MM-DD` as days since 1970, from the year 1 on.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    match *text {
        [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] => {
            let year = number([y0, y1])? * 100 + number([y2, y3])?;
            days(year, number([m0, m1])?, number([d0, d1])?).filter(|_| year > 0)
        }
        _ => None,
    }
}

#[inline]
fn number([tens, ones]: [u8; 2]) -> Option<i32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then_some(i32::from(tens) * 10 + i32::from(ones))
}

/// Days since 1970 of a day of the calendar. Years begin in March here, so that the leap day is the last.
#[inline]
fn days(year: i32, month: i32, day: i32) -> Option<i32> {
    const LENGTHS: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = i32::from(*LENGTHS.get(usize::try_from(month - 1).ok()?)?) + i32::from(leap && month == 2);
    if day < 1 || day > length {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let century = year.div_euclid(100);
    let days = year * 365 + year.div_euclid(4) - century + century.div_euclid(4) + (month * 153 + 2) / 5 + day - 1;
    Some(days - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Result<i64, NoTime> {
        TimeForm::Iso8601.parse(text.as_bytes(), Unit::Millis)
    }

    #[test]
    fn the_fast_form_agrees_with_jiff_on_every_day_of_400_years() {
        let mut day = jiff::civil::date(1899, 12, 31);
        for _ in 0..146_097 {
            day = day.tomorrow().unwrap();
            let text = format!("{day}T01:02:03Z");
            let expected = text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            assert_eq!(iso(text.as_bytes()), Some((expected / 1000, 0)), "{text}");
        }
    }

    #[test]
    fn iso_times_take_fractions_offsets_and_a_space() {
        assert_eq!(ms("2013-01-01T10:15:00Z"), Ok(1_357_035_300_000));
        assert_eq!(ms("2013-01-01 10:15:00Z"), ms("2013-01-01T10:15:00Z"));
        assert_eq!(ms("2013-01-01T10:15:00.25Z"), Ok(1_357_035_300_250));
        assert_eq!(ms("2013-01-01T10:15:00.123456789123Z"), Ok(1_357_035_300_123));
        assert_eq!(ms("2013-01-01T12:15:00+02:00"), ms("2013-01-01T10:15:00Z"));
        assert_eq!(ms("2013-01-01T04:45:00-0530"), ms("2013-01-01T10:15:00Z"));
        assert_eq!(ms("2013-01-01T09:15:00.5-01"), Ok(1_357_035_300_500));
        assert_eq!(ms("20130101T101500Z"), Ok(1_357_035_300_000), "the other forms are jiff's");
        assert_eq!(TimeForm::Iso8601.parse(b"2013-01-01T10:15:00.1234567Z", Unit::Micros), Ok(1_357_035_300_123_456));
    }

    #[test]
    fn iso_times_reach_the_ends_of_the_calendar() {
        assert_eq!(ms("9999-12-31T23:59:59.999Z"), Ok(253_402_300_799_999));
        assert_eq!(ms("0001-01-01T00:00:00Z"), Ok(-62_135_596_800_000));
        assert_eq!(ms("1969-12-31T23:59:59.999Z"), Ok(-1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "now",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-00-01T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:15:00",
            "2013-01-01",
            "2013-01-01T10:15:00.Z",
            "2013-01-01T10:15:00+26:00",
            "2013-01-01T10:15:00Zx",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(ms(wrong), Err(NoTime::Form), "{wrong}");
        }
    }

    #[test]
    fn epochs_are_scaled_and_rounded_down() {
        let parse = |form: TimeForm, text: &str, unit| form.parse(text.as_bytes(), unit);
        assert_eq!(parse(TimeForm::EpochS, "-1", Unit::Millis), Ok(-1_000));
        assert_eq!(parse(TimeForm::EpochS, "1.5", Unit::Millis), Ok(1_500));
        assert_eq!(parse(TimeForm::EpochS, "-1.5", Unit::Millis), Ok(-1_500));
        assert_eq!(parse(TimeForm::EpochS, "-0.0001", Unit::Millis), Ok(-1));
        assert_eq!(parse(TimeForm::EpochS, "-0.00000000000000001", Unit::Micros), Ok(-1));
        assert_eq!(parse(TimeForm::EpochUs, "-1", Unit::Millis), Ok(-1));
        assert_eq!(parse(TimeForm::EpochUs, "1999", Unit::Millis), Ok(1));
        assert_eq!(parse(TimeForm::EpochMs, "7", Unit::Micros), Ok(7_000));
        assert_eq!(parse(TimeForm::EpochS, "99999999999999999", Unit::Millis), Err(NoTime::Range));
        assert_eq!(parse(TimeForm::EpochMs, "99999999999999999999999", Unit::Millis), Err(NoTime::Range));
        for wrong in ["", "-", ".5", "1.2.3", "1e3", "0x1", "12a", "1.-5"] {
            assert_eq!(parse(TimeForm::EpochMs, wrong, Unit::Millis), Err(NoTime::Form), "{wrong}");
        }
    }

    #[test]
    fn dates_are_days_of_the_calendar() {
        assert_eq!(date(b"1970-01-01"), Some(0));
        assert_eq!(date(b"1969-12-31"), Some(-1));
        assert_eq!(date(b"2012-02-29"), Some(15_399));
        for wrong in ["2013-02-29", "0000-01-01", "2013-1-1", "2013/01/01", "2013-01-01T", ""] {
            assert_eq!(date(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
