//! Which records a caller asks for and may see.

use postledger_events::Record;
use postledger_events::address::Address;
use postledger_events::event::KINDS;
use postledger_events::id::{AccountName, MessageUuid};
use postledger_events::record::Envelope;
use postledger_events::time::Timestamp;
use postledger_projections::{Rows, deliveries};

use super::about::About;
use super::caller::Caller;
use super::problem::Problem;

/// The conditions of a request as they came; a record must agree with all that are set.
#[derive(Default)]
pub struct Conditions {
    pub account: Option<String>,
    pub message: Option<String>,
    /// An address: records about deliveries to it, as long as their rows are kept, and records that name it.
    pub recipient: Option<String>,
    /// Names of kinds, with commas between.
    pub kind: Option<String>,
    /// Written at or after.
    pub since: Option<String>,
    /// Written before.
    pub until: Option<String>,
    /// Records of cursors are left out unless their kinds are named: whoever moves a cursor behind what they read would only
    /// find the record of that, and never come to an end.
    pub without_cursors: bool,
}

/// The same, understood, with what the caller may see.
pub struct Filter {
    confined: Option<AccountName>,
    account: Option<AccountName>,
    message: Option<MessageUuid>,
    recipient: Option<String>,
    kinds: Vec<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    without_cursors: bool,
}

impl Filter {
    pub fn new(caller: &Caller, asked: Conditions) -> Result<Filter, Problem> {
        let kinds: Vec<String> = asked.kind.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        if let Some(unknown) = kinds.iter().find(|kind| !KINDS.iter().any(|(name, _)| name == kind)) {
            return Err(Problem::invalid(format!("there is no kind of record named {unknown:?}")));
        }
        let recipient = parsed::<Address>(asked.recipient)?;
        Ok(Filter {
            confined: caller.confined().cloned(),
            account: caller.scope(parsed(asked.account)?)?,
            message: parsed(asked.message)?,
            recipient: recipient.map(|address| fold(&address)),
            kinds,
            since: parsed(asked.since)?,
            until: parsed(asked.until)?,
            without_cursors: asked.without_cursors,
        })
    }

    /// The account that all records are about which pass; `None`: they may be about any.
    pub fn account(&self) -> Option<&AccountName> {
        self.account.as_ref()
    }

    /// Whether more than the records is needed to tell which pass.
    pub fn reads_rows(&self) -> bool {
        self.recipient.is_some()
    }

    /// Whether a line is asked for and may be seen.
    pub fn passes(&self, rows: &impl Rows, line: &[u8]) -> Result<bool, Problem> {
        let envelope = Envelope::decode(line)?;
        if !self.is_wanted(envelope.at, &envelope.kind) {
            return Ok(false);
        }
        if self.account.is_none() && self.message.is_none() && self.recipient.is_none() {
            return Ok(true);
        }
        self.is_about(rows, &Record::decode(line)?)
    }

    /// The same for a record that was read already.
    pub fn passes_record(&self, rows: &impl Rows, record: &Record) -> Result<bool, Problem> {
        Ok(self.is_wanted(record.at, record.event.kind()) && self.is_about(rows, record)?)
    }

    fn is_wanted(&self, at: Timestamp, kind: &str) -> bool {
        let in_time = self.since.is_none_or(|t| at >= t) && self.until.is_none_or(|t| at < t);
        let of_cursor = matches!(kind, "CursorSet" | "CursorRemoved");
        let of_kind = match self.kinds.as_slice() {
            [] => !(self.without_cursors && of_cursor),
            kinds => kinds.iter().any(|wanted| wanted == kind),
        };
        in_time && of_kind
    }

    fn is_about(&self, rows: &impl Rows, record: &Record) -> Result<bool, Problem> {
        let about = About::of(&record.event);
        let seen = self.confined.as_ref().is_none_or(|own| about.is_only(own));
        let account = self.account.as_ref().is_none_or(|asked| about.accounts.contains(&asked));
        let message = self.message.is_none_or(|asked| about.messages.contains(&asked));
        if !(seen && account && message) {
            return Ok(false);
        }
        match &self.recipient {
            None => Ok(true),
            Some(asked) => names(rows, &about, asked),
        }
    }
}

fn names(rows: &impl Rows, about: &About, asked: &str) -> Result<bool, Problem> {
    if about.addresses.iter().any(|address| fold(address) == asked) {
        return Ok(true);
    }
    for id in &about.deliveries {
        let address = deliveries::delivery(rows, *id)?.and_then(|row| row.address);
        if address.is_some_and(|address| fold(&address) == asked) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Addresses are found whatever the case of their letters.
fn fold(address: &Address) -> String {
    address.to_string().to_lowercase()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: Option<String>) -> Result<Option<T>, Problem> {
    text.map(|text| text.parse()).transpose().map_err(|e: T::Err| Problem::invalid(e.to_string()))
}
