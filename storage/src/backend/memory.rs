//! The store in this process: gone with it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::rows::{self, Change, Read, Table};
use super::{Done, Write};
use crate::StorageError;

/// Ordered tables in memory, bounded in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    tables: RwLock<Tables>,
}

#[derive(Debug)]
pub(super) struct Tables {
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    bytes: usize,
    max_bytes: usize,
}

impl Memory {
    /// An empty store that refuses new sessions beyond `max_bytes`.
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self { tables: RwLock::new(Tables { rows: BTreeMap::new(), bytes: 0, max_bytes }) }
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        // A panic while the lock was held cannot have left half a change: nothing in `rows` panics.
        read(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn write(&self, write: &Write) -> Result<Done, StorageError> {
        rows::apply(&mut *self.tables.write().unwrap_or_else(PoisonError::into_inner), write)
    }
}

impl Read for Tables {
    fn find(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.rows.get(&(table as u8, key.to_vec())).cloned())
    }

    fn keys(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
        let range = (Bound::Included((table as u8, from.to_vec())), Bound::Excluded((table as u8, to.to_vec())));
        Ok(self.rows.range(range).take(limit).map(|((_, key), _)| key.clone()).collect())
    }
}

impl Change for Tables {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let old = self.rows.insert((table as u8, key.to_vec()), value.to_vec());
        self.bytes = match old {
            Some(old) => self.bytes.saturating_sub(old.len()),
            None => self.bytes.saturating_add(key.len() + OVERHEAD),
        }
        .saturating_add(value.len());
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StorageError> {
        if let Some(old) = self.rows.remove(&(table as u8, key.to_vec())) {
            self.bytes = self.bytes.saturating_sub(key.len() + OVERHEAD + old.len());
        }
        Ok(())
    }

    fn room(&self) -> Result<(), StorageError> {
        if self.bytes < self.max_bytes { Ok(()) } else { Err(StorageError::unavailable("the store in memory is full")) }
    }
}

/// What a map entry costs beside its bytes, roughly: two vectors and its share of a tree node.
const OVERHEAD: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn spend(number: u8) -> Write {
        Write::Spend { key: [number; 32], until: 10 }
    }

    #[test]
    fn r_010_a_full_store_refuses_what_is_new_and_has_room_again_when_things_end() {
        let memory = Memory::new(500);
        let refused = (0..=255).find(|number| memory.write(&spend(*number)).is_err());
        let refused = refused.expect("it grows without a bound");
        assert!(refused > 0 && matches!(memory.write(&spend(0)), Ok(Done::Refused)), "what is there is still known");
        assert_eq!(memory.write(&Write::Sweep { before: 20, limit: 100 }).unwrap(), Done::Swept(refused.into()));
        assert_eq!(memory.read(|tables| tables.bytes), 0, "every byte is accounted for");
        assert_eq!(memory.write(&spend(refused)).unwrap(), Done::Applied);
    }
}
