//! Facts about messages in mailboxes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::attempt::TlsUsed;
use super::submission::BodyRef;
use super::{Subject, fact};
use crate::address::Address;
use crate::id::{AccountName, MailboxName, MsgId, Seq};

/// Where a received message was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxCopy {
    pub account: AccountName,
    pub mailbox: MailboxName,
    pub msg_id: MsgId,
    /// Which of the record's recipients it is for.
    pub recipient: u16,
}

/// A message came in and is in these mailboxes. On disk before the 250 that takes responsibility for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageReceived {
    pub body: BodyRef,
    pub copies: Vec<MailboxCopy>,
    pub tls: Option<TlsUsed>,
    pub smtputf8: bool,
    /// It is a delivery status notification of ours (RFC 3464): the record that it tells the sender of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_of: Option<Seq>,
    #[serde(skip)]
    pub personal: Option<ReceivedPersonal>,
}
fact!(MessageReceived, ReceivedPersonal, |f| Subject::Message(f.body.body));

/// Names the sender and the recipients of a received message, and quotes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedPersonal {
    pub peer: Option<SocketAddr>,
    pub helo: String,
    /// The reverse-path; `None`: null.
    pub mail_from: Option<Address>,
    pub recipients: Vec<Address>,
    pub message_id: Option<String>,
    pub from: Option<String>,
    pub subject: Option<String>,
}

/// A message was taken out of its mailbox, and its content forgotten with the last copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageDeleted {
    pub account: AccountName,
    pub mailbox: MailboxName,
    pub msg_id: MsgId,
    pub body: BodyRef,
    /// No other mailbox has it.
    pub last: bool,
    pub by: crate::id::Author,
}
fact!(MessageDeleted);
