//! Reads the log for a replay: which facts its endpoint is told of, and with what bodies. A piece at a time, so that nobody waits
//! long and little is held in memory.

use memchr::memmem::Finder;
use postledger_events::Record;
use postledger_events::fact::call::{BODY_VERSION, CallAbout, CallRef};
use postledger_events::fact::endpoint::EndpointSettings;
use postledger_events::fact::replay::ReplayScope;
use postledger_events::id::{AccountName, DeliveryId, EndpointName, LedgerId};
use postledger_events::record::kind_of;
use postledger_projections::calls::{self, CallRow, CallState};
use postledger_projections::{self as projections, news};

use super::super::call::{Caller, Submissions, Unprepared};
use super::super::payload::{Body, Name};
use super::course::{Found, Written};
use crate::ledger::{self, Snapshot};

/// Records of one piece.
const RECORDS_MAX: usize = 20_000;
/// Calls of one piece, apart from those of the last record.
const CALLS_MAX: usize = 512;
/// Of the bodies of one piece, apart from those of the last record.
const BODIES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a replay tells, and to whom.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub settings: EndpointSettings,
    pub scope: ReplayScope,
}

/// Why the log cannot be read on now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Log(#[from] ledger::Error),
    #[error("{0}")]
    Rows(#[from] projections::Error),
    #[error("the lists of what records tell of messages are being made anew")]
    Rebuilding,
}

/// A part of the log that was looked at.
pub struct Piece {
    pub found: Vec<Found>,
    /// Where the next one begins.
    pub next: CallRef,
    /// There is none.
    pub is_last: bool,
}

impl Wanted {
    /// Looks at what comes from `from` on. Blocks.
    pub fn piece(&self, caller: &Caller, rows: &Snapshot, from: CallRef) -> Result<Piece, Error> {
        // An account's name stands in JSON as it is; where a line has this text by chance, it is looked at in vain.
        let named = format!(r#""account":"{}""#, self.account);
        let named = Finder::new(&named);
        let mut reading = Reading::new(self, caller, rows)?;
        for (n, line) in rows.records(from.fact..=self.scope.to).enumerate() {
            let (seq, line) = line?;
            if n >= RECORDS_MAX || reading.is_full() {
                return Ok(Piece { found: reading.found, next: CallRef { fact: seq, place: 0 }, is_last: false });
            }
            let tells = kind_of(&line).is_some_and(|kind| news::KINDS.contains(&kind));
            if tells && named.find(&line).is_some() {
                reading.take(&Record::decode(&line).map_err(ledger::Error::from)?, from)?;
            }
        }
        let next = CallRef { fact: self.scope.to.next(), place: 0 };
        Ok(Piece { found: reading.found, next, is_last: true })
    }

    /// What to send for one call, from nothing but its name. Blocks.
    pub fn written(&self, caller: &Caller, call: CallRef) -> Written {
        let rows = caller.ledger.snapshot();
        let ledger = match caller.ledger_id(&rows) {
            Ok(ledger) => ledger,
            Err(e) => return Written::Failed(e.to_string()),
        };
        let body = caller.body_anew(&rows, self.settings.format, BODY_VERSION, &self.name(ledger, call));
        written(body).unwrap_or_else(|e| Written::Failed(e.to_string()))
    }

    pub fn name(&self, ledger: LedgerId, call: CallRef) -> Name<'_> {
        Name { ledger, account: &self.account, endpoint: &self.endpoint, call }
    }

    fn is_meant(&self, rows: &Snapshot, call: CallRef, about: CallAbout) -> Result<bool, Error> {
        let is_chosen = match about {
            CallAbout::Delivery(_, event) => self.scope.kinds.is_empty() || self.scope.kinds.contains(&event),
            CallAbout::Message(_) => true,
        };
        if !is_chosen || !news::is_wanted(&self.settings, about) {
            return Ok(false);
        }
        let has_failed = |row: CallRow| matches!(row.state, CallState::Failed(_) | CallState::Canceled(_));
        Ok(!self.scope.only_failed || calls::call(rows, &self.account, &self.endpoint, call)?.is_some_and(has_failed))
    }
}

/// What was found so far.
struct Reading<'a> {
    wanted: &'a Wanted,
    caller: &'a Caller,
    rows: &'a Snapshot,
    ledger: LedgerId,
    submissions: Submissions,
    found: Vec<Found>,
    bytes: usize,
}

impl<'a> Reading<'a> {
    fn new(wanted: &'a Wanted, caller: &'a Caller, rows: &'a Snapshot) -> Result<Reading<'a>, Error> {
        let ledger = caller.ledger_id(rows)?;
        Ok(Reading { wanted, caller, rows, ledger, submissions: Submissions::default(), found: Vec::new(), bytes: 0 })
    }

    fn is_full(&self) -> bool {
        self.found.len() >= CALLS_MAX || self.bytes >= BODIES_BYTES_MAX
    }

    fn take(&mut self, fact: &Record, from: CallRef) -> Result<(), Error> {
        let Wanted { account, settings, .. } = self.wanted;
        let told = news::told(&fact.event);
        let Some(news) = told.iter().find(|news| news.account == account) else { return Ok(()) };
        for queued in &news.calls {
            let call = CallRef { fact: fact.seq, place: queued.place };
            if call < from || !self.wanted.is_meant(self.rows, call, queued.about)? {
                continue;
            }
            let (name, told) = (self.wanted.name(self.ledger, call), (fact, news.source));
            let body = self.caller.body(self.rows, settings.format, BODY_VERSION, &name, told, &mut self.submissions);
            let body = written(body)?;
            self.bytes += body.bytes();
            self.found.push(Found { call, delivery: delivery(queued.about), body });
        }
        Ok(())
    }
}

fn delivery(about: CallAbout) -> Option<DeliveryId> {
    match about {
        CallAbout::Delivery(id, _) => Some(id),
        CallAbout::Message(_) => None,
    }
}

fn written(body: Result<Body, Unprepared>) -> Result<Written, Error> {
    match body {
        Ok(body) => Ok(Written::Body(body)),
        Err(Unprepared::Forgotten) => Ok(Written::Forgotten),
        Err(Unprepared::Failed(why)) => Ok(Written::Failed(why)),
        Err(Unprepared::Nothing) => Err(Error::Rebuilding),
    }
}
