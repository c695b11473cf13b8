//! Schemas of types that other crates share with the APIs. What a field or variant is called, and that none is missing, comes from
//! the types.

use postledger_events::address::{Address, Domain};
use postledger_events::event::KINDS;
use postledger_events::fact::access::Scope;
use postledger_events::fact::account::{Destination, DkimAlgorithm, Fold, TransportTls};
use postledger_events::fact::attempt::Failure;
use postledger_events::fact::call::CallRef;
use postledger_events::fact::delivery::Wish;
use postledger_events::fact::endpoint::{CallFormat, Direction, Disabling, OutgoingEvent, Superseding};
use postledger_events::fact::job::{CallAction, CallFilter, CallPhase};
use postledger_events::id::{
    AccountName, CursorName, DeliveryId, EndpointName, Fingerprint, FromId, HoldRuleId, JobId, KeyId, MailboxName,
    MessageUuid, MsgId, ReplayId, Selector, Seq, Sha256, SuppressionId, TransportName,
};
use postledger_events::reply::EnhancedCode;
use postledger_events::time::Timestamp;
use postledger_projections::calls::LastAttempt;
use postledger_projections::tally::Tally;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::schema::{Describe, Member, Schema, Schemas, member_of};

/// What every number that a client sees stays below.
const NUMBER_END: u64 = 1 << 53;
const PLAIN_NAME: &str = "^[a-z0-9][a-z0-9._-]{0,63}$";

macro_rules! texts {
    ($($type:ident $example:literal $doc:literal $(matches $pattern:expr)? $(, $key:literal: $value:expr)*;)*) => {$(
        impl Describe for $type {
            const NAME: Option<&'static str> = Some(stringify!($type));
            fn schema(_: &mut Schemas) -> Schema {
                Schema::text($example).with_description($doc)$(.with("pattern", $pattern))?$(.with($key, $value))*
            }
        }
    )*};
}

texts! {
    AccountName "mox" "The name of an account." matches PLAIN_NAME;
    TransportName "default" "The name of a transport." matches PLAIN_NAME;
    EndpointName "shop" "The name of an endpoint of an account." matches PLAIN_NAME;
    CursorName "billing" "The name of a group of consumers." matches PLAIN_NAME;
    MailboxName "Inbox" "A mailbox of an account.", "minLength": 1, "maxLength": 128;
    FromId "ZfV16EATHwKEufrSMo055Q" "What tells a delivery's reverse-path from all others of its account."
        matches "^[A-Za-z0-9_-]{1,64}$";
    Selector "s2026" "The name of a DKIM selector (RFC 6376 §3.1)." matches "^[a-z0-9.-]{1,63}$";
    Address "you@example.org" "An email address; its domain in Unicode or in A-labels (RFC 5890).";
    Domain "example.org" "A domain; in answers in Unicode and lower case.";
    Destination "you@example.org"
        "An email address; or `@domain`, for all addresses of the domain that are not given out by themselves.";
    Timestamp "2026-01-02T03:04:05.000000000Z" "RFC 3339; in answers UTC with nine digits.", "format": "date-time";
    MessageUuid "01a205ab-5acc-72b0-b649-e32c1d7e5c50" "A message, submitted or received.", "format": "uuid";
    Sha256 "0000000000000000000000000000000000000000000000000000000000000000" "A SHA-256." matches "^[0-9a-f]{64}$";
    Fingerprint "0123456789abcdef" "Which secret, without telling anything about it." matches "^[0-9a-f]{16}$";
    EnhancedCode "5.1.1" "An enhanced status code (RFC 3463)." matches "^[245]\\.[0-9]{1,3}\\.[0-9]{1,3}$";
}

macro_rules! numbers {
    ($($type:ident $doc:literal;)*) => {$(
        impl Describe for $type {
            const NAME: Option<&'static str> = Some(stringify!($type));
            fn schema(_: &mut Schemas) -> Schema {
                Schema::integer(Some(NUMBER_END - 1)).with_description($doc).with("format", "int64")
            }
        }
    )*};
}

numbers! {
    Seq "The place of a record in the log, from 1: its name everywhere. 0 is before the first.";
    DeliveryId "One recipient of one submitted message: the QueueMsgID of the webapi.";
    MsgId "A message in a mailbox: the MsgID of the webapi.";
    SuppressionId "An entry of a suppression list.";
    HoldRuleId "A hold rule.";
    JobId "A change that touches too much to be made at once.";
    KeyId "A key of the API.";
    ReplayId "A part of history that an endpoint is told again.";
}

/// Enums whose variants are words. The match makes sure that none is missing.
macro_rules! words {
    ($($type:ident $doc:literal { $($variant:ident $meaning:literal,)* })*) => {$(
        impl Describe for $type {
            const NAME: Option<&'static str> = Some(stringify!($type));
            fn schema(_: &mut Schemas) -> Schema {
                let meaning = |value: &$type| match value {
                    $($type::$variant => $meaning,)*
                };
                let words = [$($type::$variant),*].map(|value| (spelled(&value), meaning(&value)));
                let words: Vec<(&str, &str)> = words.iter().map(|(word, doc)| (word.as_str(), *doc)).collect();
                Schema::choice(&words, []).with_description($doc)
            }
        }
    )*};
}

/// The word that serde writes.
fn spelled(variant: &impl Serialize) -> String {
    let word = serde_json::to_value(variant).expect("a variant is JSON");
    word.as_str().expect("a variant without a value is a word").to_owned()
}

words! {
    Scope "What a key is good for." {
        Send "submit messages",
        Read "read everything that the account may see",
        Suppressions "change suppression lists",
        Queue "hold, release, cancel and reschedule deliveries, and send them again",
        Webhooks "change endpoints, their calls and replays",
        Mailboxes "change flags and mailboxes of received messages, and delete them",
        Admin "all of it, and what only an administrator may do if the key is for no account",
    }
    Fold "How the addresses of a recipient are folded to the one that a suppression is about." {
        Plus "cut at the first `+`, lower case",
        Mox "also cut at the first `-` and without dots",
    }
    DkimAlgorithm "How a DKIM selector signs." {
        RsaSha256 "RFC 6376 §3.3",
        Ed25519Sha256 "RFC 8463",
    }
    TransportTls "How the connection to a next hop is protected." {
        None "not at all",
        Opportunistic "STARTTLS where offered, unverified",
        Starttls "STARTTLS required, certificate verified",
        StarttlsUnverified "STARTTLS required, certificate not verified",
        Implicit "TLS from the first byte (RFC 8314 §3.3), certificate verified",
    }
    Failure "Why a delivery failed for good." {
        Permanent "the next hop refused for good, or can never be satisfied",
        Exhausted "the last attempt failed for now",
        OutcomeUnknown "the last attempt was cut off, and it may have been delivered",
        Operator "somebody said so",
        AccountRemoved "its account was removed",
        Forgotten "what it needs was forgotten",
    }
    Direction "What an endpoint is told of." {
        Outgoing "what becomes of messages that the account sends",
        Incoming "messages that the account receives",
    }
    OutgoingEvent "What can become of a message." {
        Delivered "",
        Delayed "",
        Failed "",
        Suppressed "",
        Canceled "",
    }
    CallFormat "How a call is written." {
        Mox "as mox writes its webhooks",
        CloudEvents "a CloudEvents 1.0 envelope in structured mode, with the same as its `data`",
    }
    Superseding "Which calls about one delivery are made." {
        All "all, in the order of the ledger",
        Latest "a later one takes the place of one that waits, as mox does it",
    }
    CallPhase "Where a call is." {
        Waiting "it is to be made, now or later",
        Held "on hold since the ledger was restored",
        Delivered "",
        Failed "",
        Canceled "",
    }
    CallAction "What is done with each of them." {
        Retry "due at once, with all attempts before it; also what is on hold or has ended without having been delivered",
        Cancel "it is not made",
    }
}

/// Enums with values: the matches make sure that no variant is missing, and a test that all are spelled as serde does.
impl Describe for Wish {
    const NAME: Option<&'static str> = Some("Wish");
    fn schema(schemas: &mut Schemas) -> Schema {
        let word = |wish: &Wish| match wish {
            Wish::Cancel | Wish::Fail | Wish::Hold => spelled(wish),
            Wish::Reschedule(_) => panic!("a wish with a value is no word"),
        };
        let words = [Wish::Cancel, Wish::Fail, Wish::Hold].map(|wish| word(&wish));
        let words = words.each_ref().map(|word| (word.as_str(), ""));
        let reschedule = ("reschedule", "To this time.", schemas.of::<Timestamp>());
        let doc = "What is to be done with a delivery when its running attempt has ended.";
        Schema::choice(&words, [reschedule]).with_description(doc)
    }
}

impl Describe for Disabling {
    const NAME: Option<&'static str> = Some("Disabling");
    fn schema(schemas: &mut Schemas) -> Schema {
        let mut object = |why: Disabling| match why {
            Disabling::Gone(_) => ("gone", "It answered 410 to the call about this fact.", schemas.of::<Seq>()),
            Disabling::FailingSince(_) => {
                ("failing-since", "No call has succeeded since this time.", schemas.of::<Timestamp>())
            }
        };
        let objects = [object(Disabling::Gone(Seq(1))), object(Disabling::FailingSince(Timestamp::EPOCH))];
        Schema::choice(&[], objects).with_description("Why the program calls an endpoint no more.")
    }
}

/// Structs. The pattern makes sure that no field is missing, and the fields give the types.
macro_rules! objects {
    ($($type:ident $strict:literal $doc:literal { $($field:ident $meaning:literal,)* })*) => {$(
        impl Describe for $type {
            const NAME: Option<&'static str> = Some(stringify!($type));
            fn schema(schemas: &mut Schemas) -> Schema {
                let _ = |$type { $($field: _),* }: $type| {};
                let members = [$(Member {
                    required: !$strict,
                    ..member_of(schemas, stringify!($field), $meaning, |value: &$type| &value.$field)
                }),*];
                Schema::object($strict, members).with_description($doc)
            }
        }
    )*};
}

objects! {
    CallRef false "A place within the facts: a recipient or mailbox copy of one of them." {
        fact "",
        place "Which of the fact's deliveries or copies, from 0.",
    }
    CallFilter true "Which calls are meant: those that agree with every condition that is set." {
        account "",
        endpoint "",
        calls "Of the one endpoint that is named.",
        phases "In one of these phases, if there are any.",
        from "The first fact.",
        to "The last.",
        queued_before "",
        queued_after "",
    }
    LastAttempt false "How the last attempt of a call went." {
        attempt "",
        started "",
        took_us "In microseconds.",
        status "Of the response; 0 if there was none.",
        response "The beginning of it; `null` if there was none, or it was forgotten.",
        error "",
    }
    Tally false "Counts since the ledger began." {
        messages "",
        accepted "Recipients of all accepted submissions.",
        delivered "",
        failed "",
        suppressed "",
        canceled "",
        held "On hold now.",
        in_doubt "Attempts of a recipient whose outcome nobody knows.",
        expired "Finished deliveries that are no longer listed.",
        received "Copies of received messages.",
    }
}

/// A line of the log: nothing else is passed on unread.
impl Describe for RawValue {
    const NAME: Option<&'static str> = Some("Record");
    fn schema(schemas: &mut Schemas) -> Schema {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let kind = Schema::from_json(json!({"type": "string", "enum": kinds}));
        let data = Schema::from_json(json!({"type": "object"}));
        let person = json!({"type": ["object", "null"]});
        let personal = Schema::from_json(json!({"type": "object", "additionalProperties": person}));
        let member = |name, doc, schema| Member { name, doc, required: true, schema };
        let members = [
            member("seq", "", schemas.of::<Seq>()),
            member("at", "When it was written.", schemas.of::<Timestamp>()),
            member("kind", "Which kind of fact.", kind),
            member("v", "The version of the kind's form.", schemas.of::<u32>()),
            member("prev", "Of the line before.", schemas.of::<Sha256>()),
            member("data", "What may stay for ever.", data),
            member(
                "personal",
                "What names or quotes people, under whom it is about; `null` if it was forgotten.",
                personal,
            ),
        ];
        Schema::object(false, members).with_description("A fact, as it stands in the log.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_values_are_spelled_as_serde_does() {
        let check = |written: serde_json::Value, schema: Schema| {
            let key = written.as_object().and_then(|written| written.keys().next()).expect("a key").clone();
            let choices = schema.into_json();
            let choices = choices["oneOf"].as_array().expect("choices");
            assert!(choices.iter().any(|choice| choice["properties"].get(&key).is_some()), "{key}");
        };
        let mut schemas = Schemas::default();
        let at = Timestamp::EPOCH;
        check(serde_json::to_value(Wish::Reschedule(at)).unwrap(), Wish::schema(&mut schemas));
        check(serde_json::to_value(Disabling::Gone(Seq(1))).unwrap(), Disabling::schema(&mut schemas));
        check(serde_json::to_value(Disabling::FailingSince(at)).unwrap(), Disabling::schema(&mut schemas));
    }
}
