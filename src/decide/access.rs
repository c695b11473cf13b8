//! Keys of the API and cursors of groups of consumers.

use std::time::Duration;

use postledger_events::command::{AddKey, RemoveCursor, RevokeKey, SetCursor, UseKey};
use postledger_events::fact::access::{
    CursorRemoved, CursorSet, KeyAdded, KeyRevoked, KeyUsed, KeyUsedPersonal, Network,
};
use postledger_events::id::{AccountName, Author, KeyId, Seq};
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Event, Refusal};
use postledger_projections::access::{self, KeyRow};
use postledger_projections::{Error, Rows, accounts};

use super::{Decision, Moment, Policy, account, damaged, next_number};

/// Keys of one account, and of the administrators.
const KEYS_MAX: usize = 100;
/// Cursors of one account, and of the administrators.
const CURSORS_MAX: usize = 100;
const LABEL_CHARS_MAX: usize = 100;
const NETWORKS_MAX: usize = 32;
/// A use is recorded if the last that was recorded is longer ago.
pub const USE_INTERVAL: Duration = Duration::from_secs(600);

pub fn add_key(c: &AddKey, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    owner(c.account.as_ref(), rows)?;
    check(c, moment)?;
    if access::keys_of(rows, c.account.as_ref(), KEYS_MAX).map_err(damaged)?.len() == KEYS_MAX {
        return Err(Refusal::Invalid(format!("there are {KEYS_MAX} keys already; revoke some that nobody uses")));
    }
    let key = KeyId(next_number(access::last_number(rows).map_err(damaged)?, policy.ledger_number));
    let mut scopes = c.scopes.clone();
    scopes.sort_unstable();
    scopes.dedup();
    let added = KeyAdded {
        key,
        account: c.account.clone(),
        label: c.label.clone(),
        scopes,
        hash: c.hash,
        expires: c.expires,
        networks: c.networks.clone(),
        by: c.by.clone(),
    };
    Ok(Decision { events: vec![added.into()], ..Decision::new(Answer::Key(key)) })
}

pub fn revoke_key(c: &RevokeKey, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = access::key_row(rows, c.key).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Key(c.key.to_string())))?;
    let mut decision = Decision::new(Answer::Done);
    revoke(&row, &c.by, &mut decision);
    Ok(decision)
}

/// A key that is gone was used for the last time; that is no fact any more.
pub fn use_key(c: &UseKey, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let row = access::key_row(rows, c.key).map_err(damaged)?;
    match row {
        Some(row) if row.used.as_ref().is_none_or(|used| used.at + USE_INTERVAL <= moment.now) => {
            let personal = Some(KeyUsedPersonal { client: c.client });
            Ok(Decision::done(KeyUsed { key: c.key, account: row.account, at: moment.now, personal }))
        }
        Some(_) | None => Ok(Decision::new(Answer::Done)),
    }
}

/// Moving it back is allowed: what follows is read again.
pub fn set_cursor(c: &SetCursor, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    owner(c.account.as_ref(), rows)?;
    check_place(c.seq, rows, moment)?;
    let account = c.account.as_ref();
    match access::cursor(rows, account, &c.cursor).map_err(damaged)? {
        Some(row) if row.seq == c.seq => return Ok(Decision::new(Answer::Done)),
        Some(_) => {}
        None if access::cursors(rows, account, CURSORS_MAX).map_err(damaged)?.len() == CURSORS_MAX => {
            let why = format!("there are {CURSORS_MAX} cursors already; remove some that nobody uses");
            return Err(Refusal::Invalid(why));
        }
        None => {}
    }
    let (account, cursor, by) = (c.account.clone(), c.cursor.clone(), c.by.clone());
    Ok(Decision::done(CursorSet { account, cursor, seq: c.seq, by }))
}

pub fn remove_cursor(c: &RemoveCursor, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = access::cursor(rows, c.account.as_ref(), &c.cursor).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Cursor(c.cursor.to_string())))?;
    Ok(Decision::done(CursorRemoved { account: row.account, cursor: row.cursor, by: c.by.clone() }))
}

/// Takes away what programs have of an account that is being removed; there is never more than one command may touch.
pub fn remove_all(account: &AccountName, by: &Author, rows: &dyn Rows, decision: &mut Decision) -> Result<(), Error> {
    for row in access::keys_of(rows, Some(account), KEYS_MAX)? {
        revoke(&row, by, decision);
    }
    for row in access::cursors(rows, Some(account), CURSORS_MAX)? {
        let removed = CursorRemoved { account: row.account, cursor: row.cursor, by: by.clone() };
        decision.events.push(removed.into());
    }
    Ok(())
}

fn revoke(row: &KeyRow, by: &Author, decision: &mut Decision) {
    let revoked = KeyRevoked { key: row.key, account: row.account.clone(), by: by.clone() };
    decision.events.push(Event::from(revoked));
    decision.forget_secrets.push(row.hash.id);
}

fn owner(name: Option<&AccountName>, rows: &dyn Rows) -> Result<(), Refusal> {
    name.map_or(Ok(()), |name| account::live(rows, name).map(drop))
}

fn check(c: &AddKey, moment: Moment) -> Result<(), Refusal> {
    let chars = c.label.chars().count();
    let why = if chars == 0 || chars > LABEL_CHARS_MAX || c.label.chars().any(char::is_control) {
        format!("a label has 1 to {LABEL_CHARS_MAX} characters and no control characters")
    } else if c.scopes.is_empty() {
        "a key without any scope is good for nothing; name at least one".to_owned()
    } else if c.networks.len() > NETWORKS_MAX {
        format!("a key is for at most {NETWORKS_MAX} networks")
    } else if c.networks.iter().any(|n| Network::new(n.address, n.bits).is_none()) {
        "a network has no more bits than its addresses, and nothing set behind them".to_owned()
    } else if c.expires.is_some_and(|expires| expires <= moment.now) {
        "a key cannot be over before it is given out".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(why))
}

/// A place that is no record of this branch may be one of another, and would pass over what this one has instead.
fn check_place(seq: Seq, rows: &dyn Rows, moment: Moment) -> Result<(), Refusal> {
    // The decision's own record is not there yet.
    let position = Seq(moment.next.0.saturating_sub(1));
    let last_common = accounts::last_common(rows, seq, position).map_err(damaged)?;
    last_common.map_or(Ok(()), |last_common| Err(Refusal::CutOff { seq, last_common }))
}

#[cfg(test)]
mod tests {

    use postledger_events::fact::access::Scope;
    use postledger_events::fact::account::{AccountConfigured, AccountSettings};
    use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
    use postledger_events::id::{CursorName, Fingerprint, JobId, SecretId, SecretRef, Sha256};
    use postledger_events::time::Timestamp;
    use postledger_events::{Command, Record};
    use postledger_projections::{Memory, fold};

    use super::*;
    use crate::decide::decide;

    struct Ledger {
        rows: Memory,
        last: Seq,
        now: Timestamp,
    }

    impl Ledger {
        /// One with account `a`.
        fn new() -> Ledger {
            let mut ledger = Ledger { rows: Memory::default(), last: Seq(0), now: Timestamp::from_secs(1000) };
            let configured = AccountConfigured {
                account: name("a"),
                settings: AccountSettings::default(),
                by: Author::program(),
                personal: None,
            };
            ledger.append(configured.into());
            ledger
        }

        fn append(&mut self, event: Event) {
            self.last = match &event {
                Event::LedgerBranched(branched) => branched.next_seq,
                _ => self.last.next(),
            };
            let record = Record { seq: self.last, at: self.now, prev: Sha256::ZERO, event };
            fold(&record, &mut self.rows).unwrap();
        }

        fn tell(&mut self, command: Command) -> Result<Decision, Refusal> {
            let moment = Moment { now: self.now, next: self.last.next() };
            let decision = decide(&command, &self.rows, &Policy::plain(), moment)?;
            decision.events.iter().for_each(|event| self.append(event.clone()));
            Ok(decision)
        }
    }

    fn name(s: &str) -> AccountName {
        AccountName::new(s).unwrap()
    }

    fn hash(n: u8) -> SecretRef {
        SecretRef { id: SecretId(uuid::Uuid::from_bytes([n; 16])), fingerprint: Fingerprint([n; 8]) }
    }

    fn key() -> AddKey {
        AddKey {
            account: Some(name("a")),
            label: "the shop's".to_owned(),
            scopes: vec![Scope::Read, Scope::Send, Scope::Read],
            hash: hash(1),
            expires: None,
            networks: Vec::new(),
            by: Author::program(),
        }
    }

    fn cursor(owner: Option<&str>, cursor: &str, seq: u64) -> Command {
        let (account, cursor) = (owner.map(name), CursorName::new(cursor).unwrap());
        Command::SetCursor(SetCursor { account, cursor, seq: Seq(seq), by: Author::program() })
    }

    #[test]
    fn keys_that_make_no_sense_are_refused() {
        let mut ledger = Ledger::new();
        let mut check = |c: AddKey, expect: &str| {
            let refused = ledger.tell(Command::AddKey(c)).unwrap_err().to_string();
            assert!(refused.contains(expect), "{refused}");
        };
        check(AddKey { account: Some(name("b")), ..key() }, "there is no account b");
        check(AddKey { label: String::new(), ..key() }, "a label has");
        check(AddKey { label: "a\nb".to_owned(), ..key() }, "a label has");
        check(AddKey { label: "x".repeat(101), ..key() }, "a label has");
        check(AddKey { scopes: Vec::new(), ..key() }, "scope");
        check(AddKey { expires: Some(Timestamp::from_secs(1000)), ..key() }, "over");
        let network = Network { address: "192.0.2.1".parse().unwrap(), bits: 24 };
        check(AddKey { networks: vec![network], ..key() }, "bits");
        check(AddKey { networks: vec!["::/0".parse().unwrap(); 33], ..key() }, "32 networks");
    }

    #[test]
    fn an_account_has_so_many_keys_and_no_more() {
        let mut ledger = Ledger::new();
        for n in 1..=KEYS_MAX as u64 {
            let Answer::Key(given) = ledger.tell(Command::AddKey(key())).unwrap().answer else { panic!() };
            assert_eq!(given, KeyId(n));
        }
        let refused = ledger.tell(Command::AddKey(key())).unwrap_err();
        assert!(refused.to_string().contains("100 keys"), "{refused}");
        ledger.tell(Command::AddKey(AddKey { account: None, ..key() })).unwrap();
        let revoked = ledger.tell(Command::RevokeKey(RevokeKey { key: KeyId(5), by: Author::program() })).unwrap();
        assert_eq!(revoked.forget_secrets, [hash(1).id]);
        ledger.tell(Command::AddKey(key())).unwrap();
        ledger.tell(Command::RevokeKey(RevokeKey { key: KeyId(5), by: Author::program() })).unwrap_err();
    }

    #[test]
    fn a_use_is_recorded_once_in_a_while() {
        let mut ledger = Ledger::new();
        ledger.tell(Command::AddKey(key())).unwrap();
        let mut used = |s: u64, key: u64| {
            ledger.now = Timestamp::from_secs(1000) + Duration::from_secs(s);
            let client = "192.0.2.1".parse().unwrap();
            ledger.tell(Command::UseKey(UseKey { key: KeyId(key), client })).unwrap().events.len()
        };
        assert_eq!([used(0, 1), used(1, 1), used(599, 1), used(600, 1), used(601, 1)], [1, 0, 0, 1, 0]);
        assert_eq!(used(0, 9), 0);
    }

    #[test]
    fn cursors_move_both_ways_within_the_log() {
        let mut ledger = Ledger::new();
        let numbers = LastNumbers { key: KeyId(40), ..LastNumbers::NONE };
        let (from_seq, from_hash, next_seq, by) = (Seq(1), Sha256::ZERO, Seq(20), Author::program());
        let (job, reason) = (JobId(1), String::new());
        ledger.append(LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }.into());
        let cut = |seq, common| Refusal::CutOff { seq: Seq(seq), last_common: Seq(common) };
        let mut check = |seq: u64, expect: Result<usize, Refusal>| {
            assert_eq!(ledger.tell(cursor(Some("a"), "x", seq)).map(|d| d.events.len()), expect, "{seq}");
        };
        check(0, Ok(1));
        check(1, Ok(1));
        check(2, Err(cut(2, 1)));
        check(19, Err(cut(19, 1)));
        check(20, Ok(1));
        check(20, Ok(0));
        check(24, Err(cut(24, 0)));
        check(1, Ok(1));
        let Answer::Key(given) = ledger.tell(Command::AddKey(key())).unwrap().answer else { panic!() };
        assert_eq!(given, KeyId(41), "the other branch may have given out the numbers before");
    }

    #[test]
    fn an_account_has_so_many_cursors_and_no_more() {
        let mut ledger = Ledger::new();
        for n in 0..CURSORS_MAX {
            ledger.tell(cursor(Some("a"), &format!("c{n}"), 1)).unwrap();
        }
        assert!(ledger.tell(cursor(Some("a"), "more", 1)).unwrap_err().to_string().contains("100 cursors"));
        ledger.tell(cursor(Some("a"), "c7", 2)).unwrap();
        ledger.tell(cursor(None, "c7", 2)).unwrap();
        ledger.tell(cursor(Some("b"), "c7", 2)).unwrap_err();
    }

    #[test]
    fn keys_and_cursors_go_with_their_account() {
        let mut ledger = Ledger::new();
        ledger.tell(Command::AddKey(key())).unwrap();
        ledger.tell(Command::AddKey(AddKey { account: None, hash: hash(2), ..key() })).unwrap();
        ledger.tell(cursor(Some("a"), "x", 1)).unwrap();
        let by = Author::program();
        ledger
            .tell(Command::RemoveAccount(postledger_events::command::RemoveAccount { account: name("a"), by }))
            .unwrap();
        assert!(matches!(ledger.tell(Command::AddKey(key())), Err(Refusal::AccountGoing(_))));
        let advance = || Command::AdvanceJob(postledger_events::command::AdvanceJob { job: JobId(1) });
        let mut forgotten = Vec::new();
        while let Ok(decision) = ledger.tell(advance()) {
            forgotten.extend(decision.forget_secrets);
        }
        assert_eq!(forgotten, [hash(1).id]);
        assert_eq!(access::keys(&ledger.rows, KeyId(0), 10).unwrap().len(), 1);
        assert_eq!(access::cursors(&ledger.rows, Some(&name("a")), 10).unwrap(), []);
    }
}
