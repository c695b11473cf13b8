//! Reactor: tells senders of failures and long delays, by a delivery status notification (RFC 3464) in their Inbox, and accounts
//! of endpoints that were disabled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postledger_events::address::Address;
use postledger_events::command::{DropNotice, Receive};
use postledger_events::draft::{Draft, NameAddress};
use postledger_events::fact::account::Destination;
use postledger_events::fact::attempt::{Problem, Replies, Session};
use postledger_events::fact::endpoint::{Disabling, EndpointDisabled};
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{AccountName, DeliveryId, MessageUuid, Seq};
use postledger_events::reply::EnhancedCode;
use postledger_events::time::Timestamp;
use postledger_events::{Command, Event, Refusal};
use postledger_projections::accounts;
use postledger_projections::deliveries::{self, DELAY_NOTICE_ATTEMPT, MessageRow};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Intent, Snapshot, SubmitError};
use crate::mail::compose;
use crate::mail::dsn::{self, Action, Dsn, Recipient};
use crate::program::Program;
use crate::submit::CODE_VERSION;

/// Notices made in one round.
const ROUND: usize = 100;
/// The shortest time between two looks for failures, however many records are written meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Addresses of an account that are looked at for one that its notices can go to.
const ADDRESSES_MAX: usize = 100;
/// More than any notice of a disabled endpoint has.
const NOTICE_BYTES_MAX: u64 = 64 * 1024;
/// How long to wait after something went wrong.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub async fn run(program: Arc<Program>, hostname: String, stop: CancellationToken) {
    let mut log = program.ledger.watch();
    let teller = Arc::new(Teller { from: AtomicU64::new(0), program, hostname });
    loop {
        let pause = match teller.round(&stop).await {
            Ok(()) => None,
            Err(why) => {
                tracing::error!("senders cannot be told: {why}");
                Some(PAUSE)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = log.changed(), if pause.is_none() => if changed.is_err() { return },
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

struct Teller {
    /// No record before this one waits to be told of.
    from: AtomicU64,
    program: Arc<Program>,
    hostname: String,
}

impl Teller {
    /// One record that cannot be told of holds up no other: it is tried again in the next round.
    async fn round(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), String> {
        let mut from = self.from.load(Ordering::Relaxed);
        let mut wrong = None;
        loop {
            let rows = self.program.ledger.snapshot();
            let looking = tokio::task::spawn_blocking({
                let rows = rows.clone();
                move || deliveries::notices(&rows, Seq(from), ROUND)
            });
            let due = looking.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            for of in &due {
                if stop.is_cancelled() || self.program.ledger.status().stopped.is_some() {
                    return Ok(());
                }
                if let Err(why) = self.tell(&rows, *of).await {
                    wrong.get_or_insert((*of, why));
                }
                from = of.0 + 1;
            }
            if due.len() < ROUND {
                break;
            }
        }
        // Records only come behind those that were seen, and told ones go; so the next look begins here.
        let lowest = wrong.as_ref().map_or(from, |(of, _)| of.0);
        self.from.store(lowest, Ordering::Relaxed);
        wrong.map_or(Ok(()), |(of, why)| Err(format!("record {of}: {why}")))
    }

    async fn tell(self: &Arc<Self>, rows: &Snapshot, of: Seq) -> Result<(), String> {
        let Program { ledger, clock, .. } = &*self.program;
        let (teller, rows) = (Arc::clone(self), rows.clone());
        let notice = tokio::task::spawn_blocking(move || teller.notice(&rows, of)).await;
        let intent = match notice.map_err(|e| e.to_string())?? {
            None => Command::DropNotice(DropNotice { notice_of: of }).into(),
            Some(notice) => {
                let body = MessageUuid(clock.uuid_v7());
                let bytes = notice.bytes().into();
                let staged = ledger.stage(body, bytes).await.map_err(|e| e.to_string())?;
                let receive = notice.receive(staged.body, of);
                Intent { command: Command::Receive(Box::new(receive)), bodies: vec![staged], secrets: Vec::new() }
            }
        };
        match ledger.submit(intent).await {
            Ok(_) | Err(SubmitError::Refused(Refusal::NoSuch(_))) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The message for the sender or the account; `None`: there is nothing left to tell, or nobody.
    fn notice(&self, rows: &Snapshot, of: Seq) -> Result<Option<Notice>, String> {
        let Program { ledger, clock, .. } = &*self.program;
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let Some(record) = rows.record(of).map_err(|e| text(&e))? else { return Ok(None) };
        let none = Session::default();
        let (id, told, session, replies) = match &record.event {
            Event::DeliveryFailed(e) => {
                let told = e.deliveries.iter().map(|d| failed(d.id, Some(&d.problem))).collect::<Vec<_>>();
                (e.message, told, &e.session, e.personal.as_ref())
            }
            Event::DeliverySuppressed(e) => {
                (e.message, e.deliveries.iter().map(|d| failed(d.id, None)).collect(), &none, None)
            }
            Event::AttemptDeferred(e) => {
                let late = e.deliveries.iter().filter(|d| d.number == DELAY_NOTICE_ATTEMPT);
                let told = late.map(|d| Told {
                    id: d.id,
                    action: Action::Delayed,
                    problem: Some(&d.problem),
                    next: Some(d.next),
                });
                (e.message, told.collect(), &e.session, e.personal.as_ref())
            }
            Event::EndpointDisabled(e) => return self.disabled(rows, e),
            _ => return Ok(None),
        };
        let Some(message) = deliveries::message(rows, id).map_err(|e| text(&e))? else { return Ok(None) };
        let Some(to) = message.personal.as_ref().and_then(|p| p.reverse_path.clone()) else { return Ok(None) };
        let header = if message.contents { ledger.body(&message.body).unwrap_or_default() } else { Default::default() };
        let schedule = self.waits_left(rows, &message).map_err(|e| text(&e))?;
        let mut parts = Vec::new();
        for t in &told {
            let row = deliveries::delivery(rows, t.id).map_err(|e| text(&e))?;
            if let Some(address) = row.as_ref().and_then(|row| row.address.clone()) {
                parts.push((t, address, later(t.next, &schedule)));
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let recipients: Vec<Recipient<'_>> =
            parts.iter().map(|(t, address, next)| recipient(t, address, next, session, replies, record.at)).collect();
        let composed = dsn::compose(&Dsn {
            hostname: &self.hostname,
            to: &to,
            now: clock.now(),
            message_id_random: clock.random(),
            boundary_random: clock.random(),
            arrival: message.submitted,
            future_release: None,
            envelope_id: None,
            original_message_id: message.personal.as_ref().map(|p| p.message_id.as_str()),
            original_header: &header,
            original_smtputf8: message.smtputf8,
            recipients: &recipients,
        });
        Ok(Some(Notice { to, account: message.account, composed }))
    }

    /// Why an endpoint is called no more, to the first address of its account.
    fn disabled(&self, rows: &Snapshot, e: &EndpointDisabled) -> Result<Option<Notice>, String> {
        let clock = &self.program.clock;
        let addresses = accounts::addresses_of(rows, &e.account, ADDRESSES_MAX).map_err(|e| e.to_string())?;
        let to = addresses.into_iter().find_map(|row| match row.address {
            Destination::Address(address) => Some(address),
            Destination::CatchAll(_) => None,
        });
        let Some(to) = to else { return Ok(None) };
        let from = Address::parse(&format!("postmaster@{}", self.hostname)).map_err(|e| e.to_string())?;
        let person = |address: &Address| NameAddress { name: String::new(), address: address.clone() };
        let draft = Draft {
            to: vec![person(&to)],
            subject: format!("Endpoint {} was disabled", e.endpoint),
            text: disabled_text(e),
            headers: vec![("Auto-Submitted".to_owned(), "auto-generated".to_owned())],
            ..Draft::from(person(&from))
        };
        let context = compose::Context {
            hostname: &self.hostname,
            now: clock.now(),
            message_id_random: clock.random(),
            boundary_random: clock.random(),
            user_agent: CODE_VERSION,
            size_max: NOTICE_BYTES_MAX,
        };
        let composed = compose::compose(&draft, &context).map_err(|e| e.to_string())?;
        Ok(Some(Notice { to, account: e.account.clone(), composed }))
    }

    /// The waits of the schedule in force behind the attempt that delay is told after.
    fn waits_left(
        &self,
        rows: &Snapshot,
        message: &MessageRow,
    ) -> Result<Vec<Duration>, postledger_projections::Error> {
        let account = accounts::account(rows, &message.account)?;
        let schedule = account.and_then(|a| a.settings.retry).unwrap_or_else(|| self.program.retry.clone());
        let waits = schedule.waits_s.into_iter().skip(DELAY_NOTICE_ATTEMPT as usize);
        Ok(waits.map(|s| Duration::from_secs(u64::from(s)) / self.program.retry_scale.max(1)).collect())
    }
}

/// What a record says of one recipient, as far as a sender is told.
struct Told<'a> {
    id: DeliveryId,
    action: Action,
    problem: Option<&'a Problem>,
    /// When the next attempt is due.
    next: Option<Timestamp>,
}

fn failed(id: DeliveryId, problem: Option<&Problem>) -> Told<'_> {
    Told { id, action: Action::Failed, problem, next: None }
}

/// A message of ours to an account.
struct Notice {
    to: Address,
    account: AccountName,
    composed: compose::Composed,
}

impl Notice {
    fn bytes(&self) -> Vec<u8> {
        [format!("Return-Path: <>\r\nDelivered-To: {}\r\n", self.to).as_bytes(), &self.composed.message].concat()
    }

    fn receive(self, body: BodyRef, of: Seq) -> Receive {
        Receive {
            body,
            peer: None,
            helo: String::new(),
            tls: None,
            smtputf8: self.composed.smtputf8,
            mail_from: None,
            recipients: vec![(self.to, self.account)],
            message_id: Some(self.composed.message_id),
            from: None,
            subject: None,
            notice_of: Some(of),
        }
    }
}

fn disabled_text(e: &EndpointDisabled) -> String {
    let why = match e.why {
        Disabling::Gone(fact) => format!("It answered 410 Gone to the call about record {fact}."),
        Disabling::FailingSince(since) => format!("No call has succeeded since {since}."),
    };
    let EndpointDisabled { account, endpoint, .. } = e;
    format!(
        "Endpoint {endpoint} of account {account} is called no more.\n{why}\n\n\
         Its calls wait, for a week at least. Once it is enabled again, they are made in their order:\n\n    \
         postledger webhook set {account} {endpoint} --disabled false\n"
    )
}

/// The attempts that are still to come.
fn later(next: Option<Timestamp>, waits: &[Duration]) -> Vec<Timestamp> {
    let Some(next) = next else { return Vec::new() };
    let waits = waits.iter().scan(next, |at, wait| {
        *at = *at + *wait;
        Some(*at)
    });
    std::iter::once(next).chain(waits).collect()
}

fn recipient<'a>(
    told: &Told<'_>,
    address: &'a Address,
    next: &'a [Timestamp],
    session: &'a Session,
    replies: Option<&'a Replies>,
    at: Timestamp,
) -> Recipient<'a> {
    let class = match told.action {
        Action::Failed => 5,
        Action::Delayed => 4,
    };
    let reply = told.problem.and_then(|p| p.reply).and_then(|n| replies?.replies.get(usize::from(n)));
    let error = told.problem.and_then(|p| p.error).and_then(|n| replies?.errors.get(usize::from(n)));
    let enhanced = told.problem.and_then(|p| p.enhanced);
    let otherwise = if told.problem.is_none() { "the address is on the account's suppression list" } else { "" };
    Recipient {
        address,
        original: None,
        action: told.action,
        status: enhanced.map_or(EnhancedCode::new(class, 0, 0), |e| EnhancedCode { class, ..e }),
        remote_mta: (!session.remote_host.is_empty())
            .then(|| (session.remote_host.as_str(), session.remote_addr.map(|a| a.ip()))),
        reply,
        error: error.map_or(otherwise, String::as_str),
        last_attempt: told.problem.map(|_| at),
        will_retry_until: next.last().copied(),
        next_attempts: next,
    }
}
