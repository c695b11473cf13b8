//! Tells the records about a message to people: what happened, when, to whom, and what was said.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use postledger_events::fact::attempt::{
    AttemptDeferred, AttemptInDoubt, AttemptStarted, Delivered, DeliveryFailed, Failure, Problem, Replies, Session,
};
use postledger_events::fact::call::CallsQueued;
use postledger_events::fact::delivery::{
    DeliveryCanceled, DeliveryHeld, DeliveryReleased, DeliveryRescheduled, DeliverySuppressed, HoldCause, Wish,
    WishNoted,
};
use postledger_events::fact::expiry::Expired;
use postledger_events::fact::mailbox::{MessageDeleted, MessageReceived};
use postledger_events::fact::submission::{MessageSubmitted, Via};
use postledger_events::id::{DeliveryId, JobId};
use postledger_events::reply::Reply;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};

use super::out::clean;

/// Stands for a personal part that is gone.
const FORGOTTEN: &str = "(forgotten)";

/// One block for each record: its number, when it was written after the first, what it says.
pub fn tell(records: &[Record]) -> String {
    let Some(first) = records.first() else { return "nothing is recorded\n".to_owned() };
    let mut story = Story { start: first.at, recipients: BTreeMap::new(), text: format!("{}\n", first.at) };
    for record in records {
        story.record(record);
    }
    story.text
}

struct Story {
    start: Timestamp,
    /// Of deliveries, as far as they are known.
    recipients: BTreeMap<DeliveryId, String>,
    text: String,
}

impl Story {
    fn record(&mut self, record: &Record) {
        let lines = self.lines(&record.event);
        let after = since(record.at.since(self.start));
        let mut head = format!("#{} {after}", record.seq);
        for line in lines {
            writeln!(self.text, "{head:>18}  {}", clean(&line)).expect("a String takes all");
            head.clear();
        }
    }

    /// What a record says; the first line says what happened, those that follow give the particulars.
    fn lines(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::MessageSubmitted(e) => self.submitted(e),
            Event::AttemptStarted(e) => self.started(e),
            Event::Delivered(e) => self.delivered(e),
            Event::AttemptDeferred(e) => self.deferred(e),
            Event::DeliveryFailed(e) => self.failed(e),
            Event::AttemptInDoubt(e) => self.in_doubt(e),
            Event::DeliverySuppressed(e) => self.suppressed(e),
            Event::DeliveryCanceled(e) => self.canceled(e),
            Event::DeliveryHeld(e) => self.held(e),
            Event::DeliveryReleased(e) => self.released(e),
            Event::DeliveryRescheduled(e) => self.rescheduled(e),
            Event::WishNoted(e) => self.wish(e),
            Event::MessageReceived(e) => received(e),
            Event::MessageDeleted(e) => deleted(e),
            Event::Expired(e) => expired(e),
            Event::CallsQueued(e) => to_be_called(e),
            // Not about one message, so on no timeline; if one is, its name says more than nothing.
            Event::LedgerCreated(_)
            | Event::ClockStepped(_)
            | Event::LedgerBranched(_)
            | Event::AccountConfigured(_)
            | Event::AccountRemoved(_)
            | Event::DomainConfigured(_)
            | Event::DomainRemoved(_)
            | Event::AddressAdded(_)
            | Event::AddressRemoved(_)
            | Event::TransportConfigured(_)
            | Event::TransportRemoved(_)
            | Event::AddressSuppressed(_)
            | Event::SuppressionLifted(_)
            | Event::HoldRuleAdded(_)
            | Event::HoldRuleRemoved(_)
            | Event::JobStarted(_)
            | Event::JobAdvanced(_)
            | Event::JobFinished(_)
            | Event::EndpointConfigured(_)
            | Event::EndpointDisabled(_)
            | Event::EndpointRemoved(_)
            | Event::CallsAttempted(_)
            | Event::CallsCanceled(_)
            | Event::CallsRetried(_)
            | Event::CallsHeld(_)
            | Event::TestCallMade(_)
            | Event::ReplayStarted(_)
            | Event::ReplayAdvanced(_)
            | Event::ReplayStopped(_)
            | Event::ReplayResumed(_)
            | Event::ReplayEnded(_)
            | Event::KeyAdded(_)
            | Event::KeyRevoked(_)
            | Event::KeyUsed(_)
            | Event::CursorSet(_)
            | Event::CursorRemoved(_) => vec![event.kind().to_owned()],
        }
    }

    fn submitted(&mut self, e: &MessageSubmitted) -> Vec<String> {
        let via = match e.via {
            Via::Webapi => "over the webapi",
            Via::Redelivery => "again",
        };
        let mut lines = vec![format!("submitted by account {} {via}, {} octets", e.account, e.body.size)];
        lines.push(format!("message {}", e.message));
        lines.extend(e.origin.iter().map(|origin| format!("sends message {} again", origin.message)));
        match &e.personal {
            None => lines.push(format!("from, subject and recipients: {FORGOTTEN}")),
            Some(p) => {
                let client = p.client.map(|ip| format!(" from {ip}")).unwrap_or_default();
                lines.push(format!("login {}{client}", p.login));
                lines.push(format!("from {}, Message-ID {}", p.from, p.message_id));
                lines.push(format!("subject: {}", p.subject));
                lines.extend(p.extra.iter().map(|(name, value)| format!("extra {name}: {value}")));
            }
        }
        if let Some(at) = e.future_release {
            lines.push(format!("not before {at}"));
        }
        for (n, d) in e.deliveries.iter().enumerate() {
            let address = e.personal.as_ref().and_then(|p| p.recipients.get(n)).map(|r| r.address.to_string());
            self.recipients.insert(d.id, address.unwrap_or_else(|| FORGOTTEN.to_owned()));
            let hold = d.hold.map(|rule| format!(", held by rule {rule}")).unwrap_or_default();
            let fromid = d.fromid.as_ref().map(|fromid| format!(", fromid {fromid}")).unwrap_or_default();
            let origin = e.origin.as_ref().and_then(|origin| origin.deliveries.get(n));
            let origin = origin.map(|id| format!(", in place of delivery {id}")).unwrap_or_default();
            lines.push(format!("delivery {}{fromid}{hold}{origin}", self.who(d.id)));
        }
        lines
    }

    fn started(&self, e: &AttemptStarted) -> Vec<String> {
        let mut lines = vec![format!("attempt started, by transport {}", e.transport)];
        lines.extend(e.deliveries.iter().map(|d| format!("delivery {}, attempt {}", self.who(d.id), d.number)));
        lines
    }

    fn delivered(&self, e: &Delivered) -> Vec<String> {
        let mut lines = vec![format!("delivered{}", to(&e.session))];
        for d in &e.deliveries {
            lines.push(format!("delivery {}, attempt {}", self.who(d.id), d.number));
            lines.extend(reply(e.personal.as_ref(), Some(d.reply)));
        }
        lines.extend(particulars(&e.session));
        lines
    }

    fn deferred(&self, e: &AttemptDeferred) -> Vec<String> {
        let mut lines = vec![format!("deferred{}", to(&e.session))];
        for d in &e.deliveries {
            let next = self.at(d.next);
            lines.push(format!("delivery {}, attempt {}; next {next}", self.who(d.id), d.number));
            lines.extend(problem(&d.problem, e.personal.as_ref()));
        }
        lines.extend(particulars(&e.session));
        lines
    }

    fn failed(&self, e: &DeliveryFailed) -> Vec<String> {
        let by = e.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let mut lines = vec![format!("failed{by}{}", to(&e.session))];
        for d in &e.deliveries {
            let why = failure(d.why);
            lines.push(format!("delivery {}, after {} attempts: {why}", self.who(d.id), d.number));
            lines.extend(problem(&d.problem, e.personal.as_ref()));
            if let Some(suppression) = d.suppressing {
                lines.push(format!("  the address is suppressed from now on (suppression {suppression})"));
            }
        }
        lines.extend(particulars(&e.session));
        lines
    }

    fn in_doubt(&self, e: &AttemptInDoubt) -> Vec<String> {
        let mut lines = vec!["attempt in doubt: it was cut off, and nobody knows how far it came".to_owned()];
        for d in &e.deliveries {
            let next = d.next.map_or("this was the last".to_owned(), |next| format!("next {}", self.at(next)));
            lines.push(format!("delivery {}, attempt {}; {next}", self.who(d.id), d.number));
        }
        lines
    }

    fn suppressed(&self, e: &DeliverySuppressed) -> Vec<String> {
        let mut lines = vec!["not sent: the address is suppressed".to_owned()];
        let deliveries = e.deliveries.iter();
        lines.extend(deliveries.map(|d| format!("delivery {}, suppression {}", self.who(d.id), d.suppression)));
        lines
    }

    fn canceled(&self, e: &DeliveryCanceled) -> Vec<String> {
        self.each(format!("canceled by {}{}", e.by, job(e.job)), e.deliveries.iter().map(|d| d.id))
    }

    fn held(&self, e: &DeliveryHeld) -> Vec<String> {
        let cause = match e.cause {
            HoldCause::Rule(rule) => format!("rule {rule}"),
            HoldCause::Person => e.by.to_string(),
            HoldCause::Restored => "the ledger's restore; it may have been sent".to_owned(),
        };
        self.each(format!("held by {cause}{}", job(e.job)), e.deliveries.iter().copied())
    }

    fn released(&self, e: &DeliveryReleased) -> Vec<String> {
        self.each(format!("released by {}{}", e.by, job(e.job)), e.deliveries.iter().copied())
    }

    fn rescheduled(&self, e: &DeliveryRescheduled) -> Vec<String> {
        let mut lines = vec![format!("rescheduled by {}{}", e.by, job(e.job))];
        lines.extend(e.deliveries.iter().map(|d| format!("delivery {}, next {}", self.who(d.id), self.at(d.next))));
        lines
    }

    fn wish(&self, e: &WishNoted) -> Vec<String> {
        let wish = match e.wish {
            Wish::Cancel => "cancel".to_owned(),
            Wish::Fail => "fail".to_owned(),
            Wish::Hold => "hold".to_owned(),
            Wish::Reschedule(at) => format!("reschedule to {}", self.at(at)),
        };
        let what = format!("wished by {}{}, once the running attempt has ended: {wish}", e.by, job(e.job));
        self.each(what, [e.delivery])
    }

    fn each(&self, what: String, deliveries: impl IntoIterator<Item = DeliveryId>) -> Vec<String> {
        let mut lines = vec![what];
        lines.extend(deliveries.into_iter().map(|id| format!("delivery {}", self.who(id))));
        lines
    }

    fn who(&self, id: DeliveryId) -> String {
        match self.recipients.get(&id) {
            Some(address) => format!("{id} to {address}"),
            None => id.to_string(),
        }
    }

    /// A time that is to come, and how long after the first record.
    fn at(&self, at: Timestamp) -> String {
        format!("{at} ({})", since(at.since(self.start)))
    }
}

fn received(e: &MessageReceived) -> Vec<String> {
    let mut lines = vec![format!("received, {} octets", e.body.size)];
    lines.extend(e.notice_of.map(|seq| format!("a notice of ours about record {seq}")));
    lines.push(format!("message {}", e.body.body));
    match &e.personal {
        None => lines.push(format!("sender, recipients and subject: {FORGOTTEN}")),
        Some(p) => {
            let peer = p.peer.map_or("-".to_owned(), |peer| peer.to_string());
            lines.push(format!("peer {peer}, which says it is {}", p.helo));
            lines.push(format!("reverse-path <{}>", p.mail_from.as_ref().map(ToString::to_string).unwrap_or_default()));
            lines.push(format!("Message-ID {}", p.message_id.as_deref().unwrap_or("-")));
            lines.push(format!("subject: {}", p.subject.as_deref().unwrap_or("-")));
        }
    }
    for copy in &e.copies {
        let recipient = e.personal.as_ref().and_then(|p| p.recipients.get(usize::from(copy.recipient)));
        let recipient = recipient.map_or(FORGOTTEN.to_owned(), ToString::to_string);
        lines.push(format!("for {recipient}: number {} in {} of account {}", copy.msg_id, copy.mailbox, copy.account));
    }
    lines
}

fn deleted(e: &MessageDeleted) -> Vec<String> {
    let content = if e.last { ", and with it the content" } else { "" };
    vec![format!("deleted by {}: number {} in {} of account {}{content}", e.by, e.msg_id, e.mailbox, e.account)]
}

fn expired(e: &Expired) -> Vec<String> {
    let counts = [
        (e.deliveries.len(), "finished deliveries"),
        (e.bodies.len(), "contents"),
        (e.idempotency_keys.len(), "idempotency keys"),
        (e.notices.len(), "notices that cannot be given"),
    ];
    let counts = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
    vec![format!("kept no longer, with others: {}", counts.collect::<Vec<_>>().join(", "))]
}

/// Where a connection led.
fn to(session: &Session) -> String {
    match (session.remote_host.as_str(), session.remote_addr) {
        ("", None) => String::new(),
        ("", Some(addr)) => format!(", {addr}"),
        (host, None) => format!(", {host}"),
        (host, Some(addr)) => format!(", {host} ({addr})"),
    }
}

/// How a connection was protected and how long its parts took; nothing if there was none.
fn particulars(session: &Session) -> Option<String> {
    session.remote_addr?;
    let tls = session.tls.as_ref().map_or("no TLS".to_owned(), |tls| {
        let verified = if tls.verified { "verified" } else { "not verified" };
        format!("{} {}, {verified}", tls.protocol, tls.cipher)
    });
    let ms = |us: u64| format!("{}.{:03} ms", us / 1000, us % 1000);
    let connection = if session.reused { "reused".to_owned() } else { format!("made in {}", ms(session.connect_us)) };
    Some(format!(
        "connection {connection}, {tls}; envelope {}, content {}, final reply {}",
        ms(session.envelope_us),
        ms(session.data_us),
        ms(session.final_us)
    ))
}

fn problem(problem: &Problem, said: Option<&Replies>) -> Vec<String> {
    let mut lines = reply(said, problem.reply);
    if let Some(n) = problem.error {
        let error = said.and_then(|said| said.errors.get(usize::from(n)));
        lines.push(format!("  {}", error.map_or(FORGOTTEN, String::as_str)));
    }
    if lines.is_empty() && problem.code != 0 {
        lines.push(format!("  {}", problem.code));
    }
    lines
}

/// A reply as it was said, line by line (RFC 5321 §4.2).
fn reply(said: Option<&Replies>, n: Option<u16>) -> Vec<String> {
    let Some(n) = n else { return Vec::new() };
    match said.map(|said| said.replies.get(usize::from(n))) {
        Some(Some(reply)) => verbatim(reply),
        Some(None) | None => vec![format!("  {FORGOTTEN}")],
    }
}

fn verbatim(reply: &Reply) -> Vec<String> {
    let last = reply.lines.len().saturating_sub(1);
    let lines = reply.lines.iter().enumerate();
    lines.map(|(n, text)| format!("  {}{}{text}", reply.code, if n == last { ' ' } else { '-' })).collect()
}

fn failure(why: Failure) -> &'static str {
    match why {
        Failure::Permanent => "refused for good",
        Failure::Exhausted => "the last attempt failed",
        Failure::OutcomeUnknown => "the last attempt was cut off; it may have been delivered",
        Failure::Operator => "given up by a person",
        Failure::AccountRemoved => "its account was removed",
        Failure::Forgotten => "what it needs was forgotten",
    }
}

fn to_be_called(e: &CallsQueued) -> Vec<String> {
    let endpoints = e.endpoints.iter().map(|to| match to.calls.len() {
        1 => to.endpoint.to_string(),
        many => format!("{} ({many} calls)", to.endpoint),
    });
    let endpoints: Vec<String> = endpoints.collect();
    vec![format!("#{} is told to {}", e.fact, endpoints.join(", "))]
}

fn job(job: Option<JobId>) -> String {
    job.map(|job| format!(" (job {job})")).unwrap_or_default()
}

/// `+0s`, `+0.123s`, `+1m02s`, `+1h00m`, `+2d03h`: as fine as matters.
fn since(duration: Duration) -> String {
    let (s, ms) = (duration.as_secs(), duration.subsec_millis());
    match s {
        0 if ms == 0 => "+0s".to_owned(),
        0..60 => format!("+{s}.{ms:03}s"),
        60..3600 => format!("+{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("+{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("+{}d{:02}h", s / 86400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests;
