//! Where rows are read and written: tables of keys and values, sorted by key. Folds and decisions see no more of a store.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One table for each projection, so that each can be dropped and rebuilt alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Accounts,
    Deliveries,
    Suppressions,
    Fromids,
    Mailboxes,
    Timeline,
    Usage,
    Tally,
    Calls,
    Access,
}

impl Table {
    pub const ALL: [Table; 10] = [
        Table::Accounts,
        Table::Deliveries,
        Table::Suppressions,
        Table::Fromids,
        Table::Mailboxes,
        Table::Timeline,
        Table::Usage,
        Table::Tally,
        Table::Calls,
        Table::Access,
    ];
}

pub type Key = Vec<u8>;
pub type Value = Vec<u8>;

/// Reads rows. All reads of one value see the same moment.
pub trait Rows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error>;

    /// Rows with `start <= key < end`, in the order asked for, at most `limit`.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, Error>;
}

/// Writes rows; what was written is read back at once.
pub trait RowsMut: Rows {
    fn put(&mut self, table: Table, key: Key, value: Value);
    fn remove(&mut self, table: Table, key: Key);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// A row as its projection understands it. Rows are written in postcard, which has no names: a change of a row's type is a new
/// version of its projection, and no field of it may be left out when it is written.
pub fn read<T: DeserializeOwned>(rows: &(impl Rows + ?Sized), table: Table, key: &[u8]) -> Result<Option<T>, Error> {
    match rows.get(table, key)? {
        None => Ok(None),
        Some(value) => parse(table, &value).map(Some),
    }
}

pub fn parse<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(value) {
        Ok((row, [])) => Ok(row),
        Ok((_, rest)) => Err(Error::new(table, format!("{} bytes follow it", rest.len()))),
        Err(e) => Err(Error::new(table, e.to_string())),
    }
}

pub(crate) fn write<T: Serialize>(rows: &mut (impl RowsMut + ?Sized), table: Table, key: Key, row: &T) {
    // Most fit, and are copied to where they stay once their length is known.
    let mut buffer = [0; 512];
    let value = match postcard::to_slice(row, &mut buffer) {
        Ok(value) => value.to_vec(),
        Err(_) => postcard::to_stdvec(row).expect("rows have a known length, and a Vec takes all"),
    };
    rows.put(table, key, value);
}

/// A key of several parts.
pub fn key(parts: &[&[u8]]) -> Key {
    parts.concat()
}

/// Where the keys end that begin with `prefix`.
pub fn end_of(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end;
        }
        end.pop();
    }
    // Every key begins with a letter, so an all-0xff prefix has no successor and none is needed.
    vec![0xff; 9]
}

/// Rows under `prefix`, from its beginning.
pub fn scan_prefix(
    rows: &(impl Rows + ?Sized),
    table: Table,
    prefix: &[u8],
    limit: usize,
) -> Result<Vec<(Key, Value)>, Error> {
    rows.scan(table, prefix, &end_of(prefix), Order::Ascending, limit)
}

/// All rows under `prefix`, however many there are, read in parts of so many.
pub(crate) fn read_all<T: DeserializeOwned>(
    rows: &(impl Rows + ?Sized),
    table: Table,
    prefix: &[u8],
    part: usize,
) -> Result<Vec<T>, Error> {
    let (mut all, mut start, end) = (Vec::new(), prefix.to_vec(), end_of(prefix));
    loop {
        let found = rows.scan(table, &start, &end, Order::Ascending, part)?;
        for (_, value) in &found {
            all.push(parse(table, value)?);
        }
        match found.last() {
            // The first key that can follow.
            Some((last, _)) if found.len() == part => start = key(&[last, &[0]]),
            Some(_) | None => return Ok(all),
        }
    }
}

/// A row cannot be read: the store failed or the bytes are not what a fold wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub table: Table,
    pub why: String,
    /// The process lacked something for the moment, such as file descriptors: the row may be as it should.
    pub passing: bool,
}

impl Error {
    /// About the row, not about the moment.
    pub fn new(table: Table, why: impl Into<String>) -> Error {
        Error { table, why: why.into(), passing: false }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {:?} cannot be read: {}", self.table, self.why)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    #[test]
    fn all_rows_are_read_whatever_the_parts() {
        let mut rows = Memory::default();
        write(&mut rows, Table::Calls, b"d9".to_vec(), &100);
        write(&mut rows, Table::Calls, b"f".to_vec(), &100);
        for n in 0..6u32 {
            assert_eq!(read_all::<u32>(&rows, Table::Calls, b"e", 3), Ok((0..n).collect()), "{n} rows");
            // Each key begins with the one before it.
            write(&mut rows, Table::Calls, [b"e".as_slice(), &vec![0; n as usize]].concat(), &n);
        }
        for part in 1..9 {
            assert_eq!(read_all::<u32>(&rows, Table::Calls, b"e", part), Ok((0..6).collect()), "{part} at once");
        }
    }
}
