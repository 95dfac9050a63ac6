//! The words that generated events are made of, with their weights.

/// Types of generated events, and how often each comes.
pub(super) const TYPES: [(&str, u32); 20] = [
    ("track_played", 300),
    ("track_started", 180),
    ("track_skipped", 120),
    ("track_paused", 70),
    ("track_resumed", 60),
    ("track_liked", 40),
    ("ad_played", 35),
    ("search_submitted", 30),
    ("playlist_opened", 28),
    ("session_started", 25),
    ("session_ended", 24),
    ("album_opened", 20),
    ("queue_changed", 18),
    ("podcast_played", 15),
    ("device_changed", 12),
    ("playlist_saved", 10),
    ("lyrics_opened", 8),
    ("artist_followed", 6),
    ("podcast_finished", 5),
    ("share_sent", 3),
];

/// Types with something to be heard: only these have a time played.
pub(super) const HEARD: [&str; 8] = [
    "track_played",
    "track_skipped",
    "track_paused",
    "track_resumed",
    "ad_played",
    "podcast_played",
    "podcast_finished",
    "session_ended",
];

/// Platforms, and how often each comes.
pub(super) const PLATFORMS: [(&str, u32); 10] = [
    ("android_phone", 40),
    ("ios_phone", 30),
    ("web_player", 8),
    ("windows_desktop", 7),
    ("macos_desktop", 5),
    ("smart_speaker", 4),
    ("tv", 3),
    ("car", 2),
    ("linux_desktop", 1),
    ("console", 1),
];

/// Countries, the one with most events first; the weight of the `n`-th is 1 / (n + 3).
pub(super) const COUNTRIES: [&str; 60] = [
    "US", "BR", "MX", "GB", "DE", "IN", "ES", "FR", "ID", "IT", "PH", "CA", "AR", "TR", "SE", "AU", "NL", "PL", "CO",
    "CL", "JP", "PE", "TH", "MY", "NO", "DK", "FI", "TW", "VN", "PT", "BE", "CH", "AT", "IE", "CZ", "HU", "RO", "GR",
    "ZA", "EG", "SA", "AE", "IL", "NZ", "SG", "HK", "KR", "EC", "UY", "CR", "GT", "DO", "BO", "PY", "MA", "NG", "KE",
    "UA", "SK", "BG",
];

/// Slots of the tables that draw by weight; a power of two, so that bits of a random number index them.
pub(super) const SLOTS: usize = 4096;

/// A table with as many slots of each index as its weight asks for, at least one.
pub(super) fn draw_table(weights: &[u32]) -> Box<[u8; SLOTS]> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut table = Box::new([0; SLOTS]);
    let mut sum = 0;
    let mut from = 0;
    for (index, weight) in weights.iter().enumerate() {
        sum += u64::from(*weight);
        let to = ((sum * SLOTS as u64 / total) as usize).max(from + 1).min(SLOTS);
        table[from..to].fill(index as u8);
        from = to;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_can_be_drawn_and_the_heavy_ones_more_often() {
        let table = draw_table(&TYPES.map(|(_, weight)| weight));
        let share = |index: u8| table.iter().filter(|slot| **slot == index).count();
        assert!((0..20).all(|index| share(index) > 0));
        assert!(share(0) > 50 * share(19));
    }
}
