//! What a fold sees of rows: its own table.

use postledger_events::Record;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Order, Projection, Rows, RowsMut, Table};

/// Folds one record. A fold sees its own table only and never scans: whatever else it read could not be rebuilt alone.
pub(super) fn fold(projection: &Projection, record: &Record, rows: &mut impl RowsMut) -> Result<(), Error> {
    (projection.fold)(record, &mut OwnTable { rows, table: projection.table })
}

struct OwnTable<'a, R> {
    rows: &'a mut R,
    table: Table,
}

impl<R: RowsMut> OwnTable<'_, R> {
    fn check(&self, table: Table, what: &str) -> Result<(), Error> {
        let why = || format!("the fold of {:?} {what}", self.table);
        if table == self.table { Ok(()) } else { Err(Error::new(table, why())) }
    }
}

impl<R: RowsMut> Rows for OwnTable<'_, R> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        self.check(table, "reads it")?;
        self.rows.get(table, key)
    }

    fn scan(&self, table: Table, _: &[u8], _: &[u8], _: Order, _: usize) -> Result<Vec<(Key, Value)>, Error> {
        Err(Error::new(table, format!("the fold of {:?} scans it", self.table)))
    }
}

impl<R: RowsMut> RowsMut for OwnTable<'_, R> {
    fn put(&mut self, table: Table, key: Key, value: Value) {
        assert_eq!(table, self.table, "a fold writes its own table");
        self.rows.put(table, key, value);
    }

    fn remove(&mut self, table: Table, key: Key) {
        assert_eq!(table, self.table, "a fold writes its own table");
        self.rows.remove(table, key);
    }
}
