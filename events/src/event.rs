//! The closed list of all kinds of facts.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::fact::access::*;
use crate::fact::account::*;
use crate::fact::attempt::*;
use crate::fact::call::*;
use crate::fact::delivery::*;
use crate::fact::endpoint::*;
use crate::fact::expiry::*;
use crate::fact::job::*;
use crate::fact::ledger::*;
use crate::fact::mailbox::*;
use crate::fact::replay::*;
use crate::fact::submission::*;
use crate::fact::suppression::*;
use crate::fact::{Fact, Subject};

macro_rules! events {
    ($($kind:ident $version:literal,)*) => {
        #[expect(clippy::large_enum_variant, reason = "events live one at a time; a box would cost an allocation each")]
        /// A fact. Matches on it name every kind, so that a new kind breaks the build wherever it matters.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($kind($kind),)*
        }

        /// The names of all kinds, with the version that is written today.
        pub const KINDS: &[(&str, u32)] = &[$((stringify!($kind), $version),)*];

        impl Event {
            /// The name of its kind in records.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Event::$kind(_) => stringify!($kind),)*
                }
            }

            /// The version of its kind that is written today.
            pub fn version(&self) -> u32 {
                match self {
                    $(Event::$kind(_) => $version,)*
                }
            }

            /// Whom its personal part is about; `None` if it has none.
            pub fn subject(&self) -> Option<Subject> {
                match self {
                    $(Event::$kind(fact) => fact.subject(),)*
                }
            }

            /// Appends `data` as JSON.
            pub(crate) fn write_data(&self, out: &mut Vec<u8>) {
                match self {
                    $(Event::$kind(fact) => write_json(out, fact),)*
                }
            }

            /// Appends the personal part as JSON: `null` if it was forgotten.
            pub(crate) fn write_personal(&self, out: &mut Vec<u8>) {
                match self {
                    $(Event::$kind(fact) => write_json(out, &fact.personal()),)*
                }
            }
        }

        impl<'de> DeserializeSeed<'de> for Data<'_> {
            type Value = Option<Event>;

            fn deserialize<D: Deserializer<'de>>(self, data: D) -> Result<Option<Event>, D::Error> {
                match (self.kind, self.version) {
                    $((stringify!($kind), $version) => $kind::deserialize(data).map(|fact| Some(Event::$kind(fact))),)*
                    _ => IgnoredAny::deserialize(data).map(|_| None),
                }
            }
        }

        impl<'de> DeserializeSeed<'de> for Personal<'_> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, personal: D) -> Result<(), D::Error> {
                match self.event {
                    $(Event::$kind(fact) => fact.set_personal(Deserialize::deserialize(personal)?),)*
                }
                Ok(())
            }
        }

        $(impl From<$kind> for Event {
            fn from(fact: $kind) -> Event {
                Event::$kind(fact)
            }
        })*
    };
}

events! {
    LedgerCreated 1,
    ClockStepped 1,
    LedgerBranched 1,
    AccountConfigured 1,
    AccountRemoved 1,
    DomainConfigured 1,
    DomainRemoved 1,
    AddressAdded 1,
    AddressRemoved 1,
    TransportConfigured 1,
    TransportRemoved 1,
    MessageSubmitted 1,
    AttemptStarted 1,
    Delivered 1,
    AttemptDeferred 1,
    DeliveryFailed 1,
    AttemptInDoubt 1,
    DeliverySuppressed 1,
    DeliveryCanceled 1,
    DeliveryHeld 1,
    DeliveryReleased 1,
    DeliveryRescheduled 1,
    WishNoted 1,
    AddressSuppressed 1,
    SuppressionLifted 1,
    MessageReceived 1,
    MessageDeleted 1,
    HoldRuleAdded 1,
    HoldRuleRemoved 1,
    JobStarted 1,
    JobAdvanced 1,
    JobFinished 1,
    EndpointConfigured 1,
    EndpointDisabled 1,
    EndpointRemoved 1,
    CallsQueued 1,
    CallsAttempted 1,
    CallsCanceled 1,
    CallsRetried 1,
    CallsHeld 1,
    TestCallMade 1,
    ReplayStarted 1,
    ReplayAdvanced 1,
    ReplayStopped 1,
    ReplayResumed 1,
    ReplayEnded 1,
    KeyAdded 1,
    KeyRevoked 1,
    KeyUsed 1,
    CursorSet 1,
    CursorRemoved 1,
    Expired 1,
}

fn write_json<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("facts hold only what JSON can say, and a Vec takes all");
}

/// Reads `data` as a fact of this kind and version; `None`: there is no such kind and version.
pub(crate) struct Data<'a> {
    pub(crate) kind: &'a str,
    pub(crate) version: u32,
}

/// Reads the personal part of a fact into it.
pub(crate) struct Personal<'a> {
    pub(crate) event: &'a mut Event,
}

/// Reads an object that has the personal part under the name of its subject.
pub(crate) struct BySubject<'a>(pub(crate) Personal<'a>);

impl<'de> DeserializeSeed<'de> for BySubject<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, personal: D) -> Result<(), D::Error> {
        personal.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BySubject<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the personal part by its subject")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self.0)?;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
