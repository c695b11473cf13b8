//! The meaning of the ledger: pure folds from records to rows, one file per projection. No I/O, no clock, no dice.

pub mod memory;
pub mod rows;

use postledger_events::Record;

pub use memory::Memory;
pub use rows::{Error, Order, Rows, RowsMut, Table};

/// A fold and the table it builds, from records alone.
#[derive(Clone, Copy)]
pub struct Projection {
    /// Its name, in file names and reports.
    pub name: &'static str,
    /// Raised with every change of what the fold does; stored rows of another version are dropped and replayed.
    pub version: u32,
    pub table: Table,
    /// Whether decisions read it: intake waits until it is complete.
    pub decides: bool,
    /// Sees one record and the rows whose keys the record names.
    pub fold: fn(&Record, &mut dyn RowsMut) -> Result<(), Error>,
}

/// All projections.
pub const PROJECTIONS: &[Projection] = &[];
