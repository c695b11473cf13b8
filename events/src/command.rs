//! Commands: what happened outside or is wished. Nothing is decided yet. All dice were rolled before.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::address::{Address, Domain};
use crate::fact::access::{Network, Scope};
use crate::fact::account::{AccountSettings, Destination, DkimKey, Fold, RetrySchedule, TransportSettings};
use crate::fact::attempt::{Session, TlsUsed};
use crate::fact::call::{CallRef, CallTexts};
use crate::fact::endpoint::{CallFormat, Direction, EndpointSettings, OutgoingEvent, Superseding};
use crate::fact::job::{CallAction, CallFilter, HoldMatch, QueueAction, QueueFilter};
use crate::fact::submission::{BodyRef, Origin, Via};
use crate::id::*;
use crate::reply::{EnhancedCode, Reply};
use crate::time::Timestamp;

/// Something for the ledger to decide on. The name of a family and, below, what it asks.
#[derive(Clone, Debug)]
pub enum Command {
    Submit(Box<Submit>),
    StartAttempt(StartAttempt),
    FinishAttempt(Box<FinishAttempt>),
    /// The process or task that made this attempt is gone.
    AbandonAttempt(AbandonAttempt),
    Receive(Box<Receive>),
    DropNotice(DropNotice),
    DeleteMessage(DeleteMessage),
    Suppress(Suppress),
    LiftSuppression(LiftSuppression),
    Queue(QueueCommand),
    AddHoldRule(AddHoldRule),
    RemoveHoldRule(RemoveHoldRule),
    AdvanceJob(AdvanceJob),
    ConfigureAccount(Box<ConfigureAccount>),
    RemoveAccount(RemoveAccount),
    ConfigureDomain(ConfigureDomain),
    RemoveDomain(RemoveDomain),
    AddAddress(AddAddress),
    RemoveAddress(RemoveAddress),
    ConfigureTransport(ConfigureTransport),
    RemoveTransport(RemoveTransport),
    ConfigureEndpoint(Box<ConfigureEndpoint>),
    RemoveEndpoint(RemoveEndpoint),
    FinishCalls(FinishCalls),
    Calls(CallsCommand),
    RecordTestCall(Box<RecordTestCall>),
    StartReplay(StartReplay),
    AdvanceReplay(AdvanceReplay),
    StopReplay(StopReplay),
    ResumeReplay(ResumeReplay),
    CancelReplay(CancelReplay),
    Expire(Expire),
    AcceptClock(AcceptClock),
    Branch(Branch),
    LoseContents(LoseContents),
    AddKey(AddKey),
    RevokeKey(RevokeKey),
    UseKey(UseKey),
    SetCursor(SetCursor),
    RemoveCursor(RemoveCursor),
}

/// An Idempotency-Key and the request it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Such as `Send`; a key is good for one method of one account.
    pub method: &'static str,
    pub key: String,
    /// Of the parsed request.
    pub request: Sha256,
}

/// A composed message, whose body is stored or comes with the command.
#[derive(Clone, Debug)]
pub struct Submit {
    pub message: MessageUuid,
    pub account: AccountName,
    /// The address that was logged in with, as typed.
    pub login: String,
    pub via: Via,
    pub client: Option<IpAddr>,
    pub trace: Option<String>,
    pub code_version: &'static str,
    pub idempotency: Option<IdempotencyKey>,
    /// The address in the From field; must be one of the account's.
    pub from: Address,
    pub reverse_path: Option<Address>,
    /// No two equal; each with the text that the request had.
    pub recipients: Vec<(Address, String)>,
    /// One for each recipient, used if the login is a fromid login.
    pub fromids: Vec<FromId>,
    pub message_id: String,
    pub subject: String,
    pub extra: BTreeMap<String, String>,
    pub body: BodyRef,
    pub eight_bit: bool,
    pub smtputf8: bool,
    pub require_tls: Option<bool>,
    pub future_release: Option<Timestamp>,
    /// The copy for the Sent mailbox.
    pub sent_copy: Option<BodyRef>,
    /// The earlier submission that this one sends again.
    pub origin: Option<Origin>,
}

/// Asks for leave to try these deliveries of one message now.
#[derive(Clone, Debug)]
pub struct StartAttempt {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub deliveries: Vec<DeliveryId>,
    pub transport: TransportName,
    pub started: Timestamp,
}

/// What became of one recipient in a transaction. Indices point into [`FinishAttempt::replies`] and
/// [`FinishAttempt::errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipientOutcome {
    /// The final reply was positive, and the recipient had been accepted.
    Accepted { reply: u16 },
    /// A negative reply: to MAIL, RCPT, DATA or the content.
    Rejected { reply: u16 },
    /// We gave up before or between replies.
    Local { permanent: bool, enhanced: Option<EnhancedCode>, error: u16 },
    /// The connection broke after all content was sent: it may have been delivered.
    Unknown { error: u16 },
    /// The attempt was stopped before anything of this recipient's could have been accepted (a planned stop).
    Untried { error: u16 },
}

/// An attempt ended.
#[derive(Clone, Debug)]
pub struct FinishAttempt {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub results: Vec<(DeliveryId, RecipientOutcome)>,
    pub replies: Vec<Reply>,
    pub errors: Vec<String>,
    pub session: Session,
    pub ended: Timestamp,
    /// Seconds, -5 to 4 (a roll of dice): the contract's spread of the first wait, scaled with it.
    pub jitter_s: i8,
}

#[derive(Clone, Debug)]
pub struct AbandonAttempt {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub deliveries: Vec<DeliveryId>,
    pub jitter_s: i8,
}

/// A message that was received in full.
#[derive(Clone, Debug)]
pub struct Receive {
    pub body: BodyRef,
    pub peer: Option<SocketAddr>,
    pub helo: String,
    pub tls: Option<TlsUsed>,
    pub smtputf8: bool,
    pub mail_from: Option<Address>,
    /// Each with the account it was found to be for.
    pub recipients: Vec<(Address, AccountName)>,
    pub message_id: Option<String>,
    pub from: Option<String>,
    pub subject: Option<String>,
    /// It is a notice of ours about this record.
    pub notice_of: Option<Seq>,
}

/// A notice that cannot be made, since what it would be about was forgotten.
#[derive(Clone, Debug)]
pub struct DropNotice {
    pub notice_of: Seq,
}

#[derive(Clone, Debug)]
pub struct DeleteMessage {
    pub account: AccountName,
    pub msg_id: MsgId,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct Suppress {
    pub account: AccountName,
    pub address: Address,
    pub manual: bool,
    pub reason: String,
    pub by: Author,
    pub idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug)]
pub struct LiftSuppression {
    pub account: AccountName,
    pub address: Address,
    pub by: Author,
    pub idempotency: Option<IdempotencyKey>,
}

/// The same for many deliveries; becomes a job.
#[derive(Clone, Debug)]
pub struct QueueCommand {
    pub filter: QueueFilter,
    pub action: QueueAction,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct AddHoldRule {
    pub matching: HoldMatch,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct RemoveHoldRule {
    pub rule: HoldRuleId,
    pub by: Author,
}

/// Do the next part of a job.
#[derive(Clone, Debug)]
pub struct AdvanceJob {
    pub job: JobId,
}

/// A change of an account, or a new one. `None` leaves a setting as it is.
#[derive(Clone, Debug)]
pub struct ConfigureAccount {
    pub account: AccountName,
    /// Whether it must be new, or must exist.
    pub create: bool,
    pub change: AccountChange,
    pub by: Author,
}

/// Settings to change; the inner `Option` of some is "unlimited" or "none".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    pub full_name: Option<String>,
    pub login_disabled: Option<bool>,
    pub password: Option<SecretRef>,
    pub fromid_logins: Option<Vec<Address>>,
    pub keep_s: Option<u64>,
    pub keep_contents: Option<bool>,
    pub messages_per_day_max: Option<Option<u32>>,
    pub first_time_recipients_per_day_max: Option<Option<u32>>,
    pub quota_bytes: Option<Option<u64>>,
    pub fold: Option<Fold>,
    pub retry: Option<Option<RetrySchedule>>,
}

impl AccountChange {
    pub fn apply(self, full_name: &mut String, settings: &mut AccountSettings) {
        set(full_name, self.full_name);
        set(&mut settings.login_disabled, self.login_disabled);
        set(&mut settings.fromid_logins, self.fromid_logins);
        set(&mut settings.keep_s, self.keep_s);
        set(&mut settings.keep_contents, self.keep_contents);
        set(&mut settings.messages_per_day_max, self.messages_per_day_max);
        set(&mut settings.first_time_recipients_per_day_max, self.first_time_recipients_per_day_max);
        set(&mut settings.quota_bytes, self.quota_bytes);
        set(&mut settings.fold, self.fold);
        set(&mut settings.retry, self.retry);
        settings.password = self.password.or(settings.password);
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

#[derive(Clone, Debug)]
pub struct RemoveAccount {
    pub account: AccountName,
    pub by: Author,
}

/// A change of a domain, or a new one.
#[derive(Clone, Debug)]
pub struct ConfigureDomain {
    pub domain: Domain,
    /// Whether it must be new, or must exist.
    pub create: bool,
    pub change: DomainChange,
    pub by: Author,
}

/// Settings to change; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainChange {
    pub disabled: Option<bool>,
    pub separators: Option<Vec<char>>,
    pub localpart_case_sensitive: Option<bool>,
    /// Selectors to add or replace, or with `None` to remove.
    pub dkim: Vec<(Selector, Option<DkimKey>)>,
    /// Selectors that shall sign or not.
    pub dkim_signing: Vec<(Selector, bool)>,
}

#[derive(Clone, Debug)]
pub struct RemoveDomain {
    pub domain: Domain,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct AddAddress {
    pub address: Destination,
    pub account: AccountName,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct RemoveAddress {
    pub address: Destination,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct ConfigureTransport {
    pub transport: TransportName,
    pub settings: TransportSettings,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct RemoveTransport {
    pub transport: TransportName,
    pub by: Author,
}

/// A change of an endpoint, or a new one.
#[derive(Clone, Debug)]
pub struct ConfigureEndpoint {
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// Whether it must be new, or must exist.
    pub create: bool,
    pub change: EndpointChange,
    pub by: Author,
}

/// Settings to change; `None` leaves one as it is. A new endpoint needs a direction, which stays, and an URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointChange {
    pub direction: Option<Direction>,
    pub url: Option<String>,
    pub format: Option<CallFormat>,
    pub events: Option<Vec<OutgoingEvent>>,
    /// The inner `None`: no Authorization header.
    pub authorization: Option<Option<SecretRef>>,
    /// Secrets that sign as well from now on.
    pub add_secrets: Vec<SecretRef>,
    /// Secrets that sign no more.
    pub remove_secrets: Vec<Fingerprint>,
    pub superseding: Option<Superseding>,
    pub concurrency_max: Option<u32>,
    /// The inner `None`: as fast as it goes.
    pub calls_per_second_max: Option<Option<u32>>,
    pub retry: Option<RetrySchedule>,
    pub connect_timeout_s: Option<u32>,
    pub timeout_s: Option<u32>,
    pub keep_s: Option<u64>,
    /// `false` also enables an endpoint that the program has disabled; no other change does.
    pub disabled: Option<bool>,
}

impl EndpointChange {
    /// All but the direction.
    pub fn apply(self, settings: &mut EndpointSettings) {
        set(&mut settings.url, self.url);
        set(&mut settings.format, self.format);
        set(&mut settings.events, self.events);
        set(&mut settings.authorization, self.authorization);
        settings.secrets.retain(|secret| !self.remove_secrets.contains(&secret.fingerprint));
        settings.secrets.extend(self.add_secrets);
        set(&mut settings.superseding, self.superseding);
        set(&mut settings.concurrency_max, self.concurrency_max);
        set(&mut settings.calls_per_second_max, self.calls_per_second_max);
        set(&mut settings.retry, self.retry);
        set(&mut settings.connect_timeout_s, self.connect_timeout_s);
        set(&mut settings.timeout_s, self.timeout_s);
        set(&mut settings.keep_s, self.keep_s);
        set(&mut settings.disabled, self.disabled);
    }
}

#[derive(Clone, Debug)]
pub struct RemoveEndpoint {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub by: Author,
}

/// Calls of one endpoint came to an end.
#[derive(Clone, Debug)]
pub struct FinishCalls {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub results: Vec<FinishedCall>,
    pub texts: CallTexts,
}

/// One POST, or why there was none. Indices point into the texts of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedCall {
    pub call: CallRef,
    pub started: Timestamp,
    pub took_us: u64,
    pub remote_addr: Option<SocketAddr>,
    pub reply: CallReply,
    pub response: Option<u16>,
    pub error: Option<u16>,
    /// Thousandths of the next wait, -10 to 9 (a roll of dice): the contract's spread.
    pub jitter_permille: i8,
}

/// What came of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallReply {
    /// With this status.
    Answered { status: u16, retry_after_s: Option<u32> },
    /// There was no answer, for whatever reason.
    Unanswered,
    /// What the body is made of was forgotten; nothing was sent.
    Forgotten,
}

impl CallReply {
    /// Any status of 2xx.
    pub fn is_success(self) -> bool {
        match self {
            CallReply::Answered { status, .. } => (200..300).contains(&status),
            CallReply::Unanswered | CallReply::Forgotten => false,
        }
    }
}

/// The same for some calls of one endpoint, or for many, which becomes a job.
#[derive(Clone, Debug)]
pub struct CallsCommand {
    pub filter: CallFilter,
    pub action: CallAction,
    pub by: Author,
}

/// An invented event was sent.
#[derive(Clone, Debug)]
pub struct RecordTestCall {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub started: Timestamp,
    pub took_us: u64,
    pub remote_addr: Option<SocketAddr>,
    /// Of the response; 0 if there was none.
    pub status: u16,
    pub texts: CallTexts,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct StartReplay {
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// The first fact.
    pub from: Seq,
    /// The last; `None`: of those that there are now.
    pub to: Option<Seq>,
    pub only_failed: bool,
    pub kinds: Vec<OutgoingEvent>,
    pub calls_per_second_max: Option<u32>,
    pub by: Author,
}

/// A replay has come this far.
#[derive(Clone, Debug)]
pub struct AdvanceReplay {
    pub replay: ReplayId,
    /// All before this is done, but for calls that failed and are to be tried again.
    pub cursor: CallRef,
    pub results: Vec<FinishedCall>,
    /// Of those among the results that failed before: how many times.
    pub failed_before: BTreeMap<CallRef, u32>,
    pub texts: CallTexts,
    /// There is nothing behind the cursor.
    pub done: bool,
}

#[derive(Clone, Debug)]
pub struct StopReplay {
    pub replay: ReplayId,
    /// By the program, why it cannot go on.
    pub error: Option<String>,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct ResumeReplay {
    pub replay: ReplayId,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct CancelReplay {
    pub replay: ReplayId,
    pub by: Author,
}

/// Forget what is over, at most 1,000 rows of it.
#[derive(Clone, Debug)]
pub struct Expire {
    /// Nothing that is kept ends before this time: where the scans begin.
    pub from: Timestamp,
}

/// The clock differs from the last record's time by more than is allowed, and this is right.
#[derive(Clone, Debug)]
pub struct AcceptClock {
    /// The time of the last record.
    pub from: Timestamp,
    pub by: Author,
}

/// The ledger goes on from a record that need not be the last that was ever written.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The last record, and its hash.
    pub from_seq: Seq,
    pub from_hash: Sha256,
    /// When the ledger began, with record 1.
    pub created: Timestamp,
    /// The last record that is known to have been written by any branch.
    pub known: Seq,
    pub reason: String,
    pub by: Author,
}

/// Contents that messages have, and that cannot be had any more.
#[derive(Clone, Debug)]
pub struct LoseContents {
    pub contents: Vec<LostContent>,
    pub by: Author,
}

/// A content, with the mailboxes that it was put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostContent {
    pub body: BodyRef,
    pub copies: Vec<(AccountName, MsgId)>,
}

/// A key to give out. Its number is given by the decision, so what is hidden must not depend on it.
#[derive(Clone, Debug)]
pub struct AddKey {
    /// `None`: an administrator's.
    pub account: Option<AccountName>,
    pub label: String,
    pub scopes: Vec<Scope>,
    pub hash: SecretRef,
    pub expires: Option<Timestamp>,
    pub networks: Vec<Network>,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct RevokeKey {
    pub key: KeyId,
    pub by: Author,
}

/// A key was used just now. Recorded if that was not known for a while.
#[derive(Clone, Debug)]
pub struct UseKey {
    pub key: KeyId,
    pub client: IpAddr,
}

/// A group of consumers has come this far.
#[derive(Clone, Debug)]
pub struct SetCursor {
    /// `None`: the administrators'.
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    pub seq: Seq,
    pub by: Author,
}

#[derive(Clone, Debug)]
pub struct RemoveCursor {
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    pub by: Author,
}

/// What a command that was accepted answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Submitted(Submitted),
    Attempt(AttemptLeave),
    Suppressed(SuppressionId),
    HoldRule(HoldRuleId, JobId),
    Key(KeyId),
    /// Too much for one command: a job does it.
    Job(JobId),
    /// How many deliveries or calls were changed.
    Affected(u64),
    Replay(ReplayId),
    /// Calls of a replay that failed and are tried again.
    Deferred(Vec<DeferredCall>),
    Received(Vec<MsgId>),
    /// Whether there is more to do.
    More(bool),
}

/// What was accepted; the same for a repeated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    pub message: MessageUuid,
    pub message_id: String,
    /// In the order of the recipients: as written in the request, number, fromid.
    pub recipients: Vec<(String, DeliveryId, Option<FromId>)>,
    /// It had been accepted before, with the same Idempotency-Key.
    pub repeated: bool,
}

/// A call of a replay that failed for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredCall {
    pub call: CallRef,
    /// The number of the attempt that failed last.
    pub attempt: u32,
    /// When the next one is due.
    pub next: Timestamp,
}

/// Which of the deliveries asked for may be tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptLeave {
    /// With the recipient and its reverse-path.
    pub recipients: Vec<LeaveRecipient>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRecipient {
    pub id: DeliveryId,
    pub address: Address,
    pub reverse_path: Option<Address>,
}
