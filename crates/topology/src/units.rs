//! Durations and sizes as they are written in topologies.

/// Milliseconds in the largest unit that divides them: `1h`, `90s`, `250ms`.
pub(crate) fn duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    in_units(ms, &units, "ms").unwrap_or_else(|| "0s".to_owned())
}

/// Bytes in the largest unit that divides them: `1MiB`, `64KiB`, `100B`.
pub(crate) fn size(bytes: u64) -> String {
    in_units(bytes, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "B").unwrap_or_else(|| "0B".to_owned())
}

fn in_units(value: u64, units: &[(&str, u64)], smallest: &str) -> Option<String> {
    let unit = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
    (value > 0).then(|| unit.map_or_else(|| format!("{value}{smallest}"), |(name, by)| format!("{}{name}", value / by)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_what_they_were() {
        for ms in [0, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000, 36_500 * 86_400_000] {
            assert_eq!(tidemill_core::parse_duration_ms(&duration(ms)), Ok(ms));
        }
        for bytes in [0, 1, 1_023, 1_024, 1_536, 64 << 20, 3 << 30] {
            assert_eq!(tidemill_core::parse_size_bytes(&size(bytes)), Ok(bytes));
        }
    }
}
