//! Refusals: why a command changes nothing. Each says what to do.

use std::fmt;

use crate::id::{AccountName, AttemptId, Seq};

/// Recipients of one submission.
pub const RECIPIENTS_MAX: usize = 1000;
/// How far ahead a submission may be released: 60 days, in seconds.
pub const FUTURE_RELEASE_MAX_S: u64 = 60 * 24 * 3600;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuch(Thing),
    Exists(Thing),
    /// The request makes no sense as it is; the text says why.
    Invalid(String),
    /// From is no address of the account.
    BadFrom,
    DomainDisabled,
    NoRecipients,
    TooManyRecipients,
    MessageLimit,
    RecipientLimit,
    OverQuota {
        quota_bytes: u64,
    },
    FutureReleaseTooFar,
    /// The Idempotency-Key came with another request before.
    IdempotencyMismatch,
    /// An outcome for an attempt that is not running.
    StaleAttempt(AttemptId),
    /// The account is being removed.
    AccountGoing(AccountName),
    /// Another thing depends on it; the text names it.
    InUse(String),
    /// It is not so that this could be done; the text says what to do first.
    Conflict(String),
    /// A place in the log that another branch of this ledger gave out, or nobody yet.
    CutOff {
        seq: Seq,
        last_common: Seq,
    },
    /// A row cannot be read; the ledger must be verified and rebuilt.
    Damaged(String),
}

/// What a refusal is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    Account(String),
    Domain(String),
    Address(String),
    Transport(String),
    Selector(String),
    HoldRule(String),
    Job(String),
    Delivery(String),
    Message(String),
    Suppression(String),
    Endpoint(String),
    Call(String),
    Replay(String),
    Key(String),
    Cursor(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name) = match self {
            Thing::Account(n) => ("account", n),
            Thing::Domain(n) => ("domain", n),
            Thing::Address(n) => ("address", n),
            Thing::Transport(n) => ("transport", n),
            Thing::Selector(n) => ("DKIM selector", n),
            Thing::HoldRule(n) => ("hold rule", n),
            Thing::Job(n) => ("job", n),
            Thing::Delivery(n) => ("queued delivery", n),
            Thing::Message(n) => ("message", n),
            Thing::Suppression(n) => ("suppressed address", n),
            Thing::Endpoint(n) => ("endpoint", n),
            Thing::Call(n) => ("call", n),
            Thing::Replay(n) => ("replay", n),
            Thing::Key(n) => ("key", n),
            Thing::Cursor(n) => ("cursor", n),
        };
        write!(f, "{what} {name}")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuch(thing) => write!(f, "there is no {thing}"),
            Refusal::Exists(thing) => write!(f, "{thing} exists already"),
            Refusal::Invalid(why) => f.write_str(why),
            Refusal::BadFrom => f.write_str("from-address not configured for account"),
            Refusal::DomainDisabled => f.write_str("domain of from-address is temporarily disabled"),
            Refusal::NoRecipients => f.write_str("no recipients"),
            Refusal::TooManyRecipients => write!(f, "more than {RECIPIENTS_MAX} recipients in one message"),
            Refusal::MessageLimit => f.write_str("outgoing message rate limit reached"),
            Refusal::RecipientLimit => f.write_str("outgoing new recipient rate limit reached"),
            Refusal::OverQuota { quota_bytes } => {
                write!(f, "nothing was sent: account over quota: max size {quota_bytes} bytes")
            }
            Refusal::FutureReleaseTooFar => {
                write!(
                    f,
                    "scheduling delivery: date/time can not be further than {}h in the future",
                    FUTURE_RELEASE_MAX_S / 3600
                )
            }
            Refusal::IdempotencyMismatch => {
                f.write_str("this Idempotency-Key was used with another request; use a new key for a new request")
            }
            Refusal::StaleAttempt(attempt) => write!(f, "attempt {attempt} is not running"),
            Refusal::AccountGoing(account) => write!(f, "account {account} is being removed"),
            Refusal::InUse(by) => write!(f, "still in use: {by}"),
            Refusal::Conflict(why) => f.write_str(why),
            Refusal::CutOff { seq, last_common: Seq(0) } => write!(
                f,
                "record {seq} is not part of this ledger but of a branch that it does not know, so nothing says which records \
                 both have: begin with record 0"
            ),
            Refusal::CutOff { seq, last_common } => write!(
                f,
                "record {seq} is not part of this ledger, which was restored or repaired since; the last record that it \
                 has in common with the one before is {last_common}: go on from there"
            ),
            Refusal::Damaged(what) => {
                write!(
                    f,
                    "the ledger's rows are damaged ({what}); run `postledger verify --full`, then `postledger rebuild`"
                )
            }
        }
    }
}

impl std::error::Error for Refusal {}
