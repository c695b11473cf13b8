//! The families of facts. Every fact has a part that may stay for ever and a personal part that may be forgotten.

pub mod access;
pub mod account;
pub mod attempt;
pub mod call;
pub mod delivery;
pub mod endpoint;
pub mod expiry;
pub mod job;
pub mod ledger;
pub mod mailbox;
pub mod replay;
pub mod submission;
pub mod suppression;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{AccountName, KeyId, MessageUuid, RecipientKey};

/// Whom a personal part is about, and so what its forgetting is tied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The people a message names: its sender, recipients and content.
    Message(MessageUuid),
    /// One recipient of an account, whatever the message.
    Recipient(RecipientKey),
    /// The person an account belongs to.
    Account(AccountName),
    /// The program that uses a key.
    Key(KeyId),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Message(m) => write!(f, "message:{m}"),
            Subject::Recipient(r) => write!(f, "recipient:{r}"),
            Subject::Account(a) => write!(f, "account:{a}"),
            Subject::Key(k) => write!(f, "key:{k}"),
        }
    }
}

/// A kind of fact. The struct itself is `data`; its `personal` field is kept apart from it in the record.
pub trait Fact: Serialize + DeserializeOwned {
    /// The personal part; [`Nothing`] for facts without one.
    type Personal: Serialize + DeserializeOwned;

    /// Whom the personal part is about; `None` for facts without one.
    fn subject(&self) -> Option<Subject>;
    /// `None` if the fact has none, or it was forgotten.
    fn personal(&self) -> Option<&Self::Personal>;
    fn set_personal(&mut self, personal: Option<Self::Personal>);
}

/// The personal part of a fact that names nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Nothing {}

/// Implements [`Fact`]: for a struct without a personal part, or with one and its subject.
macro_rules! fact {
    ($name:ident) => {
        impl $crate::fact::Fact for $name {
            type Personal = $crate::fact::Nothing;
            fn subject(&self) -> Option<$crate::fact::Subject> {
                None
            }
            fn personal(&self) -> Option<&$crate::fact::Nothing> {
                None
            }
            fn set_personal(&mut self, _: Option<$crate::fact::Nothing>) {}
        }
    };
    ($name:ident, $personal:ident, |$fact:ident| $subject:expr) => {
        impl $crate::fact::Fact for $name {
            type Personal = $personal;
            fn subject(&self) -> Option<$crate::fact::Subject> {
                let $fact = self;
                Some($subject)
            }
            fn personal(&self) -> Option<&$personal> {
                self.personal.as_ref()
            }
            fn set_personal(&mut self, personal: Option<$personal>) {
                self.personal = personal;
            }
        }
    };
}
pub(crate) use fact;
