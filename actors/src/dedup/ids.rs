//! The 16-byte ids of events: SipHash-1-3-128 of the bytes of an event's key, keyed by the secret of the state
//! directory.
//!
//! That is then XORed with a hash of the type's name, so that equal keys of two types stay apart. Ids of two state
//! directories can't be compared. Who does not know the secret can't make an event that is taken for another one,
//! whatever its key is: uuids and digits are hashed like all others. Two of 20 million keys are equal by chance with a
//! probability of about 10^-24.

use siphasher::sip128::SipHasher13;
use tidemill_core::{Batch, EventType, KeyColumns, StateKey};

/// Makes the ids of one type.
pub(super) struct IdMaker {
    hasher: SipHasher13,
    /// Indexes of the key fields.
    fields: Vec<usize>,
    salt: u128,
}

impl IdMaker {
    pub(super) fn new(key: &StateKey, event_type: &EventType, fields: Vec<usize>) -> Self {
        let hasher = SipHasher13::new_with_key(key.bytes());
        let salt = hasher.hash(event_type.name.as_bytes()).as_u128();
        Self { hasher, fields, salt }
    }

    /// Ids of the selected rows.
    pub(super) fn ids(&self, batch: &Batch) -> Vec<u128> {
        let columns = KeyColumns::new(&batch.event_type, &self.fields, &batch.records);
        let mut key = Vec::new();
        let id = |row: usize| {
            // A key of one text is that text: no copy of it is made.
            let hash = match columns.single_text(row) {
                Some(text) => self.hasher.hash(text.as_bytes()),
                None => {
                    columns.key_bytes(row, &mut key);
                    self.hasher.hash(&key)
                }
            };
            hash.as_u128() ^ self.salt
        };
        columns.touch(batch.indexes());
        batch.indexes().map(id).collect()
    }
}
