//! Messages that come into mailboxes and leave them.

use std::collections::BTreeMap;

use postledger_events::command::{DeleteMessage, Receive};
use postledger_events::fact::expiry::Expired;
use postledger_events::fact::mailbox::{MailboxCopy, MessageDeleted, MessageReceived, ReceivedPersonal};
use postledger_events::id::{AccountName, MailboxName, MsgId, Seq};
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Refusal};
use postledger_projections::{Rows, accounts, deliveries, mailboxes};

use super::{Decision, Policy, damaged, next_number};

pub fn receive(c: &Receive, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    match (check_quotas(c, rows), c.notice_of) {
        (Ok(()), None) => {}
        // Another notice about the same record was faster.
        (Ok(()), Some(of)) if !deliveries::is_notice_due(rows, of).map_err(damaged)? => {
            return Err(Refusal::NoSuch(Thing::Message(format!("notice about record {of}"))));
        }
        (Ok(()), Some(_)) => {}
        (Err(Refusal::Damaged(why)), _) => return Err(Refusal::Damaged(why)),
        // There is nobody to refuse a notice to.
        (Err(_), Some(of)) => return Ok(Decision { forget_bodies: vec![c.body], ..drop_notice(of) }),
        (Err(refusal), None) => return Err(refusal),
    }
    let mut last = mailboxes::last_number(rows).map_err(damaged)?;
    let mut copies = Vec::with_capacity(c.recipients.len());
    for (n, (_, account)) in c.recipients.iter().enumerate() {
        last = next_number(last, policy.ledger_number);
        copies.push(MailboxCopy {
            account: account.clone(),
            mailbox: MailboxName::inbox(),
            msg_id: MsgId(last),
            recipient: u16::try_from(n).map_err(|_| Refusal::TooManyRecipients)?,
        });
    }
    let answer = Answer::Received(copies.iter().map(|copy| copy.msg_id).collect());
    let event = MessageReceived {
        body: c.body,
        copies,
        tls: c.tls.clone(),
        smtputf8: c.smtputf8,
        notice_of: c.notice_of,
        personal: Some(ReceivedPersonal {
            peer: c.peer,
            helo: c.helo.clone(),
            mail_from: c.mail_from.clone(),
            recipients: c.recipients.iter().map(|(address, _)| address.clone()).collect(),
            message_id: c.message_id.clone(),
            from: c.from.clone(),
            subject: c.subject.clone(),
        }),
    };
    Ok(Decision { events: vec![event.into()], ..Decision::new(answer) })
}

/// The sender is not told.
pub fn drop_notice(of: Seq) -> Decision {
    Decision::done(Expired { notices: vec![of], ..Expired::default() })
}

fn check_quotas(c: &Receive, rows: &dyn Rows) -> Result<(), Refusal> {
    let mut octets: BTreeMap<&AccountName, u64> = BTreeMap::new();
    for (_, account) in &c.recipients {
        *octets.entry(account).or_default() += c.body.size;
    }
    for (name, more) in octets {
        let account = accounts::account(rows, name).map_err(damaged)?;
        let account = account.ok_or_else(|| Refusal::NoSuch(Thing::Account(name.to_string())))?;
        if account.removing.is_some() {
            return Err(Refusal::AccountGoing(name.clone()));
        }
        let stored = mailboxes::storage(rows, name).map_err(damaged)?.octets;
        if let Some(quota_bytes) = account.settings.quota_bytes
            && stored + more > quota_bytes
        {
            return Err(Refusal::OverQuota { quota_bytes });
        }
    }
    Ok(())
}

pub fn delete(c: &DeleteMessage, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = mailboxes::message(rows, &c.account, c.msg_id).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Message(c.msg_id.to_string())))?;
    let last = mailboxes::copies(rows, row.body.body).map_err(damaged)? <= 1;
    let mut decision = Decision::done(MessageDeleted {
        account: c.account.clone(),
        mailbox: row.mailbox,
        msg_id: c.msg_id,
        body: row.body,
        last,
        by: c.by.clone(),
    });
    decision.forget_bodies.extend(last.then_some(row.body));
    Ok(decision)
}
