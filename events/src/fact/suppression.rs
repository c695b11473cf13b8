//! Facts about addresses that an account does not send to.

use serde::{Deserialize, Serialize};

use super::submission::Idempotency;
use super::{Subject, fact};
use crate::address::Address;
use crate::id::{AccountName, Author, RecipientKey, Seq, SuppressionId};

/// What brought an address onto the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The failure that this record tells of.
    Failure(Seq),
    /// Somebody asked for it.
    Person(Author),
}

/// An address was put on an account's suppression list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSuppressed {
    pub id: SuppressionId,
    pub account: AccountName,
    pub recipient: RecipientKey,
    pub cause: Cause,
    /// Said by the client; means nothing to us.
    pub manual: bool,
    pub idempotency: Option<Idempotency>,
    #[serde(skip)]
    pub personal: Option<SuppressionPersonal>,
}
fact!(AddressSuppressed, SuppressionPersonal, |f| Subject::Recipient(f.recipient));

/// Names the person who gets no more mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionPersonal {
    /// Folded: what all its variants have in common. The domain in Unicode, as the contract shows it.
    pub base_address: String,
    /// As it was given.
    pub original_address: Address,
    pub reason: String,
}

/// An address was taken off the list; its failures are counted anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionLifted {
    pub id: SuppressionId,
    pub account: AccountName,
    pub recipient: RecipientKey,
    pub by: Author,
    pub idempotency: Option<Idempotency>,
}
fact!(SuppressionLifted);
