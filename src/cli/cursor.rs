//! `cursor`: how far groups of consumers have read the events.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::id::{AccountName, CursorName, Seq};
use postledger_web::api::cursors::{self, Place};

use super::Session;
use super::error::Error;
use super::out::second;
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Cursor {
    /// List the cursors of an account, or the operators'
    List {
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Move a cursor, also back; it is made if there is none
    Set {
        cursor: CursorName,
        /// Everything up to this record has been dealt with
        seq: Seq,
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Forget a cursor
    Remove {
        cursor: CursorName,
        #[arg(long)]
        account: Option<AccountName>,
    },
}

const EXAMPLES: &str = "\
Examples:
  postledger cursor list --account shop
  postledger cursor set billing 120000 --account shop    billing reads again what came after record 120000
  postledger cursor remove billing --account shop
  postledger events list --cursor billing --account shop";

impl Cursor {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Cursor::List { account } => list(session, account.as_ref()).await,
            Cursor::Set { cursor, seq, account } => {
                let path = Query::path(&["cursors", cursor.as_str()]).with("account", account.as_ref());
                session.client.tell(Method::PUT, path, &Place { seq }).await?;
                session.out.said(format!("{cursor} is at record {seq}"))
            }
            Cursor::Remove { cursor, account } => {
                let path = Query::path(&["cursors", cursor.as_str()]).with("account", account.as_ref());
                session.client.delete(path).await?;
                session.out.said(format!("forgot {cursor}"))
            }
        }
    }
}

async fn list(session: &mut Session, account: Option<&AccountName>) -> Result<(), Error> {
    let query = Query::path(&["cursors"]).with("account", account);
    let all: Vec<cursors::Cursor> = session.client.list(query, usize::MAX).await?;
    session.out.list(&all, ["CURSOR", "AT", "SET", "BY"], |c| {
        [c.cursor.to_string(), c.seq.to_string(), second(c.set), c.by.clone()]
    })
}
