//! Rows in memory: the reference that every store must agree with, and the store of tests and scratch replays.

use std::collections::BTreeMap;

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    rows: BTreeMap<(Table, Key), Value>,
}

impl Memory {
    /// All rows of a table, in the order of their keys.
    pub fn table(&self, table: Table) -> impl Iterator<Item = (&Key, &Value)> {
        self.rows.range((table, Key::new())..).take_while(move |((t, _), _)| *t == table).map(|((_, k), v)| (k, v))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Rows for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
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
        let range = self.rows.range((table, start.to_vec())..(table, end.to_vec()));
        let own = |((_, k), v): (&(Table, Key), &Value)| (k.clone(), v.clone());
        Ok(match order {
            Order::Ascending => range.map(own).take(limit).collect(),
            Order::Descending => range.rev().map(own).take(limit).collect(),
        })
    }
}

impl RowsMut for Memory {
    fn put(&mut self, table: Table, key: Key, value: Value) {
        self.rows.insert((table, key), value);
    }

    fn remove(&mut self, table: Table, key: Key) {
        self.rows.remove(&(table, key));
    }
}
