//! The 16-byte ids of events.
//!
//! | key | id before the type is mixed in |
//! | --- | --- |
//! | one string field, exactly 32 lower-case hex digits | the 16 bytes they stand for |
//! | one uuid field in its usual form, lower case | its 16 bytes |
//! | everything else | SipHash-1-3-128 of the key bytes, keyed by the identity of the state directory |
//!
//! That is then XORed with a hash of the type's name, so that equal keys of two types stay apart. Ids of two state
//! directories can't be compared, and nobody can make keys collide without knowing the directory's identity. Two of
//! 20 million hashed keys are equal by chance with a probability of about 10^-24.

use sha2::{Digest, Sha256};
use siphasher::sip128::SipHasher13;
use tidemill_core::{Batch, EventType, FieldKind, KeyColumns};

/// Makes the ids of one type.
pub(super) struct IdMaker {
    hasher: SipHasher13,
    /// Indexes of the key fields.
    fields: Vec<usize>,
    salt: u128,
    uuid: bool,
}

impl IdMaker {
    pub(super) fn new(state_id: &str, event_type: &EventType, fields: Vec<usize>) -> Self {
        let digest = Sha256::new().chain_update(b"tidemill dedup ids v1\0").chain_update(state_id).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        let hasher = SipHasher13::new_with_key(&key);
        let salt = hasher.hash(event_type.name.as_bytes()).as_u128();
        let uuid = matches!(fields[..], [field] if event_type.fields[field].kind == FieldKind::Uuid);
        Self { hasher, fields, salt, uuid }
    }

    /// Ids of the selected rows.
    pub(super) fn ids(&self, batch: &Batch) -> Vec<u128> {
        let columns = KeyColumns::new(&batch.event_type, &self.fields, &batch.records);
        let mut key = Vec::new();
        let id = |row: usize| {
            let plain = columns.single_text(row).map(str::as_bytes).and_then(|text| match self.uuid {
                true => uuid_bytes(text),
                false => hex_bytes(text),
            });
            let id = plain.unwrap_or_else(|| {
                columns.key_bytes(row, &mut key);
                self.hasher.hash(&key).as_u128()
            });
            id ^ self.salt
        };
        columns.touch(batch.indexes());
        batch.indexes().map(id).collect()
    }
}

/// The number that 32 lower-case hex digits stand for.
#[inline]
fn hex_bytes(text: &[u8]) -> Option<u128> {
    let text: &[u8; 32] = text.try_into().ok()?;
    let mut id = 0;
    let mut wrong = 0;
    for eight in text.as_chunks::<8>().0 {
        let (value, fault) = eight_digits(*eight);
        id = (id << 32) | u128::from(value);
        wrong |= fault;
    }
    (wrong == 0).then_some(id)
}

/// The number that a uuid such as `123e4567-e89b-12d3-a456-426614174000` stands for.
fn uuid_bytes(text: &[u8]) -> Option<u128> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut digits = [0; 32];
    for (from, to, at) in [(0, 8, 0), (9, 13, 8), (14, 18, 12), (19, 23, 16), (24, 36, 20)] {
        digits[at..at + to - from].copy_from_slice(&text[from..to]);
        if to < 36 && text[to] != b'-' {
            return None;
        }
    }
    hex_bytes(&digits)
}

/// Eight hex digits at once, one a byte of a word; the second number is not 0 when one of them is none.
#[inline]
fn eight_digits(text: [u8; 8]) -> (u32, u64) {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_be_bytes(text);
    let letters = (word >> 6) & ONES;
    let digits = (word & (0x0f * ONES)) + 9 * letters;
    // Written out again they must give the same text; that finds everything else but what is behind `f`.
    let above_nine = ((digits + 0x76 * ONES) >> 7) & ONES;
    let again = digits + 0x30 * ONES + 0x27 * above_nine;
    let fault = (again ^ word) | (digits & (0xf0 * ONES));
    let pairs = (digits | (digits >> 4)) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    ((quads | (quads >> 16)) as u32, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_give_their_number_and_nothing_else_does() {
        assert_eq!(hex_bytes(b"0123456789abcdef00ff10203040506f"), Some(0x0123_4567_89ab_cdef_00ff_1020_3040_506f));
        let valid = *b"0123456789abcdef00ff10203040506f";
        for at in [0, 7, 8, 31] {
            for byte in 0..=255u8 {
                let mut text = valid;
                text[at] = byte;
                let expected = matches!(byte, b'0'..=b'9' | b'a'..=b'f')
                    .then(|| u128::from_str_radix(std::str::from_utf8(&text).unwrap(), 16).unwrap());
                assert_eq!(hex_bytes(&text), expected, "{byte:#x} at {at}");
            }
        }
        assert_eq!(hex_bytes(b"0123456789abcdef"), None);
    }

    #[test]
    fn a_uuid_gives_its_bytes() {
        assert_eq!(
            uuid_bytes(b"123e4567-e89b-12d3-a456-426614174000"),
            Some(0x123e_4567_e89b_12d3_a456_4266_1417_4000)
        );
        assert_eq!(uuid_bytes(b"123e4567+e89b-12d3-a456-426614174000"), None);
        assert_eq!(uuid_bytes(b"123E4567-e89b-12d3-a456-426614174000"), None);
    }
}
