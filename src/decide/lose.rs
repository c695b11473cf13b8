//! Giving up contents that were not found again when a ledger was restored or repaired.

use std::collections::BTreeMap;

use postledger_events::command::{LoseContents, LostContent};
use postledger_events::event::Event;
use postledger_events::fact::attempt::{AttemptInDoubt, DeliveryFailed, DoubtfulRecipient, Failure};
use postledger_events::fact::expiry::{Expired, ExpiredBody};
use postledger_events::fact::mailbox::MessageDeleted;
use postledger_events::id::{AttemptId, Author};
use postledger_events::{Answer, Refusal};
use postledger_projections::deliveries::{DeliveryRow, MessageRow, State};
use postledger_projections::{Error, Rows, deliveries, mailboxes};

use super::attempt::{NO_PROBLEM, failed, without_attempt};
use super::{Decision, Moment, damaged};

pub fn lose(c: &LoseContents, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let mut decision = Decision::new(Answer::Affected(c.contents.len() as u64));
    let mut expired = Expired::default();
    for content in &c.contents {
        let message = deliveries::message(rows, content.body.body).map_err(damaged)?;
        if let Some(message) = message.filter(|message| message.contents) {
            decision.events.extend(given_up(&message, &c.by, rows, moment).map_err(damaged)?);
            expired.bodies.push(ExpiredBody { message: content.body.body, size: content.body.size, row: false });
        }
        decision.events.extend(deleted(content, &c.by, rows).map_err(damaged)?.into_iter().map(Into::into));
    }
    if expired != Expired::default() {
        decision.events.push(expired.into());
    }
    Ok(decision)
}

/// Its deliveries that are still open: there is nothing to send any more.
fn given_up(message: &MessageRow, by: &Author, rows: &dyn Rows, moment: Moment) -> Result<Vec<Event>, Error> {
    let (mut waiting, mut running) = (Vec::new(), BTreeMap::<AttemptId, Vec<DeliveryRow>>::new());
    for row in deliveries::of_message(rows, message)? {
        match row.state {
            State::Queued | State::Held(_) => waiting.push(failed(&row, Failure::Forgotten, NO_PROBLEM)),
            State::Running(attempt, _) => running.entry(attempt).or_default().push(row),
            State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled => {}
        }
    }
    let mut events = Vec::new();
    for (attempt, rows) in running {
        let over = rows.iter().map(|row| failed(row, Failure::OutcomeUnknown, NO_PROBLEM)).collect();
        let failed =
            DeliveryFailed { attempt: Some(attempt), ..without_attempt(message, over, moment.now, Some(by.clone())) };
        let deliveries = rows.iter().map(|row| DoubtfulRecipient { id: row.id, number: row.attempts, next: None });
        let (account, deliveries) = (message.account.clone(), deliveries.collect());
        events.push(AttemptInDoubt { attempt, message: message.message, account, deliveries }.into());
        events.push(failed.into());
    }
    if !waiting.is_empty() {
        events.push(without_attempt(message, waiting, moment.now, Some(by.clone())).into());
    }
    Ok(events)
}

/// Those of its copies that are still in their mailboxes.
fn deleted(content: &LostContent, by: &Author, rows: &dyn Rows) -> Result<Vec<MessageDeleted>, Error> {
    let mut deleted = Vec::new();
    for (account, msg_id) in &content.copies {
        let row = mailboxes::message(rows, account, *msg_id)?.filter(|row| row.body.body == content.body.body);
        deleted.extend(row.map(|row| MessageDeleted {
            account: row.account,
            mailbox: row.mailbox,
            msg_id: row.msg_id,
            body: row.body,
            last: false,
            by: by.clone(),
        }));
    }
    if let Some(last) = deleted.last_mut() {
        last.last = true;
    }
    Ok(deleted)
}
