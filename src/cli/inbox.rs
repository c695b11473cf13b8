//! `inbox`: mailboxes and the messages in them.

use clap::Subcommand;
use mail_parser::MessageParser;
use postledger_events::id::{AccountName, MailboxName, MsgId};
use postledger_web::api::inbox::{Mailboxes, StoredMessage};
use serde::Serialize;

use super::Session;
use super::client::whole;
use super::error::Error;
use super::out::{clean, or_dash, second};
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Inbox {
    /// List the messages of a mailbox, newest first
    List {
        account: AccountName,
        #[arg(long, default_value = "Inbox")]
        mailbox: MailboxName,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show a message: its header and text
    Show { account: AccountName, msg_id: MsgId },
    /// Print the bytes of a message as they were received
    Raw { account: AccountName, msg_id: MsgId },
    /// List the mailboxes of an account
    Mailboxes { account: AccountName },
    /// Delete a message
    Delete { account: AccountName, msg_id: MsgId },
}

const EXAMPLES: &str = "\
Examples:
  postledger inbox list mox
  postledger inbox list mox --mailbox Sent
  postledger inbox mailboxes mox
  postledger inbox show mox 3
  postledger inbox raw mox 3 > message.eml
  postledger inbox delete mox 3";

/// A message, parsed.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    stored: StoredMessage,
    /// In their order, decoded as far as they can be.
    headers: Vec<(String, String)>,
    /// The text; of a message that has only HTML, what can be made of it.
    text: Option<String>,
}

impl Inbox {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Inbox::List { account, mailbox, limit } => list(session, &account, &mailbox, limit).await,
            Inbox::Show { account, msg_id } => show(session, &account, msg_id).await,
            Inbox::Raw { account, msg_id } => {
                let bytes = whole(session.client.stream(raw_path(&account, msg_id)).await?).await?;
                session.out.bytes(&bytes)
            }
            Inbox::Mailboxes { account } => mailboxes(session, &account).await,
            Inbox::Delete { account, msg_id } => {
                session.client.delete(path(&account, msg_id)).await?;
                session.out.said(format!("deleted message {msg_id}"))
            }
        }
    }
}

fn path(account: &AccountName, msg_id: MsgId) -> Query {
    Query::path(&["inbox", &msg_id.to_string()]).with("account", Some(account))
}

fn raw_path(account: &AccountName, msg_id: MsgId) -> Query {
    Query::path(&["inbox", &msg_id.to_string(), "raw"]).with("account", Some(account))
}

async fn list(session: &mut Session, account: &AccountName, mailbox: &MailboxName, limit: usize) -> Result<(), Error> {
    let query = Query::path(&["inbox"]).with("account", Some(account)).with("mailbox", Some(mailbox));
    let all: Vec<StoredMessage> = session.client.list(query, limit).await?;
    session.out.list(&all, ["ID", "RECEIVED", "SIZE", "FROM", "SUBJECT"], |m| {
        let (id, size) = (m.msg_id.to_string(), m.size.to_string());
        [id, second(m.received), size, or_dash(m.from.as_ref()), or_dash(m.subject.as_ref())]
    })
}

async fn show(session: &mut Session, account: &AccountName, msg_id: MsgId) -> Result<(), Error> {
    let stored: StoredMessage = session.client.get(path(account, msg_id)).await?;
    let raw = whole(session.client.stream(raw_path(account, msg_id)).await?).await?;
    let shown = parsed(stored, &raw);
    if session.out.json {
        return session.out.document(&shown);
    }
    for (name, value) in &shown.headers {
        session.out.text(&format!("{}: {}\n", clean(name), clean(value)))?;
    }
    session.out.text("\n")?;
    for line in shown.text.as_deref().unwrap_or("(no text)").lines() {
        session.out.text(&format!("{}\n", clean(line)))?;
    }
    Ok(())
}

fn parsed(stored: StoredMessage, raw: &[u8]) -> Shown {
    let Some(message) = MessageParser::default().parse(raw) else {
        return Shown { stored, headers: Vec::new(), text: None };
    };
    let unfolded = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    let headers = message.headers_raw().map(|(name, value)| (name.to_owned(), unfolded(value))).collect();
    let text = message.body_text(0).map(|text| text.into_owned());
    Shown { stored, headers, text }
}

async fn mailboxes(session: &mut Session, account: &AccountName) -> Result<(), Error> {
    let found: Mailboxes = session.client.get(Query::path(&["mailboxes"]).with("account", Some(account))).await?;
    if session.out.json {
        return session.out.document(&found);
    }
    for mailbox in &found.mailboxes {
        session.out.text(&format!("{}\n", clean(mailbox.as_str())))?;
    }
    Ok(())
}
