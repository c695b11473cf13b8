//! Walks over all calls of endpoints, in parts. Calls are named for ever, so each is come to once, whatever happens meanwhile.

use std::fmt;

use postledger_events::fact::call::CallRef;
use postledger_events::id::{AccountName, EndpointName};
use postledger_projections::calls::{self, CallRow, EndpointRow};
use postledger_projections::{Error, Order, Rows};

/// Calls that one part looks at.
const CALLS_MAX: usize = 500;

/// Where a walk goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPlace {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub from: CallRef,
}

impl CallPlace {
    pub fn parse(parts: &[&str]) -> Option<CallPlace> {
        let [account, endpoint, fact, place] = parts else { return None };
        let from = CallRef { fact: fact.parse().ok()?, place: place.parse().ok()? };
        Some(CallPlace { account: account.parse().ok()?, endpoint: endpoint.parse().ok()?, from })
    }
}

impl fmt::Display for CallPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallPlace { account, endpoint, from } = self;
        write!(f, "{account} {endpoint} {} {}", from.fact, from.place)
    }
}

/// A part of a walk.
pub struct Part {
    pub found: Vec<(EndpointRow, Vec<CallRow>)>,
    /// `None`: it has come to its end.
    pub next: Option<CallPlace>,
}

/// The calls of these endpoints that are named from `first` to before `before`.
pub fn walk(
    mut endpoints: Vec<EndpointRow>,
    place: Option<&CallPlace>,
    (first, before): (CallRef, CallRef),
    rows: &dyn Rows,
) -> Result<Part, Error> {
    endpoints.sort_by(|a, b| name(a).cmp(&name(b)));
    let (mut found, mut left) = (Vec::new(), CALLS_MAX);
    for row in endpoints {
        let from = match place.map(|place| (place.account.as_str(), place.endpoint.as_str())) {
            Some(there) if there > name(&row) => continue,
            Some(there) if there == name(&row) => place.map_or(first, |place| place.from.max(first)),
            Some(_) | None => first,
        };
        let chunk = calls::list(rows, &row.account, &row.endpoint, (from, before), Order::Ascending, left)?;
        left -= chunk.len();
        let next = chunk.last().filter(|_| left == 0).map(|last| CallPlace {
            account: row.account.clone(),
            endpoint: row.endpoint.clone(),
            from: calls::after(last.call),
        });
        found.push((row, chunk));
        if next.is_some() {
            return Ok(Part { found, next });
        }
    }
    Ok(Part { found, next: None })
}

fn name(row: &EndpointRow) -> (&str, &str) {
    (row.account.as_str(), row.endpoint.as_str())
}
