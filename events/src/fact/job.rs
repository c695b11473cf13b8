//! Hold rules, and intents that touch more rows than one command may.

use serde::{Deserialize, Serialize};

use super::call::CallRef;
use super::fact;
use crate::address::Domain;
use crate::id::{AccountName, Author, DeliveryId, EndpointName, HoldRuleId, JobId, MessageUuid, Seq};
use crate::time::Timestamp;

/// Which deliveries a rule holds: those that agree with every field that is set; an empty one holds all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HoldMatch {
    pub account: Option<AccountName>,
    /// The domain of the reverse-path.
    pub sender_domain: Option<Domain>,
    pub recipient_domain: Option<Domain>,
}

/// From now on nothing that matches leaves. What is queued is put on hold by the job, without haste.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRuleAdded {
    pub rule: HoldRuleId,
    pub matching: HoldMatch,
    pub job: JobId,
    pub by: Author,
}
fact!(HoldRuleAdded);

/// The rule holds nothing more. What it held stays on hold until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRuleRemoved {
    pub rule: HoldRuleId,
    pub by: Author,
}
fact!(HoldRuleRemoved);

/// Which queued deliveries are meant: those that agree with every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueFilter {
    pub ids: Vec<DeliveryId>,
    pub message: Option<MessageUuid>,
    pub account: Option<AccountName>,
    pub sender_domain: Option<Domain>,
    pub recipient_domain: Option<Domain>,
    pub held: Option<bool>,
    /// On hold since the ledger was restored.
    pub restored: Option<bool>,
    pub submitted_before: Option<Timestamp>,
    pub submitted_after: Option<Timestamp>,
    pub due_before: Option<Timestamp>,
    pub due_after: Option<Timestamp>,
}

/// What is done with each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueAction {
    Hold,
    Release,
    Cancel,
    Fail,
    /// Due at this time.
    ScheduleAt(Timestamp),
    /// Due this many seconds later than before.
    ScheduleAdd(u32),
}

/// Where a call is, for those who look for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallPhase {
    /// It is to be made, now or later.
    Waiting,
    /// On hold since the ledger was restored.
    Held,
    Delivered,
    Failed,
    Canceled,
}

/// Which calls are meant: those that agree with every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallFilter {
    pub account: Option<AccountName>,
    pub endpoint: Option<EndpointName>,
    /// Of the one endpoint that is named.
    pub calls: Vec<CallRef>,
    /// In one of these phases, if there are any.
    pub phases: Vec<CallPhase>,
    /// The first fact.
    pub from: Option<Seq>,
    /// The last.
    pub to: Option<Seq>,
    pub queued_before: Option<Timestamp>,
    pub queued_after: Option<Timestamp>,
}

/// What is done with each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallAction {
    /// Due at once, with all attempts before it; also what is on hold or has ended without having been delivered.
    Retry,
    /// It is not made.
    Cancel,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Put what is queued and matches on hold.
    ApplyHoldRule(HoldRuleId, HoldMatch),
    /// Put what was queued before this record, which branched the ledger, on hold.
    HoldRestored(Seq),
    /// Do the same with many deliveries.
    Queue(QueueFilter, QueueAction),
    /// Fail what the account has queued, forget its endpoints, list and mailboxes, and then the account.
    RemoveAccount(AccountName),
    /// Do the same with many calls.
    Calls(CallFilter, CallAction),
    /// Cancel what the endpoint has not been told of, and forget it.
    RemoveEndpoint(AccountName, EndpointName),
}

/// Something was asked for that touches many rows; it goes on, also after a crash, until it is finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStarted {
    pub job: JobId,
    pub work: Work,
    pub by: Author,
}
fact!(JobStarted);

/// A job has come this far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAdvanced {
    pub job: JobId,
    /// Where it goes on, in hexadecimal: a key of the index that it walks.
    pub cursor: String,
    /// Rows it changed so far.
    pub affected: u64,
}
fact!(JobAdvanced);

/// A job is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFinished {
    pub job: JobId,
    /// Rows it changed.
    pub affected: u64,
}
fact!(JobFinished);
