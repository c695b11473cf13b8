//! What became of a delivery, with mox's keys and then our own.

use std::collections::BTreeMap;

use postledger_events::fact::attempt::{
    AttemptDeferred, AttemptInDoubt, Delivered, DeliveryFailed, Failure, Problem, Replies, Session,
};
use postledger_events::fact::delivery::{DeliveryCanceled, DeliverySuppressed};
use postledger_events::fact::submission::MessageSubmitted;
use postledger_events::id::DeliveryId;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::Serialize;

use super::About;
use super::json::Time;

/// The version that mox gives its own form.
const MOX_VERSION: u32 = 0;
/// What the contract says of a delivery that a person gave up or withdrew.
const BY_PERSON: &str = "delivery canceled by admin";

/// `webhook.Outgoing`, in the order of the contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outgoing {
    version: u32,
    event: &'static str,
    #[serde(rename = "DSN")]
    dsn: bool,
    suppressing: bool,
    #[serde(rename = "QueueMsgID")]
    queue_msg_id: u64,
    #[serde(rename = "FromID")]
    from_id: String,
    #[serde(rename = "MessageID")]
    message_id: String,
    subject: String,
    webhook_queued: Time,
    #[serde(rename = "SMTPCode")]
    smtp_code: u16,
    #[serde(rename = "SMTPEnhancedCode")]
    smtp_enhanced_code: String,
    error: String,
    extra: BTreeMap<String, String>,
    /// Of the ledger.
    #[serde(rename = "EventID")]
    event_id: u64,
    recipient: String,
    /// 0 where the fact does not tell of attempts.
    attempt: u32,
    next_attempt: Option<Time>,
    #[serde(rename = "RemoteMTA")]
    remote_mta: String,
    bounce_class: &'static str,
    occurred_at: Time,
    /// The delivery that this one repeats; only there if it does.
    #[serde(rename = "OriginQueueMsgID", skip_serializing_if = "Option::is_none")]
    origin_queue_msg_id: Option<u64>,
}

impl Outgoing {
    pub(super) fn about(&self) -> About {
        About {
            kind: format!("postledger.delivery.{}", self.event),
            subject: format!("deliveries/{}", self.queue_msg_id),
        }
    }
}

/// `None`: the fact has no such place.
pub(super) fn of(fact: &Record, submitted: &Record, place: u16) -> Option<Outgoing> {
    let Event::MessageSubmitted(submission) = &submitted.event else { return None };
    let place = usize::from(place);
    let said = match &fact.event {
        Event::Delivered(e) => delivered(e, place)?,
        Event::AttemptDeferred(e) => deferred(e, place)?,
        Event::AttemptInDoubt(e) => in_doubt(e, place, fact.at)?,
        Event::DeliveryFailed(e) => failed(e, place)?,
        Event::DeliverySuppressed(e) => suppressed(e, place, fact.at, submission)?,
        Event::DeliveryCanceled(e) => canceled(e, place, fact.at)?,
        // Nothing else is told of a delivery.
        _ => return None,
    };
    Some(written(fact, submission, said))
}

/// An invented event.
pub(super) fn test(at: Timestamp) -> Outgoing {
    Outgoing {
        version: MOX_VERSION,
        event: "delivered",
        dsn: false,
        suppressing: false,
        queue_msg_id: 0,
        from_id: String::new(),
        message_id: "<test@postledger.invalid>".to_owned(),
        subject: "a test call of Postledger".to_owned(),
        webhook_queued: Time::utc(at),
        smtp_code: 0,
        smtp_enhanced_code: String::new(),
        error: String::new(),
        extra: BTreeMap::new(),
        event_id: 0,
        recipient: "test@postledger.invalid".to_owned(),
        attempt: 1,
        next_attempt: None,
        remote_mta: String::new(),
        bounce_class: "",
        occurred_at: Time::utc(at),
        origin_queue_msg_id: None,
    }
}

/// What a fact says of one delivery.
struct Said {
    event: &'static str,
    id: DeliveryId,
    suppressing: bool,
    code: u16,
    enhanced: String,
    error: String,
    attempt: u32,
    next: Option<Timestamp>,
    remote_mta: String,
    class: &'static str,
    occurred: Timestamp,
}

impl Said {
    fn new(event: &'static str, id: DeliveryId, occurred: Timestamp) -> Said {
        Said {
            event,
            id,
            suppressing: false,
            code: 0,
            enhanced: String::new(),
            error: String::new(),
            attempt: 0,
            next: None,
            remote_mta: String::new(),
            class: "",
            occurred,
        }
    }

    fn with_problem(self, problem: &Problem, session: &Session, personal: Option<&Replies>) -> Said {
        Said {
            code: problem.code,
            enhanced: problem.enhanced.map(|e| e.to_string()).unwrap_or_default(),
            error: error_text(problem, session, personal),
            class: bounce_class(problem),
            remote_mta: session.remote_host.clone(),
            ..self
        }
    }
}

fn delivered(e: &Delivered, place: usize) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    let said = Said::new("delivered", d.id, e.ended);
    Some(Said { attempt: d.number, remote_mta: e.session.remote_host.clone(), ..said })
}

fn deferred(e: &AttemptDeferred, place: usize) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    let said = Said::new("delayed", d.id, e.ended).with_problem(&d.problem, &e.session, e.personal.as_ref());
    Some(Said { attempt: d.number, next: Some(d.next), ..said })
}

fn in_doubt(e: &AttemptInDoubt, place: usize, at: Timestamp) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    let error = "the attempt was cut off, so it is not known whether the message was delivered".to_owned();
    Some(Said { attempt: d.number, next: d.next, error, ..Said::new("delayed", d.id, at) })
}

fn failed(e: &DeliveryFailed, place: usize) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    let said = Said::new("failed", d.id, e.ended).with_problem(&d.problem, &e.session, e.personal.as_ref());
    let said = Said { attempt: d.number, suppressing: d.suppressing.is_some(), ..said };
    let without_reply = match d.why {
        Failure::Permanent | Failure::Exhausted => return Some(said),
        Failure::OutcomeUnknown => "the last attempt was cut off, so it is not known whether the message was delivered",
        Failure::Operator => BY_PERSON,
        Failure::AccountRemoved => "the account was removed",
        Failure::Forgotten => "what the delivery needs was forgotten",
    };
    Some(Said { error: without_reply.to_owned(), class: "", ..said })
}

fn suppressed(e: &DeliverySuppressed, place: usize, at: Timestamp, submission: &MessageSubmitted) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    let address = recipient(submission, d.id);
    let error = format!("not delivering to recipient address {address}: address is on suppression list, permanent");
    Some(Said { attempt: d.number, error, ..Said::new("suppressed", d.id, at) })
}

fn canceled(e: &DeliveryCanceled, place: usize, at: Timestamp) -> Option<Said> {
    let d = e.deliveries.get(place)?;
    Some(Said { error: BY_PERSON.to_owned(), ..Said::new("canceled", d.id, at) })
}

fn written(fact: &Record, submission: &MessageSubmitted, said: Said) -> Outgoing {
    let delivery = submission.deliveries.iter().find(|d| d.id == said.id);
    let personal = submission.personal.as_ref();
    Outgoing {
        version: MOX_VERSION,
        event: said.event,
        dsn: false,
        suppressing: said.suppressing,
        queue_msg_id: said.id.0,
        from_id: delivery.and_then(|d| d.fromid.as_ref()).map(ToString::to_string).unwrap_or_default(),
        message_id: personal.map(|p| p.message_id.clone()).unwrap_or_default(),
        subject: personal.map(|p| p.subject.clone()).unwrap_or_default(),
        webhook_queued: Time::utc(fact.at),
        smtp_code: said.code,
        smtp_enhanced_code: said.enhanced,
        error: said.error,
        extra: personal.map(|p| p.extra.clone()).unwrap_or_default(),
        event_id: fact.seq.0,
        recipient: recipient(submission, said.id),
        attempt: said.attempt,
        next_attempt: said.next.map(Time::utc),
        remote_mta: said.remote_mta,
        bounce_class: said.class,
        occurred_at: Time::utc(said.occurred),
        origin_queue_msg_id: origin(submission, said.id).map(|id| id.0),
    }
}

fn origin(submission: &MessageSubmitted, id: DeliveryId) -> Option<DeliveryId> {
    let place = submission.deliveries.iter().position(|d| d.id == id)?;
    submission.origin.as_ref()?.deliveries.get(place).copied()
}

/// Empty if it was forgotten.
fn recipient(submission: &MessageSubmitted, id: DeliveryId) -> String {
    let place = submission.deliveries.iter().position(|d| d.id == id);
    let recipient = place.and_then(|place| submission.personal.as_ref()?.recipients.get(place));
    recipient.map(|r| r.address.to_unicode()).unwrap_or_default()
}

fn error_text(problem: &Problem, session: &Session, personal: Option<&Replies>) -> String {
    let texts = personal.map(|p| (problem.reply.and_then(|n| p.replies.get(usize::from(n))), &p.errors));
    let Some((reply, errors)) = texts else { return String::new() };
    let Some(reply) = reply else {
        return problem.error.and_then(|n| errors.get(usize::from(n))).cloned().unwrap_or_default();
    };
    let lasting = if reply.is_permanent() { "permanent" } else { "transient" };
    match session.remote_addr {
        Some(remote) => format!("delivering message to {remote}: {lasting}: {reply}"),
        None => format!("{lasting}: {reply}"),
    }
}

/// What the codes say about a refusal. The texts of replies have no say: their rules change, and a body never does.
fn bounce_class(problem: &Problem) -> &'static str {
    match (problem.enhanced.map(|e| (e.subject, e.detail)), problem.code) {
        (_, 0) => "connection",
        (Some((2, 2)), _) => "full",
        (Some((1 | 2, _)), _) => "mailbox",
        (Some((3, _)), _) => "system",
        (Some((4, _)), _) => "network",
        (Some((5, _)), _) => "protocol",
        (Some((6, _)), _) => "content",
        (Some((7, _)), _) => "policy",
        (_, 452 | 552) => "full",
        (_, 521 | 550 | 551 | 553 | 556) => "mailbox",
        _ => "other",
    }
}
