//! Places in the log, by number or by time.

use postledger_events::id::Seq;
use postledger_events::record::Envelope;
use postledger_events::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::problem::Problem;
use crate::openapi::{Describe, Schema, Schemas};
use crate::port::View;

/// A record by its number, or by when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    Record(Seq),
    Time(Timestamp),
}

impl Place {
    /// The first record that is meant: of a time, the first that was written then or later.
    pub fn first(self, view: &impl View) -> Result<Seq, Problem> {
        match self {
            Place::Record(seq) => Ok(seq),
            Place::Time(at) => first_where(view, |written| written >= at),
        }
    }

    /// The last one: of a time, the last that was written then or before.
    pub fn last(self, view: &impl View) -> Result<Seq, Problem> {
        match self {
            Place::Record(seq) => Ok(seq),
            Place::Time(at) => Ok(Seq(first_where(view, |written| written > at)?.0.saturating_sub(1))),
        }
    }
}

impl Describe for Place {
    const NAME: Option<&'static str> = Some("Place");
    fn schema(schemas: &mut Schemas) -> Schema {
        let mut form = |place: Place| match place {
            Place::Record(_) => schemas.of::<Seq>().into_json(),
            Place::Time(_) => schemas.of::<Timestamp>().into_json(),
        };
        let forms = [Place::Record(Seq(1)), Place::Time(Timestamp::EPOCH)].map(&mut form);
        Schema::from_json(json!({"oneOf": forms}))
            .with_description("A record by its number, or by when it was written.")
    }
}

/// The first record whose time is one of those that come last; the one behind the end if there is none. Where the clock was set
/// back, one of several.
fn first_where(view: &impl View, is_late: impl Fn(Timestamp) -> bool) -> Result<Seq, Problem> {
    let (mut early, mut late) = (Seq::default(), view.position().next());
    while early.next() < late {
        let middle = Seq(early.0 + (late.0 - early.0) / 2);
        // The log may have gaps: the first record from the middle on.
        let found = view.lines_after(Seq(middle.0 - 1), 1)?;
        match found.first() {
            Some((seq, line)) if *seq < late && !is_late(Envelope::decode(line)?.at) => early = *seq,
            Some(_) | None => late = middle,
        }
    }
    Ok(late)
}
