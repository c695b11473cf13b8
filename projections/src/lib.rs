//! The meaning of the ledger: pure folds from records to rows, one file per projection. No I/O, no clock, no dice.

pub mod access;
pub mod accounts;
pub mod books;
pub mod calls;
pub mod deliveries;
pub mod fromids;
pub mod mailboxes;
pub mod memory;
pub mod news;
pub mod rows;
pub mod secrets;
pub mod suppressions;
pub mod tally;
pub mod timeline;
pub mod usage;

use postledger_events::Record;
use postledger_events::id::MessageUuid;

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
pub const PROJECTIONS: &[Projection] = &[
    Projection { name: "accounts", version: 4, table: Table::Accounts, decides: true, fold: accounts::fold },
    Projection { name: "deliveries", version: 5, table: Table::Deliveries, decides: true, fold: deliveries::fold },
    Projection {
        name: "suppressions",
        version: 4,
        table: Table::Suppressions,
        decides: true,
        fold: suppressions::fold,
    },
    Projection { name: "fromids", version: 2, table: Table::Fromids, decides: false, fold: fromids::fold },
    Projection { name: "mailboxes", version: 3, table: Table::Mailboxes, decides: true, fold: mailboxes::fold },
    Projection { name: "timeline", version: 3, table: Table::Timeline, decides: false, fold: timeline::fold },
    Projection { name: "usage", version: 2, table: Table::Usage, decides: true, fold: usage::fold },
    Projection { name: "access", version: 2, table: Table::Access, decides: true, fold: access::fold },
    Projection { name: "tally", version: 2, table: Table::Tally, decides: false, fold: tally::fold },
    Projection { name: "calls", version: 4, table: Table::Calls, decides: true, fold: calls::fold },
];

/// Applies a record to all projections.
pub fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    PROJECTIONS.iter().try_for_each(|projection| (projection.fold)(record, rows))
}

/// Whether something still needs the stored bytes of this name.
pub fn is_body_live(rows: &(impl Rows + ?Sized), body: MessageUuid) -> Result<bool, Error> {
    let submitted = deliveries::message(rows, body)?.is_some_and(|m| m.contents);
    Ok(submitted || mailboxes::copies(rows, body)? > 0)
}
