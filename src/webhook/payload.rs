//! What an endpoint is sent: a function of the form's version, the format and the facts, so that every retry and replay has the
//! same bytes without storing them. Pure.

mod incoming;
mod json;
mod outgoing;

use postledger_events::Record;
use postledger_events::fact::call::{BODY_VERSION, CallRef};
use postledger_events::fact::endpoint::{CallFormat, Direction};
use postledger_events::id::{AccountName, EndpointName, LedgerId};
use postledger_events::time::Timestamp;
use serde::Serialize;

use crate::mail::contents::Contents;

/// Places of a fact; a message has at most 1,000 recipients.
const PLACES: u64 = 1024;
const MOX_MEDIA: &str = "application/json; charset=utf-8";
const CLOUDEVENTS_MEDIA: &str = "application/cloudevents+json; charset=utf-8";

/// What tells a call from all others.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub ledger: LedgerId,
    pub account: &'a AccountName,
    pub endpoint: &'a EndpointName,
    pub call: CallRef,
}

impl Name<'_> {
    /// The `webhook-id`: the same at every retry and replay. Without full stops, which the signature separates its parts with.
    pub fn webhook_id(&self) -> String {
        let ledger = self.ledger.0.simple().to_string();
        let endpoint = self.endpoint.as_str().replace('.', "~");
        format!("{}-{}-{}-{endpoint}", &ledger[20..], self.call.fact, self.call.place)
    }

    /// The `X-Mox-Webhook-ID`, which is a number.
    pub fn number(&self) -> u64 {
        self.call.fact.0.saturating_mul(PLACES).saturating_add(u64::from(self.call.place))
    }
}

/// What is told.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// What became of a delivery, and the record of its submission.
    Outgoing { fact: &'a Record, submitted: &'a Record },
    /// A received message, as its content has it.
    Incoming { fact: &'a Record, contents: &'a Contents },
    /// An invented event of this time, to see whether the endpoint answers.
    Test(Direction, Timestamp),
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub content_type: &'static str,
    pub bytes: Vec<u8>,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("calls of version {0} of the form are written by a newer program")]
    Version(u16),
    #[error("the fact has no such place")]
    Place,
}

/// Writes the body of a call.
pub fn body(version: u16, format: CallFormat, name: &Name<'_>, told: Told<'_>) -> Result<Body, Error> {
    if version != BODY_VERSION {
        return Err(Error::Version(version));
    }
    let place = name.call.place;
    match told {
        Told::Outgoing { fact, submitted } => {
            let outgoing = outgoing::of(fact, submitted, place).ok_or(Error::Place)?;
            Ok(envelope(format, name, fact.at, &outgoing.about(), &outgoing))
        }
        Told::Incoming { fact, contents } => {
            let incoming = incoming::of(fact, contents, place).ok_or(Error::Place)?;
            Ok(envelope(format, name, fact.at, &incoming.about(), &incoming))
        }
        Told::Test(Direction::Outgoing, at) => {
            let outgoing = outgoing::test(at);
            Ok(envelope(format, name, at, &outgoing.about(), &outgoing))
        }
        Told::Test(Direction::Incoming, at) => {
            let incoming = incoming::test(at);
            Ok(envelope(format, name, at, &incoming.about(), &incoming))
        }
    }
}

/// What a CloudEvents envelope says of its data.
struct About {
    kind: String,
    /// Below the account.
    subject: String,
}

/// CloudEvents 1.0, JSON format §3: structured mode.
#[derive(Serialize)]
struct CloudEvent<'a, T> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: String,
    time: json::Time,
    datacontenttype: &'static str,
    data: &'a T,
}

fn envelope<T: Serialize>(format: CallFormat, name: &Name<'_>, at: Timestamp, about: &About, data: &T) -> Body {
    match format {
        CallFormat::Mox => Body { content_type: MOX_MEDIA, bytes: json::write(data) },
        CallFormat::CloudEvents => {
            let event = CloudEvent {
                specversion: "1.0",
                id: name.webhook_id(),
                source: format!("urn:uuid:{}", name.ledger),
                kind: &about.kind,
                subject: format!("accounts/{}/{}", name.account, about.subject),
                time: json::Time::utc(at),
                datacontenttype: "application/json",
                data,
            };
            Body { content_type: CLOUDEVENTS_MEDIA, bytes: json::write(&event) }
        }
    }
}

#[cfg(test)]
mod tests;
