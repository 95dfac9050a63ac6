//! The secret of a state directory.

use std::fmt;

/// A random key that only the owner of a state directory knows. Whoever knows it can make an event that `dedup` takes
/// for another one.
#[derive(Clone, PartialEq, Eq)]
pub struct StateKey([u8; 16]);

impl StateKey {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key of a text of 32 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }

    /// The same as text, for the file that keeps it and nothing else.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// Its bytes, for a keyed hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_shown_to_nobody() {
        let key = StateKey::new([7; 16]);
        assert_eq!(StateKey::parse(&key.text()), Some(key.clone()));
        assert_eq!(format!("{key:?}"), "StateKey(..)");
        assert_eq!(StateKey::parse(&key.text()[1..]), None);
        assert_eq!(StateKey::parse(&format!("+{}", &key.text()[1..])), None);
    }
}
