//! Accepting a message.

use std::time::Duration;

use postledger_events::address::Address;
use postledger_events::command::{Submit, Submitted};
use postledger_events::fact::delivery::{DeliverySuppressed, SuppressedRecipient};
use postledger_events::fact::expiry::{Expired, ExpiredBody};
use postledger_events::fact::submission::{
    Idempotency, MessageSubmitted, Origin, SentCopy, SubmissionPersonal, SubmittedDelivery, SubmittedRecipient, Via,
    reverse_path,
};
use postledger_events::id::{AccountName, DeliveryId, FromId, MailboxName, MsgId};
use postledger_events::refusal::{FUTURE_RELEASE_MAX_S, RECIPIENTS_MAX, Thing};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::{self, AccountRow, HoldRuleRow};
use postledger_projections::usage::SubmittedAnswer;
use postledger_projections::{Rows, deliveries, mailboxes, suppressions, usage};

use super::suppression::{earlier_answer, idempotency};
use super::{Decision, Moment, Policy, damaged, next_number, pseudonym, queue};

/// Says whether a submission by this account would be refused for its sender, its recipients or its limits.
pub fn preflight(
    account: &AccountName,
    from: &Address,
    recipients: &[Address],
    rows: &dyn Rows,
    now: Timestamp,
) -> Result<(), Refusal> {
    let account = sender(rows, account, from)?;
    check_recipients(rows, &account, recipients.iter(), now)
}

pub fn submit(c: &Submit, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    if let Some(row) = earlier_answer(rows, &c.account, c.idempotency.as_ref(), moment.now)? {
        let submitted = row.submitted.ok_or(Refusal::IdempotencyMismatch)?;
        return Ok(Decision::new(Answer::Submitted(repeated(submitted))));
    }
    if let Some(origin) = &c.origin {
        check_origin(rows, &c.account, origin)?;
    }
    let account = sender(rows, &c.account, &c.from)?;
    check_recipients(rows, &account, c.recipients.iter().map(|(address, _)| address), moment.now)?;
    let latest = moment.now + Duration::from_secs(FUTURE_RELEASE_MAX_S);
    if c.future_release.is_some_and(|at| at > latest) {
        return Err(Refusal::FutureReleaseTooFar);
    }
    let sent_copy = sent_copy(c, &account, rows, policy)?;
    let separator = fromid_separator(c, &account, rows)?;
    let deliveries = new_deliveries(c, &account, separator, rows, policy)?;

    let answer = Submitted {
        message: c.message,
        message_id: c.message_id.clone(),
        recipients: c
            .recipients
            .iter()
            .zip(&deliveries)
            .map(|((_, given), d)| (given.clone(), d.id, d.fromid.clone()))
            .collect(),
        repeated: false,
    };
    let suppressed = suppressed(c, &account, &deliveries, rows, moment)?;
    let all_ended = suppressed.as_ref().is_some_and(|e| e.deliveries.len() == deliveries.len());
    let mut decision = Decision::new(Answer::Submitted(answer));
    decision.events.push(accepted(c, &account, deliveries, sent_copy, separator, moment).into());
    decision.events.extend(suppressed.map(Into::into));
    if all_ended && !account.settings.keep_contents {
        let bodies = vec![ExpiredBody { message: c.message, size: c.body.size, row: false }];
        decision.events.push(Expired { bodies, ..Expired::default() }.into());
        decision.forget_bodies.push(c.body);
    }
    Ok(decision)
}

fn repeated(earlier: SubmittedAnswer) -> Submitted {
    let SubmittedAnswer { message, message_id, recipients } = earlier;
    Submitted { message, message_id, recipients, repeated: true }
}

/// What is sent again must be over without having arrived, and its content must still be there.
fn check_origin(rows: &dyn Rows, account: &AccountName, origin: &Origin) -> Result<(), Refusal> {
    let message = deliveries::message(rows, origin.message).map_err(damaged)?;
    let message = message.filter(|message| message.account == *account);
    let message = message.ok_or_else(|| Refusal::NoSuch(Thing::Message(origin.message.to_string())))?;
    if !message.contents {
        let why = format!("the content of message {} is not kept any more, so it cannot be sent again", origin.message);
        return Err(Refusal::Conflict(why));
    }
    for id in &origin.deliveries {
        let row = deliveries::delivery(rows, *id).map_err(damaged)?;
        let row = row.filter(|row| row.message == origin.message);
        row.ok_or_else(|| Refusal::NoSuch(Thing::Delivery(id.to_string())))?.check_sent_again()?;
    }
    Ok(())
}

/// The account, if it may send from this address.
fn sender(rows: &dyn Rows, name: &AccountName, from: &Address) -> Result<AccountRow, Refusal> {
    let account = accounts::account(rows, name).map_err(damaged)?;
    let account = account.ok_or_else(|| Refusal::NoSuch(Thing::Account(name.to_string())))?;
    if account.removing.is_some() {
        return Err(Refusal::AccountGoing(name.clone()));
    }
    match accounts::resolve(rows, from).map_err(damaged)? {
        Some((owner, _)) if owner != *name => Err(Refusal::BadFrom),
        Some((_, domain)) if domain.settings.disabled => Err(Refusal::DomainDisabled),
        Some(_) => Ok(account),
        None => Err(Refusal::BadFrom),
    }
}

fn check_recipients<'a>(
    rows: &dyn Rows,
    account: &AccountRow,
    recipients: impl ExactSizeIterator<Item = &'a Address>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let wanted = recipients.len();
    match wanted {
        0 => return Err(Refusal::NoRecipients),
        n if n > RECIPIENTS_MAX => return Err(Refusal::TooManyRecipients),
        _ => {}
    }
    let limits = (account.settings.messages_per_day_max, account.settings.first_time_recipients_per_day_max);
    if limits == (None, None) {
        return Ok(());
    }
    let (all, first_time) = usage::usage(rows, &account.account).map_err(damaged)?.last_day(now);
    if limits.0.is_some_and(|max| all + wanted as u64 > u64::from(max)) {
        return Err(Refusal::MessageLimit);
    }
    if let Some(max) = limits.1 {
        let mut unknown = 0;
        for address in recipients {
            unknown += u64::from(!usage::knows(rows, &account.account, address).map_err(damaged)?);
        }
        if first_time + unknown > u64::from(max) && unknown > 0 {
            return Err(Refusal::RecipientLimit);
        }
    }
    Ok(())
}

fn sent_copy(c: &Submit, account: &AccountRow, rows: &dyn Rows, policy: &Policy) -> Result<Option<SentCopy>, Refusal> {
    let Some(body) = c.sent_copy else { return Ok(None) };
    let storage = mailboxes::storage(rows, &account.account).map_err(damaged)?;
    let mailbox = MailboxName::sent();
    if !storage.mailboxes.contains(&mailbox) {
        return Ok(None);
    }
    if let Some(quota_bytes) = account.settings.quota_bytes
        && storage.octets + body.size > quota_bytes
    {
        return Err(Refusal::OverQuota { quota_bytes });
    }
    let last = mailboxes::last_number(rows).map_err(damaged)?;
    Ok(Some(SentCopy { msg_id: MsgId(next_number(last, policy.ledger_number)), mailbox, body }))
}

/// What joins fromids to the reverse-path: `None` if this submission has none. The longest fromid must fit.
fn fromid_separator(c: &Submit, account: &AccountRow, rows: &dyn Rows) -> Result<Option<char>, Refusal> {
    // A key has no address of its own, nor need whoever sends again have one: they send as whoever is in From.
    let is_other = c.login.starts_with("key:") || c.via == Via::Redelivery;
    let login = if is_other { Some(c.from.clone()) } else { Address::parse(&c.login).ok() };
    let (Some(login), Some(base)) = (login, &c.reverse_path) else { return Ok(None) };
    if !account.settings.fromid_logins.contains(&login) || c.fromids.len() != c.recipients.len() {
        return Ok(None);
    }
    let domain = accounts::domain(rows, &base.domain).map_err(damaged)?;
    let separator = domain.and_then(|d| d.settings.separators.first().copied());
    let fits = |s: &char| c.fromids.iter().all(|id| &reverse_path(base, Some(*s), Some(id)) != base);
    Ok(separator.filter(fits))
}

fn new_deliveries(
    c: &Submit,
    account: &AccountRow,
    separator: Option<char>,
    rows: &dyn Rows,
    policy: &Policy,
) -> Result<Vec<SubmittedDelivery>, Refusal> {
    let rules = accounts::hold_rules(rows).map_err(damaged)?;
    let sender_domain = c.reverse_path.as_ref().map(|a| &a.domain);
    let first = next_number(deliveries::last_number(rows).map_err(damaged)?, policy.ledger_number);
    let hold = |to: &Address| {
        let holds = |r: &&HoldRuleRow| queue::matches(&r.matching, &c.account, sender_domain, &to.domain);
        rules.iter().find(holds).map(|r| r.rule)
    };
    let fromid = |n: usize| -> Option<FromId> { separator.and_then(|_| c.fromids.get(n).cloned()) };
    let fold = account.settings.fold;
    let deliveries = c.recipients.iter().enumerate().map(|(n, (to, _))| SubmittedDelivery {
        id: DeliveryId(first + n as u64),
        recipient: pseudonym::recipient_key(&policy.pepper, &c.account, to, fold),
        domain: to.domain.clone(),
        fromid: fromid(n),
        hold: hold(to),
    });
    Ok(deliveries.collect())
}

/// Those of the deliveries that end at once.
fn suppressed(
    c: &Submit,
    account: &AccountRow,
    deliveries: &[SubmittedDelivery],
    rows: &dyn Rows,
    moment: Moment,
) -> Result<Option<DeliverySuppressed>, Refusal> {
    let mut found = Vec::new();
    // A held delivery is looked at again when it is released.
    for d in deliveries.iter().filter(|d| d.hold.is_none()) {
        if let Some(row) = suppressions::suppression(rows, &c.account, d.recipient).map_err(damaged)? {
            found.push(SuppressedRecipient { id: d.id, number: 0, recipient: d.recipient, suppression: row.id });
        }
    }
    let keep_until = moment.now + Duration::from_secs(account.settings.keep_s);
    let event = DeliverySuppressed { message: c.message, account: c.account.clone(), deliveries: found, keep_until };
    Ok(Some(event).filter(|e| !e.deliveries.is_empty()))
}

fn accepted(
    c: &Submit,
    account: &AccountRow,
    deliveries: Vec<SubmittedDelivery>,
    sent_copy: Option<SentCopy>,
    separator: Option<char>,
    moment: Moment,
) -> MessageSubmitted {
    MessageSubmitted {
        message: c.message,
        account: c.account.clone(),
        via: c.via,
        body: c.body,
        eight_bit: c.eight_bit,
        smtputf8: c.smtputf8,
        require_tls: c.require_tls,
        due: c.future_release.map_or(moment.now, |at| at.max(moment.now)),
        future_release: c.future_release,
        separator,
        keep_s: account.settings.keep_s,
        keep_contents: account.settings.keep_contents,
        deliveries,
        sent_copy,
        origin: c.origin.clone(),
        idempotency: c.idempotency.as_ref().map(|i| -> Idempotency { idempotency(&c.account, i, moment.now) }),
        trace: c.trace.clone(),
        code_version: c.code_version.to_owned(),
        personal: Some(SubmissionPersonal {
            login: c.login.clone(),
            client: c.client,
            from: c.from.clone(),
            reverse_path: c.reverse_path.clone(),
            recipients: c.recipients.iter().map(|(a, given)| SubmittedRecipient::new(a.clone(), given)).collect(),
            message_id: c.message_id.clone(),
            subject: c.subject.clone(),
            extra: c.extra.clone(),
            idempotency_key: c.idempotency.as_ref().map(|i| i.key.clone()),
        }),
    }
}
