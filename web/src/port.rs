//! What HTTP needs of the program. The program implements it; nothing here knows how.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;

use bytes::Bytes;
use postledger_events::address::{Address, Domain};
use postledger_events::command::{EndpointChange, IdempotencyKey, Submitted};
use postledger_events::draft::Draft;
use postledger_events::fact::access::{Network, Scope};
use postledger_events::fact::account::{DkimAlgorithm, TransportTls};
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{
    AccountName, Author, DeliveryId, EndpointName, KeyId, MessageUuid, RecipientKey, Selector, Seq, Sha256,
    TransportName,
};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::Rows;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::api::tail::Tail;
use crate::api::verify::{Line, Wish};
use crate::openapi::Describe;

/// The program, as HTTP sees it.
pub trait Port: Send + Sync + 'static {
    /// Rows and records of one moment.
    type View: View;

    /// Checks a user name (an email address) and password. Counts failures of `client`, and takes as long for users that
    /// do not exist.
    fn login(
        &self,
        user: &str,
        password: &str,
        client: IpAddr,
    ) -> impl Future<Output = Result<Login, LoginError>> + Send;

    /// Checks the password of the administrator, in the same way.
    fn login_admin(&self, password: &str, client: IpAddr) -> impl Future<Output = Result<(), LoginError>> + Send;

    /// Checks a key (`pl_…`), in the same way. What was used is recorded beside the request.
    fn login_key(&self, token: &str, client: IpAddr) -> impl Future<Output = Result<Holder, LoginError>> + Send;

    /// Composes, signs and submits a message. When it returns `Ok`, the message is on disk.
    fn send(&self, request: SendRequest) -> impl Future<Output = Result<Submitted, SendError>> + Send;

    /// Sends the content of a message again, to some of its recipients. When it returns `Ok`, the new message is on disk.
    fn redeliver(&self, wish: Redelivery) -> impl Future<Output = Result<Submitted, ExecuteError>> + Send;

    /// Says early whether `send` would be refused for its sender, recipients or limits; changes nothing.
    fn preflight(&self, account: &AccountName, from: &Address, recipients: &[Address]) -> Result<(), Refusal>;

    /// The name under which this account's lists know all variants of an address.
    fn recipient_key(&self, account: &AccountName, address: &Address) -> RecipientKey;

    /// Lets the ledger decide on a command. When it returns `Ok`, what follows is on disk.
    fn execute(&self, command: Command) -> impl Future<Output = Result<Answer, ExecuteError>> + Send;

    /// Sets an account's password; the hash is made here and its value goes to the vault.
    fn set_password(
        &self,
        account: &AccountName,
        password: &str,
        by: Author,
    ) -> impl Future<Output = Result<(), ExecuteError>> + Send;

    /// Adds or changes a next hop.
    fn set_transport(
        &self,
        transport: NewTransport,
        by: Author,
    ) -> impl Future<Output = Result<(), ExecuteError>> + Send;

    /// Adds or changes an endpoint. With `generate` it gets a new secret, which is answered this once.
    fn set_endpoint(
        &self,
        endpoint: NewEndpoint,
        generate: bool,
        by: Author,
    ) -> impl Future<Output = Result<Option<String>, ExecuteError>> + Send;

    /// Calls an endpoint with an invented event.
    fn test_call(
        &self,
        account: &AccountName,
        endpoint: &EndpointName,
        by: Author,
    ) -> impl Future<Output = Result<TestCall, ExecuteError>> + Send;

    /// Makes a DKIM key and has the domain sign with it. Answers what to publish.
    fn generate_dkim(
        &self,
        domain: &Domain,
        selector: &Selector,
        algorithm: DkimAlgorithm,
        by: Author,
    ) -> impl Future<Output = Result<String, ExecuteError>> + Send;

    /// Gives out a key. The token is shown to whoever asked, and to nobody ever again.
    fn add_key(&self, key: NewKey, by: Author) -> impl Future<Output = Result<(KeyId, String), ExecuteError>> + Send;

    /// A view of all that is committed now. Cheap; reading from it may block on the disk.
    fn view(&self) -> Self::View;

    fn status(&self) -> Status;

    /// Verifies the ledger beside the work, as long as somebody receives. `None`: it is being verified already.
    fn verify(&self, wish: Wish) -> Option<mpsc::Receiver<Line>>;

    /// Returns when there is a record after `seq`; at once if there is one already.
    fn wait_past(&self, seq: Seq) -> impl Future<Output = ()> + Send;

    /// What was written last, for those who follow the log.
    fn tail(&self) -> &Tail;

    /// Returns when the program stops: what goes on without an end must end.
    fn stopping(&self) -> impl Future<Output = ()> + Send;

    /// What the machine's clock says.
    fn now(&self) -> Timestamp;
}

/// Bytes of lines after which a part of the log ends, however few they are: one record can have a thousand results.
pub const PART_BYTES: usize = 4 * 1024 * 1024;

/// As many of these lines as are read at once: up to `limit`, and none behind the one that fills the part.
pub fn part_of<E>(
    lines: impl Iterator<Item = Result<(Seq, Vec<u8>), E>>,
    limit: usize,
) -> Result<Vec<(Seq, Vec<u8>)>, E> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    for line in lines.take(limit) {
        let (seq, line) = line?;
        bytes += line.len();
        part.push((seq, line));
        if bytes >= PART_BYTES {
            break;
        }
    }
    Ok(part)
}

/// Rows and records of one moment. Reads may block on the disk.
pub trait View: Rows + Send + Sync + 'static {
    /// The last record.
    fn position(&self) -> Seq;

    /// Nothing that is queued is due before it.
    fn first_due(&self) -> Timestamp;

    /// The line of a record; `None` if there is no such record.
    fn record_line(&self, seq: Seq) -> Result<Option<Vec<u8>>, postledger_projections::Error>;

    /// Lines of up to `limit` records after `after`, as [`part_of`] cuts them off.
    fn lines_after(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, Vec<u8>)>, postledger_projections::Error>;

    /// The stored bytes of a message.
    fn body(&self, body: &BodyRef) -> Result<Bytes, std::io::Error>;

    /// All records after `after` with their contents, as JSON Lines. With a hash, the record `after` must have it. Each
    /// piece may block on the disk.
    fn export(&self, after: Seq, hash: Option<Sha256>) -> Result<Pieces, ExportError>;

    /// A copy of the vault, for a file that only its owner may read.
    fn vault(&self) -> Result<Bytes, String>;
}

pub type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// Why there is no export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportError {
    /// The record to go on from is not on this branch of the ledger.
    CutOff {
        after: Seq,
        last_common: Seq,
    },
    Failed(String),
}

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub account: AccountName,
    /// As typed; of a key that came alone, `key:7`.
    pub user: String,
    /// That was logged in with; of a key that came alone, one of the account's. `None` if it has none.
    pub address: Option<Address>,
    /// What came in the place of the password.
    pub key: Option<Key>,
}

impl Login {
    pub fn author(&self) -> Author {
        match &self.key {
            Some(key) => key.author(),
            None => Author(format!("account:{}", self.account)),
        }
    }
}

/// A key that is good here and now, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub key: KeyId,
    pub scopes: Vec<Scope>,
}

impl Key {
    pub fn author(&self) -> Author {
        Author(format!("key:{}", self.key))
    }

    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Who holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Account(Login),
    Operator(Key),
}

/// A key to give out.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// `None`: an operators' key.
    pub account: Option<AccountName>,
    pub label: String,
    pub scopes: Vec<Scope>,
    pub expires: Option<Timestamp>,
    pub networks: Vec<Network>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// Unknown user or wrong password.
    BadCredentials,
    /// Right, but this account may not log in.
    Disabled,
    /// Too many failures from this client.
    TooMany {
        retry_after_s: u64,
    },
    Unavailable(String),
}

/// A message to send, parsed.
#[derive(Clone, Debug)]
pub struct SendRequest {
    pub login: Login,
    pub client: Option<IpAddr>,
    pub trace: Option<String>,
    pub idempotency: Option<IdempotencyKey>,
    pub draft: Draft,
    /// To, Cc and Bcc in this order, no address twice, each as the request wrote it.
    pub recipients: Vec<(Address, String)>,
    pub extra: BTreeMap<String, String>,
    pub require_tls: Option<bool>,
    pub future_release: Option<Timestamp>,
    pub save_sent: bool,
}

/// Deliveries of one message to send again.
#[derive(Clone, Debug)]
pub struct Redelivery {
    pub account: AccountName,
    pub message: MessageUuid,
    pub deliveries: Vec<DeliveryId>,
    pub by: Author,
    pub idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    Refused(Refusal),
    /// The draft cannot become a message.
    Compose(ComposeFault, String),
    /// The same Idempotency-Key is being worked on.
    InFlight,
    Unavailable(Unavailable),
}

/// Which of the contract's codes a composition fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComposeFault {
    MissingBody,
    User,
    MalformedMessageId,
    TooLarge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecuteError {
    Refused(Refusal),
    InFlight,
    Unavailable(Unavailable),
}

/// Nothing can be accepted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Too much waits; try again soon.
    Busy,
    /// The ledger has stopped; the text says why and what to do.
    Stopped(String),
}

/// A next hop, with its password in the clear.
#[derive(Clone, Debug)]
pub struct NewTransport {
    pub name: TransportName,
    pub host: String,
    pub port: u16,
    pub tls: TransportTls,
    /// User name and password. `None`: no AUTH.
    pub credentials: Option<(String, String)>,
    pub connections_max: u32,
}

/// An endpoint or a change of one, with its secrets in the clear.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// Whether it must be new, or must exist.
    pub create: bool,
    /// Without secrets to set.
    pub change: EndpointChange,
    /// The value of the Authorization header; the inner `None`: none any more.
    pub authorization: Option<Option<String>>,
    /// `whsec_…`: these sign as well from now on.
    pub secrets: Vec<String>,
}

/// What came of a test call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct TestCall {
    /// 0: there was no answer.
    pub status: u16,
    /// The beginning of the answer.
    pub response: Option<String>,
    /// Why there was none.
    pub error: Option<String>,
    pub took_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `Err` says why nothing is accepted.
    pub accepting: Result<(), String>,
    pub position: Seq,
    /// Lists that are being rebuilt: name, and the record that they are as of.
    pub lagging: Vec<(String, Seq)>,
    /// What somebody should look at although everything goes on.
    pub warnings: Vec<String>,
    /// The last round over the whole ledger.
    pub verified: Option<Verified>,
    /// Of the disk.
    pub free_bytes: u64,
}

/// How a round over the whole ledger ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Verified {
    pub ended: Timestamp,
    pub took_s: u64,
    pub records: u64,
    pub bodies: u64,
    /// 0 if all is well.
    pub findings: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_log_has_no_more_lines_than_bytes_allow() {
        let check = |size: usize, limit: usize, expect: usize| {
            let lines = (1..).map(|seq| Ok::<_, ()>((Seq(seq), vec![b'x'; size])));
            assert_eq!(part_of(lines, limit).unwrap().len(), expect, "{limit} of {size} bytes");
        };
        check(100, 500, 500);
        check(PART_BYTES / 4, 500, 4);
        check(PART_BYTES / 4 + 1, 500, 4);
        check(PART_BYTES / 4 - 1, 500, 5);
        check(PART_BYTES / 4, 3, 3);
        check(2 * PART_BYTES, 500, 1);
        check(100, 0, 0);
        let broken = [Ok((Seq(1), Vec::new())), Err("broken")];
        assert_eq!(part_of(broken.into_iter(), 500), Err("broken"));
    }
}
