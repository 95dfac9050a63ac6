//! A source whose partitions are looked at as they are, and not as they have moved.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tidemill_core::{PartitionPosition, Source};

/// See the module.
pub struct Followed {
    source: Box<dyn Source>,
    positions: BTreeMap<Arc<str>, PartitionPosition>,
}

impl From<Box<dyn Source>> for Followed {
    fn from(source: Box<dyn Source>) -> Self {
        Self { source, positions: BTreeMap::new() }
    }
}

impl Followed {
    /// All partitions, where they are now.
    pub fn positions(&mut self) -> BTreeMap<Arc<str>, PartitionPosition> {
        let moved = self.source.moved();
        self.positions.extend(moved.positions);
        self.positions.retain(|name, _| !moved.gone.contains(name));
        self.positions.clone()
    }

    /// Those that hold no hour, with the instant until which that is proven.
    pub fn idle_partitions(&mut self) -> BTreeMap<Arc<str>, i64> {
        let (positions, idle) = (self.positions(), self.source.idle());
        positions.into_keys().filter_map(|name| Some((name.clone(), idle.of(&name)?))).collect()
    }
}

impl Deref for Followed {
    type Target = dyn Source;

    fn deref(&self) -> &Self::Target {
        &*self.source
    }
}

impl DerefMut for Followed {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.source
    }
}
