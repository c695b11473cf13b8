//! Endpoints: which programs are called about an account's mail.

use postledger_events::command::{ConfigureEndpoint, RecordTestCall, RemoveEndpoint};
use postledger_events::fact::call::TestCallMade;
use postledger_events::fact::endpoint::{Direction, EndpointConfigured, EndpointSettings};
use postledger_events::fact::job::{JobStarted, Work};
use postledger_events::id::{AccountName, EndpointName, SecretId};
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Refusal};
use postledger_projections::calls::{self, EndpointRow};
use postledger_projections::{Rows, accounts};

use super::{Decision, Policy, damaged, queue};

/// Endpoints of one account; each fact of it is held against all of them.
const ENDPOINTS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 2048;
/// The present secret, the next and the one before.
const SECRETS_MAX: usize = 3;
const CONCURRENCY_MAX: u32 = 64;
pub const CALLS_PER_SECOND_MAX: u32 = 10_000;
const TIMEOUT_S_MAX: u32 = 120;
/// Attempts of one call.
const ATTEMPTS_MAX: usize = 100;
/// The longest wait between two attempts: a week.
const WAIT_S_MAX: u32 = 7 * 24 * 3600;
/// The longest keep period: ten years.
const KEEP_S_MAX: u64 = 3660 * 24 * 3600;

pub fn configure(c: &ConfigureEndpoint, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let account = accounts::account(rows, &c.account).map_err(damaged)?;
    let account = account.ok_or_else(|| Refusal::NoSuch(Thing::Account(c.account.to_string())))?;
    if account.removing.is_some() {
        return Err(Refusal::AccountGoing(c.account.clone()));
    }
    let others = calls::endpoints(rows, &c.account).map_err(damaged)?;
    let mut settings = match others.iter().find(|row| row.endpoint == c.endpoint) {
        Some(_) if c.create => return Err(Refusal::Exists(thing(&c.account, &c.endpoint))),
        Some(row) => of_live(row)?.settings.clone(),
        None if !c.create => return Err(Refusal::NoSuch(thing(&c.account, &c.endpoint))),
        None if others.len() >= ENDPOINTS_MAX => {
            let why = format!("account {} has {ENDPOINTS_MAX} endpoints already; remove one first", c.account);
            return Err(Refusal::Invalid(why));
        }
        None => new_settings(c)?,
    };
    if c.change.direction.is_some_and(|direction| direction != settings.direction) {
        let why = "the direction of an endpoint cannot be changed; add another endpoint instead";
        return Err(Refusal::Invalid(why.to_owned()));
    }
    let state = calls::state(rows, &c.account, &c.endpoint).map_err(damaged)?;
    let stays_disabled = state.disabled.is_some() && c.change.disabled != Some(false);
    let before = secrets(&settings);
    c.change.clone().apply(&mut settings);
    check(&settings)?;
    let kept = secrets(&settings);
    let mut decision = Decision::done(EndpointConfigured {
        account: c.account.clone(),
        endpoint: c.endpoint.clone(),
        settings,
        stays_disabled,
        by: c.by.clone(),
    });
    decision.forget_secrets.extend(before.into_iter().filter(|id| !kept.contains(id)));
    Ok(decision)
}

fn new_settings(c: &ConfigureEndpoint) -> Result<EndpointSettings, Refusal> {
    match (c.change.direction, &c.change.url) {
        (Some(direction), Some(url)) => Ok(EndpointSettings::new(direction, url.clone())),
        (None, _) => Err(Refusal::Invalid("a new endpoint is either outgoing or incoming".to_owned())),
        (_, None) => Err(Refusal::Invalid("a new endpoint needs an URL".to_owned())),
    }
}

/// Its calls are canceled by a job; from now on it is told of nothing.
pub fn remove(c: &RemoveEndpoint, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    live(rows, &c.account, &c.endpoint)?;
    let job = queue::next_job(rows, policy)?;
    let work = Work::RemoveEndpoint(c.account.clone(), c.endpoint.clone());
    let event = JobStarted { job, work, by: c.by.clone() };
    Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Job(job)) })
}

pub fn record_test(c: &RecordTestCall, rows: &dyn Rows) -> Result<Decision, Refusal> {
    find(rows, &c.account, &c.endpoint)?;
    Ok(Decision::done(TestCallMade {
        account: c.account.clone(),
        endpoint: c.endpoint.clone(),
        started: c.started,
        took_us: c.took_us,
        remote_addr: c.remote_addr,
        status: c.status,
        by: c.by.clone(),
        personal: Some(c.texts.clone()),
    }))
}

/// The secrets that settings name.
pub fn secrets(settings: &EndpointSettings) -> Vec<SecretId> {
    settings.authorization.iter().chain(&settings.secrets).map(|secret| secret.id).collect()
}

pub fn find(rows: &dyn Rows, account: &AccountName, endpoint: &EndpointName) -> Result<EndpointRow, Refusal> {
    let found = calls::endpoint(rows, account, endpoint).map_err(damaged)?;
    found.ok_or_else(|| Refusal::NoSuch(thing(account, endpoint)))
}

/// One that is not being removed.
pub fn live(rows: &dyn Rows, account: &AccountName, endpoint: &EndpointName) -> Result<EndpointRow, Refusal> {
    let row = find(rows, account, endpoint)?;
    of_live(&row)?;
    Ok(row)
}

fn of_live(row: &EndpointRow) -> Result<&EndpointRow, Refusal> {
    match row.removing {
        None => Ok(row),
        Some(job) => Err(Refusal::Conflict(format!("endpoint {} is being removed by job {job}", row.endpoint))),
    }
}

pub fn thing(account: &AccountName, endpoint: &EndpointName) -> Thing {
    Thing::Endpoint(format!("{endpoint} of account {account}"))
}

fn check(s: &EndpointSettings) -> Result<(), Refusal> {
    check_url(&s.url)?;
    let within = |what: &str, value: u32, max: u32| {
        let fine = (1..=max).contains(&value);
        if fine { Ok(()) } else { Err(Refusal::Invalid(format!("{what} is 1 to {max}, not {value}"))) }
    };
    within("the number of calls at once", s.concurrency_max, CONCURRENCY_MAX)?;
    within("a rate in calls per second", s.calls_per_second_max.unwrap_or(1), CALLS_PER_SECOND_MAX)?;
    within("the time limit of a connection, in seconds,", s.connect_timeout_s, TIMEOUT_S_MAX)?;
    within("the time limit of a call, in seconds,", s.timeout_s, TIMEOUT_S_MAX)?;
    let why = if s.connect_timeout_s > s.timeout_s {
        "the time limit of a connection is longer than that of the whole call".to_owned()
    } else if s.secrets.len() > SECRETS_MAX {
        format!("an endpoint has at most {SECRETS_MAX} secrets; remove one that is not in use any more")
    } else if s.direction == Direction::Incoming && !s.events.is_empty() {
        "an incoming endpoint is told of every message; events can only be chosen for an outgoing one".to_owned()
    } else if (1..s.events.len()).any(|n| s.events[..n].contains(&s.events[n])) {
        "an event is named twice".to_owned()
    } else if s.retry.waits_s.len() >= ATTEMPTS_MAX {
        format!("a retry schedule has at most {} waits", ATTEMPTS_MAX - 1)
    } else if s.retry.waits_s.iter().any(|wait| !(1..=WAIT_S_MAX).contains(wait)) {
        format!("waits between attempts are 1 to {WAIT_S_MAX} seconds")
    } else if s.keep_s > KEEP_S_MAX {
        format!("a keep period is at most {KEEP_S_MAX} seconds")
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(why))
}

/// What can be said of it without taking it apart as the caller does.
fn check_url(url: &str) -> Result<(), Refusal> {
    let lower = url.to_ascii_lowercase();
    let rest = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let why = match authority {
        None => "begins with http:// or https://",
        Some(authority) if authority.is_empty() || authority.starts_with(':') => "has a host",
        Some(authority) if authority.contains('@') => {
            "has no user name and no password; give them as the value of Authorization"
        }
        Some(_) if url.len() > URL_BYTES_MAX => "has at most 2048 bytes",
        Some(_) if url.bytes().any(|b| !b.is_ascii_graphic()) => {
            "has no spaces and only ASCII characters; write others as %XX"
        }
        Some(_) if url.contains('#') => "has no fragment",
        Some(_) => return Ok(()),
    };
    Err(Refusal::Invalid(format!("the URL of an endpoint {why}")))
}

#[cfg(test)]
mod tests {
    use postledger_events::command::EndpointChange;
    use postledger_events::fact::account::{AccountConfigured, AccountSettings};
    use postledger_events::fact::endpoint::Disabling;
    use postledger_events::id::{Author, Seq, Sha256};
    use postledger_events::time::Timestamp;
    use postledger_events::{Event, Record};
    use postledger_projections::{Memory, fold};

    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, ok: bool| assert_eq!(check_url(url).is_ok(), ok, "{url}");
        check("https://example.org/hook", true);
        check("HTTP://192.0.2.1:8080?a=b@c", true);
        check("http://[2001:db8::1]/", true);
        check("ftp://example.org/", false);
        check("example.org/hook", false);
        check("https:///hook", false);
        check("https://:443/", false);
        check("https://me:secret@example.org/", false);
        check("https://example.org/a b", false);
        check("https://exämple.org/", false);
        check("https://example.org/#part", false);
        check(&format!("https://example.org/{}", "a".repeat(URL_BYTES_MAX)), false);
    }

    /// An account's endpoint, and what is decided about it.
    struct Ledger {
        rows: Memory,
        seq: u64,
    }

    impl Ledger {
        fn append(&mut self, event: Event) {
            self.seq += 1;
            let at = Timestamp::from_secs(1_800_000_000);
            fold(&Record { seq: Seq(self.seq), at, prev: Sha256::ZERO, event }, &mut self.rows).unwrap();
        }

        fn set(&mut self, create: bool, change: EndpointChange) {
            let ((account, endpoint), by) = (names(), Author::program());
            let command = ConfigureEndpoint { account, endpoint, create, change, by };
            configure(&command, &self.rows).unwrap().events.into_iter().for_each(|event| self.append(event));
        }

        fn is_enabled(&self) -> bool {
            let (account, endpoint) = names();
            let row = find(&self.rows, &account, &endpoint).unwrap();
            calls::is_enabled(&row, &calls::state(&self.rows, &account, &endpoint).unwrap())
        }
    }

    fn names() -> (AccountName, EndpointName) {
        (AccountName::new("mox").unwrap(), EndpointName::new("shop").unwrap())
    }

    #[test]
    fn only_who_says_so_enables_what_the_program_disabled() {
        let mut ledger = Ledger { rows: Memory::default(), seq: 0 };
        let (account, endpoint) = names();
        let settings = AccountSettings::default();
        let by = Author::program();
        ledger.append(AccountConfigured { account: account.clone(), settings, by, personal: None }.into());
        let url = Some("https://example.org/".to_owned());
        let new = EndpointChange { direction: Some(Direction::Incoming), url, ..EndpointChange::default() };
        ledger.set(true, new);
        assert!(ledger.is_enabled());
        let rate = || EndpointChange { calls_per_second_max: Some(Some(5)), ..EndpointChange::default() };
        let disabled = |disabled| EndpointChange { disabled: Some(disabled), ..EndpointChange::default() };
        for edits in [vec![rate()], vec![disabled(true), rate()], vec![]] {
            ledger.append(super::super::call::disabled(&account, &endpoint, Disabling::Gone(Seq(1))));
            for edit in edits {
                ledger.set(false, edit);
                assert!(!ledger.is_enabled(), "a change of something else leaves it as it is");
            }
            ledger.set(false, disabled(false));
            assert!(ledger.is_enabled());
        }
        let row = find(&ledger.rows, &account, &endpoint).unwrap();
        assert_eq!(row.settings.calls_per_second_max, Some(5), "the other changes were made");
    }

    #[test]
    fn settings() {
        let check = |change: fn(&mut EndpointSettings), expect: &str| {
            let mut settings = EndpointSettings::new(Direction::Incoming, "https://example.org/".to_owned());
            change(&mut settings);
            let why = check(&settings).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(if expect.is_empty() { why.is_empty() } else { why.contains(expect) }, "{why:?}, not {expect:?}");
        };
        check(|_| {}, "");
        check(|s| s.concurrency_max = 0, "calls at once is 1 to 64");
        check(|s| s.concurrency_max = 65, "calls at once is 1 to 64");
        check(|s| s.calls_per_second_max = Some(0), "rate in calls per second is 1 to 10000");
        check(|s| s.calls_per_second_max = Some(10_000), "");
        check(|s| s.timeout_s = 5, "longer than that of the whole call");
        check(|s| s.timeout_s = 121, "1 to 120");
        check(|s| s.retry.waits_s = vec![0], "1 to 604800 seconds");
        check(|s| s.retry.waits_s = vec![1; 100], "at most 99 waits");
        check(|s| s.retry.waits_s = Vec::new(), "");
        check(|s| s.keep_s = u64::MAX, "a keep period is at most");
        check(|s| s.events = vec![postledger_events::fact::endpoint::OutgoingEvent::Failed], "every message");
    }
}
