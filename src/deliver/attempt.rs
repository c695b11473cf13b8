//! One attempt: leave from the ledger, a connection, transactions, and the outcome into the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use postledger_events::Command;
use postledger_events::command::{FinishAttempt, LeaveRecipient, RecipientOutcome, StartAttempt};
use postledger_events::fact::attempt::{Session, TlsUsed};
use postledger_events::id::{AttemptId, MessageUuid, TransportName};
use postledger_events::reply::{EnhancedCode, Reply};
use postledger_events::{Answer, Refusal};
use postledger_projections::deliveries::MessageRow;
use tokio_util::sync::CancellationToken;

use super::pool::Pool;
use super::route::{Hop, Router};
use super::{Group, Settings};
use crate::clock::Clock;
use crate::ledger::{Ledger, SubmitError};
use crate::smtp::client::{Error, Fault, Phase, RecipientResult, Transaction};
use crate::smtp::drive::{Client, Report, SessionFacts, Timeouts, TlsMode};

/// Transactions of one attempt: each at least takes one recipient further.
const TRANSACTIONS_MAX: usize = 1000;
/// How long to wait before an outcome is brought to a busy ledger again.
const BUSY_WAIT: Duration = Duration::from_millis(200);

/// Makes attempts.
pub struct Attempts {
    ledger: Ledger,
    clock: Clock,
    router: Router,
    pool: Arc<Pool>,
    hostname: postledger_events::address::Domain,
    timeouts: Timeouts,
    /// Cuts off what runs.
    cut_off: CancellationToken,
    /// Contents in memory, each once however many attempts send it.
    bodies: Mutex<HashMap<MessageUuid, Weak<bytes::Bytes>>>,
}

impl Attempts {
    pub fn new(ledger: Ledger, clock: Clock, settings: &Settings, pool: Arc<Pool>) -> Attempts {
        Attempts {
            router: Router::new(ledger.clone(), settings.roots.clone()),
            ledger,
            clock,
            pool,
            hostname: settings.hostname.clone(),
            timeouts: settings.timeouts,
            cut_off: CancellationToken::new(),
            bodies: Mutex::default(),
        }
    }

    pub fn connections_max(&self, transport: &TransportName) -> u32 {
        self.router.connections_max(transport)
    }

    /// Lets what runs go on for this long.
    pub fn stop_after(&self, wait: Duration) {
        let cut_off = self.cut_off.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            cut_off.cancel();
        });
    }

    /// Tries the group now. What happens is in the ledger when this returns.
    pub async fn run(&self, group: Group) {
        let attempt = AttemptId(self.clock.uuid_v7());
        let start = StartAttempt {
            attempt,
            message: group.message.message,
            deliveries: group.deliveries,
            transport: group.transport.clone(),
            started: self.clock.now(),
        };
        let recipients = match self.ledger.submit(Command::StartAttempt(start)).await.map(|c| c.answer) {
            Ok(Answer::Attempt(leave)) => leave.recipients,
            Ok(other) => unreachable!("leave is what an attempt asks for, not {other:?}"),
            Err(SubmitError::Refused(Refusal::NoSuch(_))) => return,
            Err(e) => {
                tracing::warn!(message = %group.message.message, "the attempt cannot start: {e}");
                tokio::time::sleep(BUSY_WAIT).await;
                return;
            }
        };
        if recipients.is_empty() {
            return;
        }
        let mut outcome = Outcome::new(recipients);
        self.transact(&group.message, &group.transport, &mut outcome).await;
        self.record(attempt, &group.message, outcome).await;
    }

    async fn transact(&self, message: &MessageRow, transport: &TransportName, outcome: &mut Outcome) {
        let hop = match self.router.hop(transport).await {
            Ok(hop) => hop,
            Err(e) => return outcome.fail_rest(e.to_string()),
        };
        let body = match self.body(message).await {
            Ok(body) => body,
            Err(e) => return outcome.fail_rest(format!("the content cannot be read: {e}")),
        };
        // A connection from the pool may have been closed meanwhile. If it is lost before anything was sent, a fresh one is
        // used in the same attempt.
        if let Some(mut client) = self.pool.take(&hop.key) {
            self.deliver(&mut client, message, &body, outcome).await;
            let stale = outcome.is_untouched() && !client.is_usable();
            self.pool.put(&hop.key, client);
            if !stale {
                return;
            }
            outcome.start_over();
        }
        match self.connect(&hop, message.require_tls).await {
            Ok(mut client) => {
                self.deliver(&mut client, message, &body, outcome).await;
                self.pool.put(&hop.key, client);
            }
            Err(e) => outcome.not_connected(&e, &hop),
        }
    }

    async fn body(&self, message: &MessageRow) -> Result<Arc<bytes::Bytes>, String> {
        let (ledger, body) = (self.ledger.clone(), message.body);
        if !Ledger::is_body_file(&body) {
            return ledger.body(&body).map(Arc::new).map_err(|e| e.to_string());
        }
        if let Some(shared) = self.bodies().get(&message.message).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let read = tokio::task::spawn_blocking(move || ledger.body(&body)).await;
        let read = Arc::new(read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?);
        let mut bodies = self.bodies();
        bodies.retain(|_, body| body.strong_count() > 0);
        bodies.insert(message.message, Arc::downgrade(&read));
        Ok(read)
    }

    fn bodies(&self) -> MutexGuard<'_, HashMap<MessageUuid, Weak<bytes::Bytes>>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries one address after the other.
    async fn connect(&self, hop: &Hop, require_tls: Option<bool>) -> Result<Client, Error> {
        let mut last = None;
        for target in &hop.targets {
            match self.connect_to(target, hop, require_tls).await {
                Ok(client) => return Ok(client),
                Err(e) if e.is_permanent() => return Err(e),
                Err(e) => last = Some(e),
            }
        }
        Err(last.expect("a next hop has at least one address"))
    }

    async fn connect_to(
        &self,
        target: &crate::smtp::drive::Target,
        hop: &Hop,
        require_tls: Option<bool>,
    ) -> Result<Client, Error> {
        let connect = |tls: TlsMode| {
            let (auth, name, timeouts) = (hop.credentials.clone(), self.hostname.clone(), self.timeouts);
            async move {
                let connecting = Client::connect(target, &tls, auth.as_ref(), &name, &timeouts);
                tokio::select! {
                    connected = connecting => connected,
                    () = self.cut_off.cancelled() => Err(stopped()),
                }
            }
        };
        match connect(hop.tls.clone()).await {
            // Opportunistic: what cannot be had in TLS goes in the clear, unless the sender said otherwise.
            Err(e)
                if matches!(hop.tls, TlsMode::Opportunistic(_))
                    && e.phase == Phase::Tls
                    && require_tls != Some(true) =>
            {
                connect(TlsMode::None).await
            }
            connected => connected,
        }
    }

    async fn deliver(&self, client: &mut Client, message: &MessageRow, body: &bytes::Bytes, outcome: &mut Outcome) {
        for _ in 0..TRANSACTIONS_MAX {
            let rest = outcome.rest();
            let Some(first) = rest.first() else { return };
            let transaction = Transaction {
                reverse_path: first.reverse_path.clone(),
                recipients: rest.iter().map(|r| r.address.clone()).collect(),
                message: body.clone(),
                eight_bit: message.eight_bit,
                smtputf8: message.smtputf8,
                require_tls: message.require_tls == Some(true),
            };
            let report = tokio::select! {
                report = client.deliver(&transaction) => Some(report),
                () = self.cut_off.cancelled() => None,
            };
            let Some(report) = report else {
                return if client.content_begun() { outcome.cut_short() } else { outcome.cut_off() };
            };
            outcome.report(&report, client.facts());
            if !report.usable {
                return outcome.again_later();
            }
        }
        outcome.again_later();
    }

    /// The outcome of an attempt must reach the ledger; a ledger that is only busy is asked again.
    async fn record(&self, attempt: AttemptId, message: &MessageRow, outcome: Outcome) {
        let accepted = outcome.results.iter().filter(|(_, o)| matches!(o, RecipientOutcome::Accepted { .. })).count();
        let not_accepted = outcome.results.len() - accepted;
        tracing::info!(message = %message.message, %attempt, accepted, not_accepted, "the attempt ended");
        let command = FinishAttempt {
            attempt,
            message: message.message,
            results: outcome.results,
            replies: outcome.replies,
            errors: outcome.errors,
            session: outcome.session,
            ended: self.clock.now(),
            jitter_s: self.clock.jitter_s(),
        };
        loop {
            match self.ledger.submit(Command::FinishAttempt(Box::new(command.clone()))).await {
                Ok(_) => return,
                Err(SubmitError::Busy) => tokio::time::sleep(BUSY_WAIT).await,
                Err(e) => {
                    let message = message.message;
                    return tracing::error!(%message, %attempt, "the outcome cannot be recorded: {e}");
                }
            }
        }
    }
}

fn stopped() -> Error {
    Error { phase: Phase::Connect, fault: Fault::Network, text: STOPPED.to_owned(), reply: None }
}

const STOPPED: &str = "the program was stopped";

/// What is known of an attempt so far.
struct Outcome {
    /// Without a result yet.
    rest: Vec<LeaveRecipient>,
    results: Vec<(postledger_events::id::DeliveryId, RecipientOutcome)>,
    replies: Vec<Reply>,
    errors: Vec<String>,
    session: Session,
    /// Recipients whose connection was lost before anything was sent.
    lost_early: Vec<LeaveRecipient>,
}

impl Outcome {
    fn new(rest: Vec<LeaveRecipient>) -> Outcome {
        Outcome {
            results: Vec::with_capacity(rest.len()),
            rest,
            replies: Vec::new(),
            errors: Vec::new(),
            session: Session::default(),
            lost_early: Vec::new(),
        }
    }

    fn rest(&self) -> Vec<LeaveRecipient> {
        self.rest.clone()
    }

    /// The connection was lost before the peer could have taken anything.
    fn is_untouched(&self) -> bool {
        !self.lost_early.is_empty() && self.lost_early.len() == self.results.len()
    }

    fn start_over(&mut self) {
        self.results.clear();
        self.errors.clear();
        self.rest.extend(std::mem::take(&mut self.lost_early));
    }

    fn report(&mut self, report: &Report, facts: &SessionFacts) {
        self.facts(report, facts);
        let asked = std::mem::take(&mut self.rest);
        for (recipient, result) in asked.into_iter().zip(&report.recipients) {
            let outcome = match result {
                RecipientResult::Accepted { reply } => RecipientOutcome::Accepted { reply: self.reply(reply) },
                RecipientResult::Rejected { reply } => RecipientOutcome::Rejected { reply: self.reply(reply) },
                RecipientResult::Local { failure } => RecipientOutcome::Local {
                    permanent: true,
                    enhanced: Some(failure.enhanced()),
                    error: self.error(failure.to_string()),
                },
                RecipientResult::Lost { text, .. } if result.is_outcome_unknown() => {
                    RecipientOutcome::Unknown { error: self.error(format!("{text}; the message may have arrived")) }
                }
                RecipientResult::Lost { text, at } => {
                    if matches!(at, Phase::Mail) {
                        self.lost_early.push(recipient.clone());
                    }
                    self.transient(format!("{}: {text}", at.as_str()))
                }
                RecipientResult::Again { .. } => {
                    self.rest.push(recipient);
                    continue;
                }
            };
            self.results.push((recipient.id, outcome));
        }
    }

    fn facts(&mut self, report: &Report, facts: &SessionFacts) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let spent = &report.spent;
        let s = &mut self.session;
        s.remote_host.clone_from(&facts.remote_host);
        s.remote_addr = Some(facts.remote_addr);
        s.source_addr = Some(facts.local_addr);
        s.reused = facts.reused;
        s.tls = facts.tls.as_ref().map(|tls| TlsUsed {
            protocol: tls.protocol.clone(),
            cipher: tls.cipher.clone(),
            verified: tls.verification != crate::smtp::tls::Verification::None,
        });
        s.connect_us = micros(facts.connect_time);
        s.tls_us = micros(facts.tls_time);
        s.envelope_us += micros(spent.mail_rcpt);
        s.data_us += micros(spent.data);
        s.final_us += micros(spent.last);
        s.bytes += report.bytes_sent;
    }

    /// The session never came to a transaction.
    fn not_connected(&mut self, e: &Error, hop: &Hop) {
        if let Some(target) = hop.targets.last() {
            self.session.remote_host.clone_from(&target.host);
            self.session.remote_addr = Some(target.addr);
        }
        if e.text == STOPPED {
            return self.cut_off();
        }
        // A peer that will not have us for good says so; what the operator can mend is worth waiting for.
        let refused = e.reply.as_ref().filter(|_| e.fault == Fault::Peer && e.phase == Phase::Greeting);
        let outcome = match refused {
            Some(reply) => RecipientOutcome::Rejected { reply: self.reply(reply) },
            None => self.transient(format!("{}: {}", e.phase.as_str(), e.text)),
        };
        self.all_rest(outcome);
    }

    /// None of the rest could be tried; worth another try.
    fn fail_rest(&mut self, why: String) {
        let outcome = self.transient(why);
        self.all_rest(outcome);
    }

    /// The rest could not be tried in this attempt's transactions.
    fn again_later(&mut self) {
        if !self.rest.is_empty() {
            self.fail_rest("the connection ended before this recipient's turn".to_owned());
        }
    }

    /// A planned stop came in the middle: what was sent may have been taken.
    fn cut_short(&mut self) {
        let error = self.error(format!("{STOPPED} in the middle of a transaction; the message may have arrived"));
        self.all_rest(RecipientOutcome::Unknown { error });
    }

    /// A planned stop came before anything was sent.
    fn cut_off(&mut self) {
        let error = self.error(STOPPED.to_owned());
        self.all_rest(RecipientOutcome::Untried { error });
    }

    fn all_rest(&mut self, outcome: RecipientOutcome) {
        for recipient in std::mem::take(&mut self.rest) {
            self.results.push((recipient.id, outcome));
        }
    }

    fn transient(&mut self, why: String) -> RecipientOutcome {
        let enhanced: Option<EnhancedCode> = None;
        RecipientOutcome::Local { permanent: false, enhanced, error: self.error(why) }
    }

    fn reply(&mut self, reply: &Reply) -> u16 {
        place(&mut self.replies, reply)
    }

    fn error(&mut self, text: String) -> u16 {
        place(&mut self.errors, &text)
    }
}

/// The index of a value, which is kept once.
fn place<T: PartialEq + Clone>(values: &mut Vec<T>, value: &T) -> u16 {
    let at = values.iter().rposition(|v| v == value).unwrap_or_else(|| {
        values.push(value.clone());
        values.len() - 1
    });
    u16::try_from(at).expect("an attempt has fewer recipients than that")
}
