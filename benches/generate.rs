//! Makes large ledgers: through the writer, with the commands that the doors and reactors would send, many at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use postledger::clock::Clock;
use postledger::ledger::{Committed, Intent, Ledger};
use postledger_events::address::Address;
use postledger_events::command::{FinishAttempt, RecipientOutcome, StartAttempt, Submit, Submitted, Suppress};
use postledger_events::fact::attempt::Session;
use postledger_events::fact::submission::Via;
use postledger_events::id::{AccountName, AttemptId, Author, DeliveryId, FromId, MessageUuid, TransportName};
use postledger_events::reply::Reply;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};

use super::load::address;
use super::server::TRANSPORT;

/// Messages or addresses that are sent at once: a batch of the writer takes some thousand commands.
const ROUND: u64 = 500;
/// One prepares while the other's commands are written.
const LANES: usize = 3;
const BODY: &[u8] =
    b"From: <mox@localhost>\r\nSubject: A generated message\r\n\r\nIt says little, so that there can be many.\r\n";

/// Writes to the ledger of a localserve that does not run.
pub struct Generator {
    ledger: Ledger,
    clock: Clock,
    /// Messages so far.
    made: AtomicU64,
}

/// A message whose attempt has been given leave.
struct Running {
    message: MessageUuid,
    attempt: AttemptId,
    delivery: DeliveryId,
}

impl Generator {
    pub fn new(ledger: Ledger) -> Generator {
        Generator { ledger, clock: Clock::system(), made: AtomicU64::new(0) }
    }

    /// This many more messages with three records each: accepted, started, delivered.
    pub fn delivered(&self, messages: u64) {
        self.lanes(messages, async |rounds| {
            let (mut submitted, mut running) = (Vec::new(), Vec::new());
            // Two rounds more, for the attempts of the last.
            for round in 0..rounds + 2 {
                let new = if round < rounds { ROUND } else { 0 };
                (submitted, running, _) =
                    tokio::join!(self.submit(new, None), self.start(submitted), self.finish(running));
            }
        });
    }

    /// This many more messages that are due later.
    pub fn queued(&self, messages: u64, due: Timestamp) {
        self.lanes(messages, async |rounds| {
            for _ in 0..rounds {
                self.submit(ROUND, Some(due)).await;
            }
        });
    }

    /// Puts the first addresses on the suppression list.
    pub fn suppressed(&self, addresses: u64) {
        self.wait(async {
            let suppress = |n| {
                self.ledger.submit(Command::Suppress(Suppress {
                    account: account(),
                    address: Address::parse(&suppressed(n)).expect("a plain address"),
                    manual: true,
                    reason: "it was asked for".to_owned(),
                    by: Author("bench".to_owned()),
                    idempotency: None,
                }))
            };
            for first in (0..addresses).step_by(ROUND as usize) {
                let round = first..addresses.min(first + ROUND);
                for taken in join_all(round.map(suppress)).await {
                    taken.expect("it is taken");
                }
            }
        });
    }

    pub fn close(self) {
        let closed = self.wait(self.ledger.close());
        closed.expect("it closes");
    }

    fn lanes(&self, messages: u64, lane: impl AsyncFn(u64)) {
        let rounds = messages / ROUND / LANES as u64;
        self.wait(join_all((0..LANES).map(|_| lane(rounds))));
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work)
    }

    async fn submit(&self, messages: u64, due: Option<Timestamp>) -> Vec<Submitted> {
        let first = self.made.fetch_add(messages, Ordering::Relaxed);
        let taken = join_all((first..first + messages).map(|n| self.submit_one(n, due))).await;
        let submitted = |committed: Committed| match committed.answer {
            Answer::Submitted(submitted) => submitted,
            other => unreachable!("a submission is answered with one, not {other:?}"),
        };
        taken.into_iter().map(submitted).collect()
    }

    async fn submit_one(&self, n: u64, due: Option<Timestamp>) -> Committed {
        let message = MessageUuid(self.clock.uuid_v7());
        let body = self.ledger.stage(message, Bytes::from_static(BODY)).await.expect("a small content");
        let from = Address::parse("mox@localhost").expect("a constant address is valid");
        let submit = Submit {
            message,
            account: account(),
            login: "mox@localhost".to_owned(),
            via: Via::Webapi,
            client: None,
            trace: None,
            code_version: "bench",
            idempotency: None,
            from: from.clone(),
            reverse_path: Some(from),
            recipients: vec![recipient(n)],
            fromids: vec![FromId::new(&format!("generated{n}")).expect("letters and digits")],
            message_id: format!("<{message}@localhost>"),
            subject: "A generated message".to_owned(),
            extra: BTreeMap::new(),
            body: body.body,
            eight_bit: false,
            smtputf8: false,
            require_tls: None,
            future_release: due,
            sent_copy: None,
            origin: None,
        };
        let command = Command::Submit(Box::new(submit));
        let intent = Intent { command, bodies: vec![body], secrets: Vec::new() };
        self.ledger.submit(intent).await.expect("it is taken")
    }

    async fn start(&self, submitted: Vec<Submitted>) -> Vec<Running> {
        let one = async |submitted: Submitted| {
            let [(_, delivery, _)] = submitted.recipients[..] else { unreachable!("each has one recipient") };
            let (attempt, message, started) = (AttemptId(self.clock.uuid_v7()), submitted.message, self.clock.now());
            let transport = TransportName::new(TRANSPORT).expect("a constant name is valid");
            let start = StartAttempt { attempt, message, deliveries: vec![delivery], transport, started };
            self.ledger.submit(Command::StartAttempt(start)).await.expect("it has leave");
            Running { message, attempt, delivery }
        };
        join_all(submitted.into_iter().map(one)).await
    }

    async fn finish(&self, running: Vec<Running>) {
        let one = async |Running { message, attempt, delivery }: Running| {
            let finish = FinishAttempt {
                attempt,
                message,
                results: vec![(delivery, RecipientOutcome::Accepted { reply: 0 })],
                replies: vec![Reply::new(250, "2.0.0 taken")],
                errors: Vec::new(),
                session: Session::default(),
                ended: self.clock.now(),
                jitter_s: 0,
            };
            self.ledger.submit(Command::FinishAttempt(Box::new(finish))).await.expect("it is recorded");
        };
        join_all(running.into_iter().map(one)).await;
    }
}

pub fn account() -> AccountName {
    AccountName::new("mox").expect("a constant name is valid")
}

/// The n-th on the suppression list: nobody that mail goes to.
pub fn suppressed(n: u64) -> String {
    format!("nobody{}", address(n))
}

fn recipient(n: u64) -> (Address, String) {
    let text = address(n);
    (Address::parse(&text).expect("a plain address"), text)
}
