//! Finds one of a few names known beforehand: event types and enum symbols.

/// Names by their text. A look-up costs one multiplication and, nearly always, one comparison.
#[derive(Clone, Debug)]
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    /// Number of a name plus one, or 0; a power of two long and at most a quarter full.
    slots: Vec<u32>,
    shift: u32,
}

impl Names {
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<Box<[u8]>> = names.into_iter().map(|name| name.as_bytes().into()).collect();
        let size = (names.len() * 4).next_power_of_two().max(4);
        let mut made = Self { slots: vec![0; size], shift: 64 - size.trailing_zeros(), names };
        for (number, name) in made.names.iter().enumerate() {
            let mut slot = made.home(name);
            while made.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            made.slots[slot] = number as u32 + 1;
        }
        made
    }

    #[inline]
    fn home(&self, text: &[u8]) -> usize {
        (fingerprint(text).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Number of the name, in the order given.
    #[inline]
    pub(super) fn find(&self, text: &[u8]) -> Option<usize> {
        let mut slot = self.home(text);
        loop {
            let number = (self.slots[slot] as usize).checked_sub(1)?;
            if *self.names[number] == *text {
                return Some(number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

/// A number made of the length and both ends of a text.
#[inline]
fn fingerprint(text: &[u8]) -> u64 {
    let ends = if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        u64::from_le_bytes(*head) ^ u64::from_le_bytes(*tail).rotate_left(23)
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << 32
    } else if let [first, .., last] = text {
        u64::from(*first) | u64::from(text[text.len() / 2]) << 8 | u64::from(*last) << 16
    } else {
        text.first().map_or(0, |byte| u64::from(*byte))
    };
    ends ^ (text.len() as u64) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_nothing_else() {
        let texts: Vec<String> =
            (0..300).map(|at| format!("{}{at}{}", "n".repeat(at % 19), "m".repeat(at % 7))).collect();
        let names = Names::new(texts.iter().map(String::as_str));
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(names.find(text.as_bytes()), Some(at));
            assert_eq!(names.find(format!("{text}x").as_bytes()), None);
        }
        assert_eq!(names.find(b""), None);
        assert_eq!(Names::new([]).find(b"a"), None);
        assert_eq!(Names::new(["", "a"]).find(b""), Some(0));
    }
}
