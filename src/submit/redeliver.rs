//! Sending again what was given up: the same content to recipients whose deliveries failed, were canceled or suppressed, as a new
//! submission that names its origin.

use postledger_events::address::Address;
use postledger_events::command::{Submit, Submitted};
use postledger_events::fact::submission::{Origin, Via};
use postledger_events::id::MessageUuid;
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections as projections;
use postledger_projections::deliveries::{self, MessagePersonal, MessageRow};
use postledger_web::port::{ExecuteError, Redelivery, Unavailable};

use super::{CODE_VERSION, Submitter, execute_error};
use crate::ledger::{BODY_LARGE_BYTES, BodyError, Intent, Staged, SubmitError};

/// What is sent again, and to whom: addresses as an envelope and a request have them.
struct Original {
    row: MessageRow,
    personal: MessagePersonal,
    recipients: Vec<(Address, String)>,
}

impl Submitter {
    /// When it returns `Ok`, the new message is on disk.
    pub async fn redeliver(&self, wish: Redelivery) -> Result<Submitted, ExecuteError> {
        let _working = match &wish.idempotency {
            Some(key) => Some(self.begin(&wish.account, key).ok_or(ExecuteError::InFlight)?),
            None => None,
        };
        self.ledger.has_room().map_err(|short| execute_error(SubmitError::NoSpace(short)))?;
        let message = MessageUuid(self.clock.uuid_v7());
        let original = self.original(&wish).map_err(ExecuteError::Refused)?;
        let stored = self.copy(&original.row, message).await?;
        let command = self.again(wish, original, message, &stored);
        let intent = Intent { command: Command::Submit(Box::new(command)), bodies: vec![stored], secrets: Vec::new() };
        match self.ledger.submit(intent).await.map_err(execute_error)?.answer {
            Answer::Submitted(submitted) => Ok(submitted),
            other => unreachable!("a submission is answered with one, not {other:?}"),
        }
    }

    fn original(&self, wish: &Redelivery) -> Result<Original, Refusal> {
        let (rows, id) = (self.ledger.snapshot(), wish.message);
        let damaged = |e: projections::Error| Refusal::Damaged(e.to_string());
        let row = deliveries::message(&rows, id).map_err(damaged)?;
        let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Message(id.to_string())))?;
        if !row.contents {
            return Err(content_gone(id));
        }
        let forgotten = || Refusal::Conflict(format!("the sender of message {id} was forgotten"));
        let personal = row.personal.clone().ok_or_else(forgotten)?;
        let mut recipients = Vec::new();
        for id in &wish.deliveries {
            let delivery = deliveries::delivery(&rows, *id).map_err(damaged)?;
            let delivery = delivery.ok_or_else(|| Refusal::NoSuch(Thing::Delivery(id.to_string())))?;
            let forgotten = || Refusal::Conflict(format!("the recipient of delivery {id} was forgotten"));
            let address = delivery.address.ok_or_else(forgotten)?;
            let given = address.to_string();
            recipients.push((address, given));
        }
        Ok(Original { row, personal, recipients })
    }

    /// The content under the name of the new message, for no two messages share one.
    async fn copy(&self, original: &MessageRow, message: MessageUuid) -> Result<Staged, ExecuteError> {
        let unavailable = |why: String| ExecuteError::Unavailable(Unavailable::Stopped(why));
        let (ledger, body) = (self.ledger.clone(), original.body);
        let is_large = body.size > BODY_LARGE_BYTES;
        let _alone = if is_large { Some(self.large.lock().await) } else { None };
        let read = tokio::task::spawn_blocking(move || ledger.body(&body)).await;
        let bytes = read.map_err(|e| unavailable(e.to_string()))?.map_err(|e| match e {
            BodyError::Missing(_) => ExecuteError::Refused(content_gone(original.message)),
            BodyError::Size { .. } | BodyError::Store(_) => unavailable(e.to_string()),
        })?;
        self.ledger.stage(message, bytes).await.map_err(execute_error)
    }

    fn again(&self, wish: Redelivery, original: Original, message: MessageUuid, stored: &Staged) -> Submit {
        let Original { row, personal, recipients } = original;
        Submit {
            message,
            account: wish.account,
            login: wish.by.0,
            via: Via::Redelivery,
            client: None,
            trace: None,
            code_version: CODE_VERSION,
            idempotency: wish.idempotency,
            from: personal.from,
            reverse_path: personal.reverse_path,
            fromids: recipients.iter().map(|_| self.fromid()).collect(),
            recipients,
            message_id: personal.message_id,
            subject: personal.subject,
            extra: personal.extra,
            body: stored.body,
            eight_bit: row.eight_bit,
            smtputf8: row.smtputf8,
            require_tls: row.require_tls,
            future_release: None,
            sent_copy: None,
            origin: Some(Origin { message: row.message, deliveries: wish.deliveries }),
        }
    }
}

fn content_gone(message: MessageUuid) -> Refusal {
    Refusal::Conflict(format!("the content of message {message} is not kept any more, so it cannot be sent again"))
}
