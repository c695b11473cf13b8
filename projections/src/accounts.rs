//! Who may do what: accounts, domains, addresses, transports and hold rules, as the last edit left them.

use postledger_events::address::{Address, Domain, Localpart};
use postledger_events::fact::account::{AccountSettings, Destination, DomainSettings, TransportSettings};
use postledger_events::fact::job::{HoldMatch, Work};
use postledger_events::id::{AccountName, Author, HoldRuleId, JobId, Seq, TransportName};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key, parse, read, scan_prefix, write};

const TABLE: Table = Table::Accounts;
/// Rows of one list that are read at once; the lists of configuration are short.
pub const LIST_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    pub account: AccountName,
    pub settings: AccountSettings,
    /// `None` if it was forgotten.
    pub full_name: Option<String>,
    pub created: Timestamp,
    /// It is being removed by this job: it accepts nothing any more.
    pub removing: Option<JobId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRow {
    pub domain: Domain,
    pub settings: DomainSettings,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRow {
    pub address: Destination,
    pub account: AccountName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportRow {
    pub transport: TransportName,
    pub settings: TransportSettings,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRuleRow {
    pub rule: HoldRuleId,
    pub matching: HoldMatch,
    /// The record that added it.
    pub seq: Seq,
    pub added: Timestamp,
    pub by: Author,
}

/// An intent, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    pub job: JobId,
    pub work: Work,
    pub by: Author,
    pub started: Timestamp,
    /// Where it goes on; empty at first.
    pub cursor: String,
    pub affected: u64,
    pub finished: bool,
}

/// A gap in the log: records that only another branch of the ledger has, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchRow {
    /// The last record before it.
    pub from: Seq,
    /// The record that begins this branch.
    pub next: Seq,
}

/// The last numbers given out, and how many there are now, so that nobody looks for what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub hold_rule: u64,
    pub job: u64,
    /// The last record that branched the ledger; 0 if none did.
    pub branch: Seq,
    /// The job that came with it.
    pub branch_job: u64,
    hold_rules: u64,
    jobs: u64,
}

pub fn account(rows: &(impl Rows + ?Sized), account: &AccountName) -> Result<Option<AccountRow>, Error> {
    read(rows, TABLE, &account_key(account))
}

pub fn accounts(rows: &(impl Rows + ?Sized)) -> Result<Vec<AccountRow>, Error> {
    list(rows, b"a")
}

pub fn domain(rows: &(impl Rows + ?Sized), domain: &Domain) -> Result<Option<DomainRow>, Error> {
    read(rows, TABLE, &domain_key(domain))
}

pub fn domains(rows: &(impl Rows + ?Sized)) -> Result<Vec<DomainRow>, Error> {
    list(rows, b"d")
}

pub fn address(rows: &(impl Rows + ?Sized), address: &Destination) -> Result<Option<AddressRow>, Error> {
    read(rows, TABLE, &address_key(address))
}

pub fn addresses(rows: &(impl Rows + ?Sized)) -> Result<Vec<AddressRow>, Error> {
    list(rows, b"e")
}

/// At most `limit` addresses of one account.
pub fn addresses_of(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    limit: usize,
) -> Result<Vec<AddressRow>, Error> {
    let prefix = key(&[b"f", account.as_str().as_bytes(), &[0]]);
    values(scan_prefix(rows, TABLE, &prefix, limit)?)
}

/// Some address of the domain, if there is one left.
pub fn any_address_in(rows: &(impl Rows + ?Sized), domain: &Domain) -> Result<Option<AddressRow>, Error> {
    Ok(addresses(rows)?.into_iter().find(|row| row.address.domain() == domain))
}

pub fn transport(rows: &(impl Rows + ?Sized), transport: &TransportName) -> Result<Option<TransportRow>, Error> {
    read(rows, TABLE, &transport_key(transport))
}

pub fn transports(rows: &(impl Rows + ?Sized)) -> Result<Vec<TransportRow>, Error> {
    list(rows, b"t")
}

pub fn hold_rule(rows: &(impl Rows + ?Sized), rule: HoldRuleId) -> Result<Option<HoldRuleRow>, Error> {
    read(rows, TABLE, &rule_key(rule))
}

pub fn hold_rules(rows: &(impl Rows + ?Sized)) -> Result<Vec<HoldRuleRow>, Error> {
    if counters(rows)?.hold_rules == 0 {
        return Ok(Vec::new());
    }
    list(rows, b"r")
}

/// A job, finished or not.
pub fn job(rows: &(impl Rows + ?Sized), job: JobId) -> Result<Option<JobRow>, Error> {
    match read(rows, TABLE, &job_key(job))? {
        Some(row) => Ok(Some(row)),
        None => read(rows, TABLE, &finished_key(job)),
    }
}

/// The jobs that are not done, oldest first.
pub fn jobs(rows: &(impl Rows + ?Sized)) -> Result<Vec<JobRow>, Error> {
    if counters(rows)?.jobs == 0 {
        return Ok(Vec::new());
    }
    list(rows, b"j")
}

/// The gaps in the log, oldest first.
pub fn branches(rows: &(impl Rows + ?Sized)) -> Result<Vec<BranchRow>, Error> {
    if counters(rows)?.branch == Seq(0) {
        return Ok(Vec::new());
    }
    list(rows, b"b")
}

/// Whether a delivery of a message that was submitted with the record `submitted` may have been sent by another branch, and
/// nobody released it since.
pub fn is_restored(branch: Seq, submitted: Seq, released: Option<Seq>) -> bool {
    submitted < branch && released.is_none_or(|released| released < branch)
}

/// Places that a branch leaves out behind the last one that is known to be taken, at least.
pub const BRANCH_GAP: u64 = 1 << 28;

/// Where somebody who has read to `seq` goes on if this ledger, whose last record is `position`, has no such record: behind the last
/// one that it has in common with what they read. 0 if they read a branch that is not known here, of which nothing says where it
/// began: rather they are told something again than not at all.
pub fn last_common(rows: &(impl Rows + ?Sized), seq: Seq, position: Seq) -> Result<Option<Seq>, Error> {
    let branches = branches(rows)?;
    let read = match branches.iter().find(|gap| gap.from < seq && seq < gap.next) {
        Some(gap) => gap.from,
        None if seq <= position => return Ok(None),
        // Beside a ledger that went on from an older copy of its files.
        None if branches.is_empty() => position,
        None => Seq(0),
    };
    // What is further away is of a branch of its own.
    Ok(Some(read).filter(|read| seq.0 - read.0 < BRANCH_GAP).or(Some(Seq(0))))
}

pub fn counters(rows: &(impl Rows + ?Sized)) -> Result<Counters, Error> {
    Ok(read(rows, TABLE, b"c")?.unwrap_or_default())
}

/// The address without its extension and, where the domain does not care, without case: what addresses are looked up by.
pub fn canonical(address: &Address, settings: &DomainSettings) -> Option<Address> {
    let base = address.localpart.base(&settings.separators);
    let base = if settings.localpart_case_sensitive { base.to_owned() } else { base.to_lowercase() };
    Some(Address::new(Localpart::new(&base).ok()?, address.domain.clone()))
}

/// Which account an address leads to, and whether its domain is enabled.
pub fn resolve(rows: &(impl Rows + ?Sized), to: &Address) -> Result<Option<(AccountName, DomainRow)>, Error> {
    let Some(domain) = domain(rows, &to.domain)? else { return Ok(None) };
    let exact = match canonical(to, &domain.settings) {
        Some(base) => address(rows, &Destination::Address(base))?,
        None => None,
    };
    let row = match exact {
        Some(row) => Some(row),
        None => address(rows, &Destination::CatchAll(to.domain.clone()))?,
    };
    Ok(row.map(|row| (row.account, domain)))
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::AccountConfigured(e) => {
            let before = account(rows, &e.account)?;
            let row = AccountRow {
                account: e.account.clone(),
                settings: e.settings.clone(),
                full_name: e.personal.as_ref().map(|p| p.full_name.clone()),
                created: before.as_ref().map_or(record.at, |b| b.created),
                removing: before.and_then(|b| b.removing),
            };
            write(rows, TABLE, account_key(&e.account), &row);
        }
        Event::AccountRemoved(e) => rows.remove(TABLE, account_key(&e.account)),
        Event::DomainConfigured(e) => {
            let row = DomainRow { domain: e.domain.clone(), settings: e.settings.clone() };
            write(rows, TABLE, domain_key(&e.domain), &row);
        }
        Event::DomainRemoved(e) => rows.remove(TABLE, domain_key(&e.domain)),
        Event::AddressAdded(e) => {
            let row = AddressRow { address: e.address.clone(), account: e.account.clone() };
            write(rows, TABLE, address_key(&e.address), &row);
            write(rows, TABLE, address_of_key(&e.account, &e.address), &row);
        }
        Event::AddressRemoved(e) => {
            rows.remove(TABLE, address_key(&e.address));
            rows.remove(TABLE, address_of_key(&e.account, &e.address));
        }
        Event::TransportConfigured(e) => {
            let row = TransportRow { transport: e.transport.clone(), settings: e.settings.clone() };
            write(rows, TABLE, transport_key(&e.transport), &row);
        }
        Event::TransportRemoved(e) => rows.remove(TABLE, transport_key(&e.transport)),
        Event::HoldRuleAdded(e) => {
            let new = hold_rule(rows, e.rule)?.is_none();
            let (matching, by) = (e.matching.clone(), e.by.clone());
            let row = HoldRuleRow { rule: e.rule, matching, seq: record.seq, added: record.at, by };
            write(rows, TABLE, rule_key(e.rule), &row);
            start_job(rows, record, e.job, Work::ApplyHoldRule(e.rule, e.matching.clone()), &e.by)?;
            count(rows, |c| {
                c.hold_rule = e.rule.0;
                c.hold_rules = c.hold_rules.saturating_add(u64::from(new));
            })?;
        }
        Event::HoldRuleRemoved(e) => {
            if hold_rule(rows, e.rule)?.is_some() {
                rows.remove(TABLE, rule_key(e.rule));
                count(rows, |c| c.hold_rules = c.hold_rules.saturating_sub(1))?;
            }
        }
        Event::JobStarted(e) => {
            start_job(rows, record, e.job, e.work.clone(), &e.by)?;
            if let Work::RemoveAccount(name) = &e.work
                && let Some(mut row) = account(rows, name)?
            {
                row.removing = Some(e.job);
                write(rows, TABLE, account_key(name), &row);
            }
        }
        Event::JobAdvanced(e) => {
            if let Some(mut row) = read::<JobRow>(rows, TABLE, &job_key(e.job))? {
                row.cursor = e.cursor.clone();
                row.affected = e.affected;
                write(rows, TABLE, job_key(e.job), &row);
            }
        }
        Event::JobFinished(e) => {
            if let Some(mut row) = read::<JobRow>(rows, TABLE, &job_key(e.job))? {
                row.affected = e.affected;
                row.finished = true;
                rows.remove(TABLE, job_key(e.job));
                write(rows, TABLE, finished_key(e.job), &row);
                count(rows, |c| c.jobs = c.jobs.saturating_sub(1))?;
            }
        }
        Event::LedgerBranched(e) => {
            let row = BranchRow { from: e.from_seq, next: e.next_seq };
            write(rows, TABLE, key(&[b"b", &e.next_seq.0.to_be_bytes()]), &row);
            count(rows, |c| {
                c.hold_rule = e.numbers.hold_rule.0;
                c.branch = e.next_seq;
                c.branch_job = e.job.0;
            })?;
            start_job(rows, record, e.job, Work::HoldRestored(e.next_seq), &e.by)?;
        }
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::MessageSubmitted(_)
        | Event::AttemptStarted(_)
        | Event::Delivered(_)
        | Event::AttemptDeferred(_)
        | Event::DeliveryFailed(_)
        | Event::AttemptInDoubt(_)
        | Event::DeliverySuppressed(_)
        | Event::DeliveryCanceled(_)
        | Event::DeliveryHeld(_)
        | Event::DeliveryReleased(_)
        | Event::DeliveryRescheduled(_)
        | Event::WishNoted(_)
        | Event::EndpointConfigured(_)
        | Event::EndpointDisabled(_)
        | Event::EndpointRemoved(_)
        | Event::CallsQueued(_)
        | Event::CallsAttempted(_)
        | Event::CallsCanceled(_)
        | Event::CallsRetried(_)
        | Event::CallsHeld(_)
        | Event::TestCallMade(_)
        | Event::ReplayStarted(_)
        | Event::ReplayAdvanced(_)
        | Event::ReplayStopped(_)
        | Event::ReplayResumed(_)
        | Event::ReplayEnded(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::KeyUsed(_)
        | Event::CursorSet(_)
        | Event::CursorRemoved(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageReceived(_)
        | Event::MessageDeleted(_)
        | Event::Expired(_) => {}
    }
    Ok(())
}

fn start_job(rows: &mut dyn RowsMut, record: &Record, job: JobId, work: Work, by: &Author) -> Result<(), Error> {
    let new = rows.get(TABLE, &job_key(job))?.is_none();
    let (cursor, by) = (String::new(), by.clone());
    let row = JobRow { job, work, by, started: record.at, cursor, affected: 0, finished: false };
    write(rows, TABLE, job_key(job), &row);
    count(rows, |c| {
        c.job = job.0;
        c.jobs = c.jobs.saturating_add(u64::from(new));
    })
}

fn count(rows: &mut dyn RowsMut, change: impl FnOnce(&mut Counters)) -> Result<(), Error> {
    let mut counters = counters(rows)?;
    change(&mut counters);
    write(rows, TABLE, b"c".to_vec(), &counters);
    Ok(())
}

fn list<T: serde::de::DeserializeOwned>(rows: &(impl Rows + ?Sized), prefix: &[u8]) -> Result<Vec<T>, Error> {
    values(rows.scan(TABLE, prefix, &end_of(prefix), Order::Ascending, LIST_MAX)?)
}

fn values<T: serde::de::DeserializeOwned>(found: Vec<(Key, Vec<u8>)>) -> Result<Vec<T>, Error> {
    found.iter().map(|(_, value)| parse(TABLE, value)).collect()
}

fn account_key(account: &AccountName) -> Key {
    key(&[b"a", account.as_str().as_bytes()])
}

fn domain_key(domain: &Domain) -> Key {
    key(&[b"d", domain.as_str().as_bytes()])
}

fn address_key(address: &Destination) -> Key {
    key(&[b"e", address.to_string().as_bytes()])
}

fn address_of_key(account: &AccountName, address: &Destination) -> Key {
    key(&[b"f", account.as_str().as_bytes(), &[0], address.to_string().as_bytes()])
}

fn transport_key(transport: &TransportName) -> Key {
    key(&[b"t", transport.as_str().as_bytes()])
}

fn rule_key(rule: HoldRuleId) -> Key {
    key(&[b"r", &rule.to_key()])
}

fn job_key(job: JobId) -> Key {
    key(&[b"j", &job.to_key()])
}

fn finished_key(job: JobId) -> Key {
    key(&[b"k", &job.to_key()])
}
