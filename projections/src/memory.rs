//! Rows in memory: the reference that every store must agree with, and the store of tests and scratch replays.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// By table, so that a key can be looked up as it is.
    tables: [BTreeMap<Key, Value>; Table::ALL.len()],
}

impl Memory {
    /// All rows of a table, in the order of their keys.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&Key, &Value)> {
        self.tables[table as usize].iter()
    }

    pub fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }
}

impl Rows for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let range = self.tables[table as usize].range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
        let own = |(k, v): (&Key, &Value)| (k.clone(), v.clone());
        Ok(match order {
            Order::Ascending => range.map(own).take(limit).collect(),
            Order::Descending => range.rev().map(own).take(limit).collect(),
        })
    }
}

impl RowsMut for Memory {
    fn put(&mut self, table: Table, key: Key, value: Value) {
        self.tables[table as usize].insert(key, value);
    }

    fn remove(&mut self, table: Table, key: Key) {
        self.tables[table as usize].remove(&key);
    }
}
