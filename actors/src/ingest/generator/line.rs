//! An event as a line: digits come from tables of pairs, and the line is put together on the stack.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::Event;
use super::names::{COUNTRIES, PLATFORMS, TYPES};

/// Longest line that can be: names of 16 and 15 bytes, 20 digits of time, 10 of time played, and what has a fixed width.
const MAX_LINE: usize = 192;
const HEX: [[u8; 2]; 256] = pairs(b"0123456789abcdef");
const DECIMAL: [[u8; 2]; 100] = pairs(b"0123456789");
const BASE62: [[u8; 2]; 3844] = pairs(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

const fn pairs<const N: usize>(digits: &[u8]) -> [[u8; 2]; N] {
    let mut table = [[0; 2]; N];
    let mut index = 0;
    while index < N {
        table[index] = [digits[index / digits.len()], digits[index % digits.len()]];
        index += 1;
    }
    table
}

/// Text put together on the stack: appending a line to the output is then one copy.
struct Text {
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl Text {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    #[inline]
    fn tab(&mut self) {
        self.put(b"\t");
    }

    #[inline]
    fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let (mut rest, mut at) = (number, 20);
        while rest >= 100 {
            at -= 2;
            digits[at..at + 2].copy_from_slice(&DECIMAL[(rest % 100) as usize]);
            rest /= 100;
        }
        at -= 2;
        digits[at..at + 2].copy_from_slice(&DECIMAL[rest as usize]);
        at += usize::from(rest < 10);
        self.put(&digits[at..]);
    }
}

impl Event {
    /// The id as it is written.
    #[must_use]
    #[inline]
    pub fn id_text(&self) -> [u8; 32] {
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.id.to_be_bytes()) {
            pair.copy_from_slice(&HEX[byte as usize]);
        }
        text
    }

    /// Appends the event as a line, with its line feed.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut text = Text { bytes: [0; MAX_LINE], len: 0 };
        text.put(TYPES[self.event_type as usize].0.as_bytes());
        text.tab();
        text.put(&self.id_text());
        text.tab();
        if self.time_ms < 0 {
            text.put(b"-");
        }
        text.number(self.time_ms.unsigned_abs());
        text.put(b"\tu");
        let mut user = [0; 8];
        let mut rest = self.user;
        for pair in user.chunks_exact_mut(2).rev() {
            pair.copy_from_slice(&DECIMAL[(rest % 100) as usize]);
            rest /= 100;
        }
        text.put(&user[1..]);
        text.tab();
        text.put(COUNTRIES[self.country as usize].as_bytes());
        text.tab();
        text.put(&track_text(self.track));
        text.tab();
        text.number(u64::from(self.ms_played));
        text.tab();
        text.put(PLATFORMS[self.platform as usize].0.as_bytes());
        text.put(b"\n");
        out.extend_from_slice(&text.bytes[..text.len]);
    }
}

/// The name of a track: its number, spread over 22 characters.
#[inline]
fn track_text(track: u64) -> [u8; 22] {
    let mut numbers = SplitMix64::seed_from_u64(track);
    let mut text = [0; 22];
    for half in text.chunks_exact_mut(11) {
        // Digits from the top of a fraction: a multiplication each, where the usual way takes a division.
        let mut fraction = numbers.next_u64();
        let mut digits = [0; 12];
        for pair in digits.chunks_exact_mut(2) {
            let product = u128::from(fraction) * 3844;
            pair.copy_from_slice(&BASE62[(product >> 64) as usize]);
            fraction = product as u64;
        }
        half.copy_from_slice(&digits[..11]);
    }
    text
}
