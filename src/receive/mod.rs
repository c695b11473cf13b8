//! The SMTP listener for incoming mail: each message is on disk, in the mailboxes of its recipients, before its 250.

mod simulate;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postledger_events::address::Address;
use postledger_events::command::Receive;
use postledger_events::fact::attempt::TlsUsed;
use postledger_events::id::{AccountName, MessageUuid};
use postledger_events::reply::Reply;
use postledger_events::{Command, Refusal};
use postledger_projections::accounts;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::{Intent, Ledger, SubmitError};
use crate::mail::{read, trace};
use crate::smtp::command::MailParameters;
use crate::smtp::drive::{Handler, ServerConfig, serve};
use crate::smtp::server::Envelope;

pub use simulate::Failure;

/// Connections at once.
const CONNECTIONS_MAX: usize = 1000;
/// How long sessions may take to end after a stop was asked for.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be accepted (as when there are no more file descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Who takes mail for addresses that are nobody's, and whether failures can be ordered by address.
#[derive(Clone, Debug)]
pub struct Local {
    pub account: AccountName,
    pub address: Address,
}

/// All that the sessions of a listener share.
pub struct Listener {
    pub ledger: Ledger,
    pub clock: Clock,
    pub config: Arc<ServerConfig>,
    /// Permits of one KiB each for the messages in memory, shared with all other doors.
    pub intake: Arc<Semaphore>,
    /// localserve's conveniences.
    pub local: Option<Local>,
}

/// Accepts connections until `stop`; returns when the last session has ended.
pub async fn run(socket: TcpListener, listener: Arc<Listener>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut sessions = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            place = Arc::clone(&places).acquire_owned() => place.expect("the places are never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("a connection cannot be accepted: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (listener, stop) = (Arc::clone(&listener), stop.clone());
        sessions.spawn(async move {
            let handler = Mailroom::new(Arc::clone(&listener), stop.clone());
            let served = serve(stream, Arc::clone(&listener.config), handler, Arc::clone(&listener.intake), stop).await;
            if let Err(e) = served {
                tracing::debug!("an SMTP session broke: {e}");
            }
            drop(place);
        });
    }
    // A message that is not whole by then has no 250, so its sender keeps it.
    let ended = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_WAIT, ended).await.is_err() {
        sessions.shutdown().await;
    }
}

/// Decides about the mail of one connection.
struct Mailroom {
    listener: Arc<Listener>,
    stop: CancellationToken,
    /// With the account that each recipient leads to.
    recipients: Vec<(Address, AccountName)>,
    /// What was ordered for the only recipient so far.
    ordered: Option<Failure>,
}

impl Handler for Mailroom {
    fn mail(&mut self, from: Option<&Address>, _: &MailParameters) -> Result<(), Reply> {
        self.reset();
        let order = from.filter(|_| self.listener.local.is_some()).and_then(|a| Failure::at_mail(&a.localpart));
        order.map_or(Ok(()), |failure| Err(failure.reply()))
    }

    async fn rcpt(&mut self, to: &Address) -> Result<(), Reply> {
        // The first recipient's failure can only come after the content; the others get a transaction of their own.
        if self.ordered.is_some() {
            return Err(Reply::new(452, "4.5.3 one recipient at a time behind one whose failure is simulated"));
        }
        let (account, known) = self.account_of(to)?;
        if self.listener.local.is_some()
            && let Some(failure) = Failure::of(&to.localpart)
            && !known
        {
            if failure.at_rcpt(&to.localpart) || !self.recipients.is_empty() {
                failure.wait(&self.stop).await;
                return Err(failure.reply());
            }
            self.ordered = Some(failure);
        }
        self.recipients.push((to.clone(), account));
        Ok(())
    }

    async fn message(&mut self, envelope: Envelope, data: Bytes) -> Reply {
        let recipients = std::mem::take(&mut self.recipients);
        if let Some(failure) = self.ordered.take() {
            failure.wait(&self.stop).await;
            return failure.reply();
        }
        if !is_message(&data) {
            return Reply::new(554, "5.6.0 the content is no message: it needs a header");
        }
        match self.store(envelope, recipients, data).await {
            Ok(()) => Reply::new(250, "2.0.0 stored"),
            Err(e) => refusal(&e),
        }
    }

    fn reset(&mut self) {
        self.recipients.clear();
        self.ordered = None;
    }
}

impl Mailroom {
    fn new(listener: Arc<Listener>, stop: CancellationToken) -> Mailroom {
        Mailroom { listener, stop, recipients: Vec::new(), ordered: None }
    }

    /// Whose mail it is, and whether the address is one that was given out.
    fn account_of(&self, to: &Address) -> Result<(AccountName, bool), Reply> {
        match accounts::resolve(&self.listener.ledger.snapshot(), to) {
            Ok(Some((_, domain))) if domain.settings.disabled => Err(Reply::new(450, "4.2.1 domain is disabled")),
            Ok(Some((account, _))) => Ok((account, true)),
            Ok(None) => match &self.listener.local {
                Some(local) => Ok((local.account.clone(), false)),
                None => Err(Reply::new(550, "5.1.1 no such user here")),
            },
            Err(e) => {
                tracing::error!("an address cannot be looked up: {e}");
                Err(Reply::new(451, "4.3.0 addresses cannot be looked up now; the operator must act"))
            }
        }
    }

    async fn store(
        &self,
        envelope: Envelope,
        recipients: Vec<(Address, AccountName)>,
        data: Bytes,
    ) -> Result<(), SubmitError> {
        let Listener { ledger, clock, .. } = &*self.listener;
        ledger.has_room().map_err(SubmitError::NoSpace)?;
        let message = MessageUuid(clock.uuid_v7());
        let stored = self.with_trace(message, &envelope, &recipients, &data);
        let summary = read::summary(&data);
        drop(data);
        let staged = ledger.stage(message, stored).await?;
        let command = Receive {
            body: staged.body,
            peer: Some(envelope.peer),
            helo: envelope.helo,
            tls: envelope.tls.map(|t| TlsUsed { protocol: t.protocol, cipher: t.cipher, verified: false }),
            smtputf8: envelope.smtputf8,
            mail_from: envelope.reverse_path,
            recipients,
            message_id: summary.message_id,
            from: summary.from.map(|m| m.address),
            subject: summary.subject,
            notice_of: None,
        };
        let intent = Intent { command: Command::Receive(Box::new(command)), bodies: vec![staged], secrets: Vec::new() };
        ledger.submit(intent).await.map(drop)
    }

    /// The message as it is kept: with the trace of final delivery (RFC 5321 §4.4) in front.
    fn with_trace(
        &self,
        message: MessageUuid,
        envelope: &Envelope,
        recipients: &[(Address, AccountName)],
        data: &[u8],
    ) -> Bytes {
        let only = match recipients {
            [(address, _)] => Some(address),
            _ => None,
        };
        let with = match (envelope.smtputf8, envelope.extended, envelope.tls.is_some()) {
            (true, _, false) => trace::With::Utf8Smtp,
            (true, _, true) => trace::With::Utf8Smtps,
            (false, true, true) => trace::With::Esmtps,
            (false, true, false) => trace::With::Esmtp,
            (false, false, _) => trace::With::Smtp,
        };
        let tls = envelope.tls.as_ref().map(|t| format!("{} {}", t.protocol, t.cipher));
        let id = message.0.simple().to_string();
        let peer: SocketAddr = envelope.peer;
        let client: IpAddr = peer.ip().to_canonical();
        let received = trace::Trace {
            from: &envelope.helo,
            client: Some(client),
            by: self.listener.config.hostname.as_str(),
            with: Some(with),
            id: &id,
            tls: tls.as_deref(),
            for_: only,
            at: self.listener.clock.now(),
        };
        let path = envelope.reverse_path.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut stored = format!("Return-Path: <{path}>\r\n").into_bytes();
        if let Some(only) = only {
            stored.extend_from_slice(format!("Delivered-To: {only}\r\n").as_bytes());
        }
        stored.extend_from_slice(&received.received());
        stored.extend_from_slice(data);
        stored.into()
    }
}

/// Whether there is a header field at the beginning (RFC 5322 §2.2).
fn is_message(data: &[u8]) -> bool {
    let line = data.split(|b| *b == b'\n').next().unwrap_or_default();
    let name = line.iter().position(|b| *b == b':').map(|colon| &line[..colon]);
    name.is_some_and(|name| !name.is_empty() && name.iter().all(|b| (33..=126).contains(b)))
}

fn refusal(e: &SubmitError) -> Reply {
    match e {
        SubmitError::Busy => Reply::new(451, "4.3.1 too much waits to be stored; try again later"),
        // RFC 3463 §3.4, X.3.1.
        SubmitError::NoSpace(_) => Reply::new(452, "4.3.1 the disk is nearly full; try again later"),
        SubmitError::Stopped(why) => {
            tracing::error!("a message cannot be stored: {why}");
            Reply::new(451, "4.3.0 mail cannot be stored now; the operator must act")
        }
        SubmitError::Refused(Refusal::OverQuota { .. }) => Reply::new(452, "4.2.2 mailbox is full"),
        SubmitError::Refused(Refusal::AccountGoing(_) | Refusal::NoSuch(_)) => Reply::new(550, "5.2.1 mailbox is gone"),
        SubmitError::Refused(other) => {
            tracing::error!("a message was refused: {other}");
            Reply::new(451, "4.3.0 mail cannot be stored now; the operator must act")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_a_header() {
        let check = |data: &str, expect: bool| assert_eq!(is_message(data.as_bytes()), expect, "{data:?}");
        check("Subject: x\r\n\r\nbody\r\n", true);
        check("X:\r\n", true);
        check("no header here\r\n", false);
        check(": x\r\n", false);
        check("\r\nbody", false);
        check("", false);
    }
}
