//! Rows that are not stored yet, over rows that are: what a batch folds into.

use std::cell::RefCell;
use std::collections::BTreeMap;

use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Order, Rows, RowsMut, Table};

/// Remembers what it read, so that each row is fetched once.
pub(super) struct Overlay<R> {
    base: R,
    layers: Vec<RefCell<BTreeMap<Key, Entry>>>,
}

enum Entry {
    Read(Option<Value>),
    /// `None`: removed. `new`: it is known that the base has no such row.
    Written {
        value: Option<Value>,
        new: bool,
    },
}

impl Entry {
    fn value(&self) -> &Option<Value> {
        match self {
            Entry::Read(value) | Entry::Written { value, .. } => value,
        }
    }
}

impl<R: Rows> Overlay<R> {
    pub(super) fn new(base: R) -> Overlay<R> {
        let layers = Table::ALL.iter().map(|_| RefCell::default()).collect();
        Overlay { base, layers }
    }

    /// What has to be stored of a table, in the order of the keys: the last state of each row, `None` to remove it. Nothing
    /// is held afterwards.
    pub(super) fn take(&mut self, table: Table) -> Vec<(Key, Option<Value>)> {
        let layer = self.layers[table as usize].take();
        layer.into_iter().filter_map(|(key, entry)| change(entry).map(|value| (key, value))).collect()
    }

    fn write(&mut self, table: Table, key: Key, value: Option<Value>) {
        let layer = self.layers[table as usize].get_mut();
        let new = match layer.get(&key) {
            None => false,
            Some(Entry::Read(value)) => value.is_none(),
            Some(Entry::Written { new, .. }) => *new,
        };
        layer.insert(key, Entry::Written { value, new });
    }

    /// What was written between two keys, and how many rows of the base it may hide.
    fn written(&self, table: Table, start: &[u8], end: &[u8]) -> BTreeMap<Key, Option<Value>> {
        let layer = self.layers[table as usize].borrow();
        let range = layer.range::<[u8], _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
        let written = |(key, entry): (&Key, &Entry)| match entry {
            Entry::Read(_) => None,
            Entry::Written { value, .. } => Some((key.clone(), value.clone())),
        };
        range.filter_map(written).collect()
    }
}

/// `None`: there is nothing to store.
fn change(entry: Entry) -> Option<Option<Value>> {
    match entry {
        Entry::Read(_) | Entry::Written { value: None, new: true } => None,
        Entry::Written { value, .. } => Some(value),
    }
}

impl<R: Rows> Rows for Overlay<R> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        let layer = &self.layers[table as usize];
        if let Some(entry) = layer.borrow().get(key) {
            return Ok(entry.value().clone());
        }
        let value = self.base.get(table, key)?;
        layer.borrow_mut().insert(key.to_vec(), Entry::Read(value.clone()));
        Ok(value)
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
        let written = self.written(table, start, end);
        // Each written row hides at most one of the base, so this many are enough.
        let below = self.base.scan(table, start, end, order, limit.saturating_add(written.len()))?;
        if written.is_empty() {
            return Ok(below);
        }
        let mut merged: BTreeMap<Key, Option<Value>> = below.into_iter().map(|(k, v)| (k, Some(v))).collect();
        merged.extend(written);
        let rows = merged.into_iter().filter_map(|(k, v)| v.map(|v| (k, v)));
        Ok(match order {
            Order::Ascending => rows.take(limit).collect(),
            Order::Descending => rows.rev().take(limit).collect(),
        })
    }
}

impl<R: Rows> RowsMut for Overlay<R> {
    fn put(&mut self, table: Table, key: Key, value: Value) {
        self.write(table, key, Some(value));
    }

    fn remove(&mut self, table: Table, key: Key) {
        self.write(table, key, None);
    }
}
