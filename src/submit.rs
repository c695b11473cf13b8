//! The one door for new mail: composes, signs, and hands it to the ledger.

mod redeliver;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use postledger_events::command::{IdempotencyKey, Submit, Submitted};
use postledger_events::draft::Draft;
use postledger_events::fact::submission::Via;
use postledger_events::id::{AccountName, FromId, MessageUuid};
use postledger_events::{Answer, Command, Refusal};
use postledger_web::port::{ComposeFault, ExecuteError, SendError, SendRequest, Unavailable};

use crate::clock::Clock;
use crate::ledger::{Intent, Ledger, Staged, SubmitError};
use crate::mail::{compose, dkim, header, trace};
use crate::signers::Signers;

/// The name that the program gives in User-Agent and in records.
pub const CODE_VERSION: &str = concat!("postledger/", env!("CARGO_PKG_VERSION"));

/// Composing and signing more than this leaves the thread to others first.
const BLOCKING_BYTES: usize = 1024 * 1024;

/// Octets of a subject that records and rows keep.
const SUBJECT_BYTES_MAX: usize = 1000;

/// Submits messages.
pub struct Submitter {
    ledger: Ledger,
    clock: Clock,
    hostname: String,
    message_bytes_max: u64,
    signers: Signers,
    /// Requests with an Idempotency-Key that are being worked on.
    in_flight: Arc<Mutex<HashSet<InFlightKey>>>,
    /// Whoever copies a large content holds it, so that only one is in memory at any time.
    large: tokio::sync::Mutex<()>,
}

type InFlightKey = (AccountName, &'static str, String);

/// A composed and signed message.
struct Ready {
    composed: compose::Composed,
    stored: Bytes,
    sent_copy: Option<Bytes>,
}

impl Submitter {
    pub fn new(ledger: Ledger, clock: Clock, hostname: String, message_bytes_max: u64) -> Submitter {
        let signers = Signers::new(ledger.clone());
        let (in_flight, large) = (Arc::default(), tokio::sync::Mutex::default());
        Submitter { ledger, clock, hostname, message_bytes_max, signers, in_flight, large }
    }

    /// When it returns `Ok`, the message is on disk.
    pub async fn send(&self, request: SendRequest) -> Result<Submitted, SendError> {
        let _working = match &request.idempotency {
            Some(key) => Some(self.begin(&request.login.account, key).ok_or(SendError::InFlight)?),
            None => None,
        };
        self.ledger.has_room().map_err(|short| send_error(SubmitError::NoSpace(short)))?;
        // Whoever composes now will be there in a moment: the writer may wait for it to share a sync.
        let expected = self.ledger.expect();
        let message = MessageUuid(self.clock.uuid_v7());
        let ready = self.ready(&request, message)?;
        let stored = self.stage(message, ready.stored).await?;
        let sent_copy = match ready.sent_copy {
            Some(bytes) => Some(self.stage(MessageUuid(self.clock.uuid_v7()), bytes).await?),
            None => None,
        };
        let command = self.command(request, message, &ready.composed, &stored, sent_copy.as_ref());
        let bodies = std::iter::once(stored).chain(sent_copy).collect();
        let intent = Intent { command: Command::Submit(Box::new(command)), bodies, secrets: Vec::new() };
        match expected.submit(intent).await.map_err(send_error)?.answer {
            Answer::Submitted(submitted) => Ok(submitted),
            other => unreachable!("a submission is answered with one, not {other:?}"),
        }
    }

    /// Claims a key; `None`: another request with it is being worked on.
    pub fn begin(&self, account: &AccountName, key: &IdempotencyKey) -> Option<Working> {
        let key = (account.clone(), key.method, key.key.clone());
        let new = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        new.then(|| Working { key, in_flight: Arc::clone(&self.in_flight) })
    }

    fn ready(&self, request: &SendRequest, message: MessageUuid) -> Result<Ready, SendError> {
        let large = draft_bytes(&request.draft) > BLOCKING_BYTES;
        let multi = tokio::runtime::Handle::try_current()
            .is_ok_and(|h| h.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
        if large && multi {
            tokio::task::block_in_place(|| self.compose(request, message))
        } else {
            self.compose(request, message)
        }
    }

    fn compose(&self, request: &SendRequest, message: MessageUuid) -> Result<Ready, SendError> {
        let context = compose::Context {
            hostname: &self.hostname,
            now: self.clock.now(),
            message_id_random: self.clock.random(),
            boundary_random: self.clock.random(),
            user_agent: CODE_VERSION,
            size_max: self.message_bytes_max,
        };
        let mut composed = compose::compose(&request.draft, &context).map_err(compose_error)?;
        let unsigned = std::mem::take(&mut composed.message);
        let signers = self.signers.of(&request.draft.from.address.domain);
        let signers = signers.map_err(|e| SendError::Unavailable(Unavailable::Stopped(e.to_string())))?;
        let signatures = dkim::sign(&signers, &unsigned, context.now, None)
            .map_err(|e| SendError::Unavailable(Unavailable::Stopped(format!("the message cannot be signed: {e}"))))?;
        // Only one recipient may be named: all of them get the same bytes.
        let only = match request.recipients.as_slice() {
            [(address, _)] => Some(address),
            _ => None,
        };
        let id = message.0.simple().to_string();
        let received = trace::received(&self.hostname, &self.hostname, &id, None, only, context.now);
        let sent_copy = request.save_sent.then(|| {
            let bcc = header::bcc(&request.draft.bcc);
            [bcc.as_slice(), &signatures, &unsigned].concat().into()
        });
        let stored = [received.as_slice(), &signatures, &unsigned].concat().into();
        Ok(Ready { composed, stored, sent_copy })
    }

    async fn stage(&self, name: MessageUuid, bytes: Bytes) -> Result<Staged, SendError> {
        self.ledger.stage(name, bytes).await.map_err(send_error)
    }

    fn command(
        &self,
        request: SendRequest,
        message: MessageUuid,
        composed: &compose::Composed,
        stored: &Staged,
        sent_copy: Option<&Staged>,
    ) -> Submit {
        let fromids = request.recipients.iter().map(|_| self.fromid()).collect();
        Submit {
            message,
            account: request.login.account,
            login: request.login.user,
            via: Via::Webapi,
            client: request.client,
            trace: request.trace,
            code_version: CODE_VERSION,
            idempotency: request.idempotency,
            reverse_path: Some(request.draft.from.address.clone()),
            from: request.draft.from.address,
            recipients: request.recipients,
            fromids,
            message_id: composed.message_id.clone(),
            subject: clip(request.draft.subject),
            extra: request.extra,
            body: stored.body,
            eight_bit: composed.eight_bit,
            smtputf8: composed.smtputf8,
            require_tls: request.require_tls,
            future_release: request.future_release,
            sent_copy: sent_copy.map(|s| s.body),
            origin: None,
        }
    }

    fn fromid(&self) -> FromId {
        let random: [u8; 16] = self.clock.random();
        FromId::new(&BASE64_URL_SAFE_NO_PAD.encode(random)).expect("22 characters of the URL alphabet")
    }
}

/// A claim on an Idempotency-Key; given back when it goes.
pub struct Working {
    key: InFlightKey,
    in_flight: Arc<Mutex<HashSet<InFlightKey>>>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The subject as records and rows have it; the message itself has all of it.
fn clip(mut subject: String) -> String {
    if subject.len() > SUBJECT_BYTES_MAX {
        let end = (0..=SUBJECT_BYTES_MAX).rev().find(|at| subject.is_char_boundary(*at)).unwrap_or(0);
        subject.truncate(end);
    }
    subject
}

fn draft_bytes(draft: &Draft) -> usize {
    let files = [&draft.alternative_files, &draft.inline_files, &draft.attached_files];
    let files: usize = files.into_iter().flatten().map(|file| file.data.len()).sum();
    files + draft.text.len() + draft.html.len()
}

fn compose_error(e: compose::Error) -> SendError {
    let fault = match &e {
        compose::Error::MissingBody => ComposeFault::MissingBody,
        compose::Error::MalformedMessageId => ComposeFault::MalformedMessageId,
        compose::Error::TooLarge { .. } => ComposeFault::TooLarge,
        compose::Error::ControlCharacters { .. }
        | compose::Error::HeaderName { .. }
        | compose::Error::HeaderOwned { .. }
        | compose::Error::File { .. } => ComposeFault::User,
    };
    SendError::Compose(fault, e.to_string())
}

/// What a command comes to that was refused, or not taken.
pub fn execute_error(e: SubmitError) -> ExecuteError {
    refusal(e).map_or_else(ExecuteError::Unavailable, ExecuteError::Refused)
}

fn send_error(e: SubmitError) -> SendError {
    refusal(e).map_or_else(SendError::Unavailable, SendError::Refused)
}

/// Why the ledger refused a command, or else why it did not take it.
fn refusal(e: SubmitError) -> Result<Refusal, Unavailable> {
    match e {
        SubmitError::Refused(refusal) => Ok(refusal),
        SubmitError::Busy => Err(Unavailable::Busy),
        SubmitError::NoSpace(short) => Err(Unavailable::Stopped(short.to_string())),
        SubmitError::Stopped(why) => Err(Unavailable::Stopped(why)),
    }
}
