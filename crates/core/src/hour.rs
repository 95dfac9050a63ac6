//! Hours: half-open intervals of event time, and the text forms of times, durations and sizes.

use serde::{Deserialize, Serialize};

/// A gap of more hours without events, between two that have some, gets no manifests: a clock that was wrong leaps by
/// years.
pub const GAP_HOURS_MAX: i64 = 10_000;

/// A bucket of event time `[start_ms, start_ms + width_ms)`, in milliseconds since 1970-01-01 UTC.
///
/// It is called an hour whatever its width (1 minute to 1 day).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hour {
    /// First millisecond that belongs to the hour.
    pub start_ms: i64,
    /// Width in milliseconds.
    pub width_ms: i64,
}

impl Hour {
    /// The hour of `width_ms` that `time_ms` falls in. Times before 1970 work too.
    #[must_use]
    pub fn of(time_ms: i64, width_ms: i64) -> Self {
        Self { start_ms: time_ms.div_euclid(width_ms).saturating_mul(width_ms), width_ms }
    }

    /// How many hours of this width lie from its start to `before_ms`.
    #[must_use]
    pub fn count_to(self, before_ms: i64) -> i64 {
        before_ms.saturating_sub(self.start_ms).max(0).div_euclid(self.width_ms)
    }

    /// First millisecond after the hour.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        self.start_ms.saturating_add(self.width_ms)
    }
}

impl std::fmt::Display for Hour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_time_ms(self.start_ms))
    }
}

/// RFC 3339 in UTC, with as many fraction digits as needed; the bare number when it is no date
/// between the years -9999 and 9999.
#[must_use]
pub fn format_time_ms(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).map_or_else(|_| time_ms.to_string(), |time| time.to_string())
}

/// Milliseconds since 1970 of a time in RFC 3339, such as `2025-03-01T10:15:00Z`.
///
/// # Errors
/// A text that says what is wrong and which form it takes.
pub fn parse_time_ms(text: &str) -> Result<i64, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|error| format!("`{text}` is not a time such as \"2025-03-01T10:15:00Z\": {error}"))
}

/// Milliseconds of a duration such as `250ms`, `10s`, `5m`, `1h`, `1d`.
///
/// # Errors
/// A text that says what is wrong and which forms there are.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    parse_with_units(text, &units, "a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"")
}

/// Bytes of a size such as `512B`, `64KiB`, `16MiB`, `1GiB`.
///
/// # Errors
/// A text that says what is wrong and which forms there are.
pub fn parse_size_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    parse_with_units(text, &units, "a size such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"")
}

fn parse_with_units(text: &str, units: &[(&str, u64)], forms: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = units.iter().find(|(name, _)| *name == text[digits..].trim());
    match (text[..digits].parse::<u64>(), unit) {
        (Ok(number), Some((_, factor))) => number.checked_mul(*factor).ok_or_else(|| format!("`{text}` is too large")),
        _ => Err(format!("`{text}` is not {forms}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_before_1970_starts_before_its_events() {
        assert_eq!(Hour::of(-1, 3_600_000).start_ms, -3_600_000);
        assert_eq!(Hour::of(0, 3_600_000).start_ms, 0);
        assert_eq!(Hour::of(-3_600_000, 3_600_000).start_ms, -3_600_000);
    }

    #[test]
    fn durations_and_sizes_name_the_forms_they_take() {
        assert_eq!(parse_duration_ms("24h"), Ok(86_400_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        assert_eq!(parse_time_ms("1970-01-01T01:00:00.5+01:00"), Ok(500));
        assert!(parse_time_ms("yesterday").unwrap_err().contains("T10:15:00Z"));
        assert_eq!(parse_size_bytes("64KiB"), Ok(65_536));
        assert!(parse_duration_ms("10 parsecs").unwrap_err().contains("\"5m\""));
        assert!(parse_duration_ms("99999999999999999d").unwrap_err().contains("too large"));
        assert!(parse_size_bytes("-1B").is_err());
    }
}
