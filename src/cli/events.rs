//! `events`: the records of the log, each a line of JSON exactly as it stands there.

use clap::{Args, Subcommand};
use futures_util::StreamExt;
use postledger_events::address::Address;
use postledger_events::id::{AccountName, CursorName, MessageUuid, Seq};
use postledger_web::api::events::Part;
use postledger_web::api::page::LIMIT_MAX;

use super::Session;
use super::error::Error;
use super::query::Query;
use super::when::When;

/// How long the server may wait for something to happen before it answers that nothing did.
const WAIT_S: u64 = 25;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Events {
    /// Print the first records that are asked for
    List {
        #[command(flatten)]
        conditions: Conditions,
        /// Records after this one; the next call goes on from the last that was printed
        #[arg(long, default_value_t = Seq(0), value_name = "SEQ")]
        after: Seq,
        /// Begin behind the place that is kept under this name; see `postledger cursor`
        #[arg(long, value_name = "NAME", conflicts_with = "after")]
        cursor: Option<CursorName>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Print records as they are written, until interrupted
    Tail {
        #[command(flatten)]
        conditions: Conditions,
        /// Begin after this record instead of at the end
        #[arg(long, value_name = "SEQ")]
        after: Option<Seq>,
    },
    /// Print all records that are asked for
    Export {
        #[command(flatten)]
        conditions: Conditions,
        /// Begin after this record
        #[arg(long, default_value_t = Seq(0), value_name = "SEQ")]
        after: Seq,
    },
}

const EXAMPLES: &str = "\
Examples:
  postledger events tail --account shop --kind Delivered,DeliveryFailed
  postledger events list --recipient someone@example.net --since -7d
  postledger events list --cursor billing --account shop    what that consumer has not had
  postledger events export > log.jsonl
  postledger events export --after 120000 >> log.jsonl      what came since

Each line holds at least seq, at, kind, v, prev, data and personal; prev is the SHA-256 of the line before.";

/// Which records are meant: those that agree with every condition.
#[derive(Debug, Args)]
pub struct Conditions {
    #[arg(long)]
    account: Option<AccountName>,
    /// The uuid of a message
    #[arg(long, value_name = "UUID")]
    message: Option<MessageUuid>,
    /// Records that name this address, or deliveries to it that are still kept
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<Address>,
    /// Kinds of records, with commas between
    #[arg(long, value_name = "KINDS")]
    kind: Option<String>,
    /// Written at or after this time
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<When>,
    /// Written before this time
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    until: Option<When>,
}

impl Events {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Events::List { conditions, after, cursor, limit } => {
                list(session, &conditions, after, cursor.as_ref(), limit).await
            }
            Events::Tail { conditions, after } => tail(session, &conditions, after).await,
            Events::Export { conditions, after } => export(session, &conditions, after).await,
        }
    }
}

impl Conditions {
    fn query(&self, session: &Session, path: &[&str]) -> Query {
        Query::path(path)
            .with("account", self.account.as_ref())
            .with("message", self.message)
            .with("recipient", self.recipient.as_ref())
            .with("kind", self.kind.as_ref())
            .with("since", self.since.map(|when| when.resolve(session.now)))
            .with("until", self.until.map(|when| when.resolve(session.now)))
    }
}

async fn list(
    session: &mut Session,
    conditions: &Conditions,
    after: Seq,
    mut cursor: Option<&CursorName>,
    limit: usize,
) -> Result<(), Error> {
    let (mut after, mut left) = (after, limit);
    while left > 0 {
        let query = conditions.query(session, &["events"]).with("limit", Some(left.min(LIMIT_MAX)));
        let query = match cursor.take() {
            Some(cursor) => query.with("cursor", Some(cursor)),
            None => query.with("after", Some(after)),
        };
        let part: Part = session.client.get(query).await?;
        print(session, &part)?;
        left -= part.items.len().min(left);
        if part.next >= part.position || part.next == after {
            break;
        }
        after = part.next;
    }
    Ok(())
}

async fn tail(session: &mut Session, conditions: &Conditions, after: Option<Seq>) -> Result<(), Error> {
    let mut after = match after {
        Some(after) => after,
        None => end(session, conditions).await?,
    };
    loop {
        let query = conditions.query(session, &["events"]).with("after", Some(after));
        let part: Part = session.client.get(query.with("wait_s", Some(WAIT_S))).await?;
        print(session, &part)?;
        session.out.finish()?;
        after = part.next;
    }
}

/// The last record there is now.
async fn end(session: &Session, conditions: &Conditions) -> Result<Seq, Error> {
    let part: Part = session.client.get(conditions.query(session, &["events"]).with("limit", Some(1))).await?;
    Ok(part.position)
}

fn print(session: &mut Session, part: &Part) -> Result<(), Error> {
    for item in &part.items {
        session.out.bytes(item.get().as_bytes())?;
        session.out.bytes(b"\n")?;
    }
    Ok(())
}

async fn export(session: &mut Session, conditions: &Conditions, after: Seq) -> Result<(), Error> {
    let query = conditions.query(session, &["events", "export"]).with("after", Some(after));
    let mut pieces = session.client.stream(query).await?.into_data_stream();
    while let Some(piece) = pieces.next().await {
        session.out.bytes(&piece.map_err(|e| Error::Broken(e.to_string()))?)?;
    }
    Ok(())
}
