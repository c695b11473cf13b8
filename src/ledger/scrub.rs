//! Reads the log back while the ledger runs, slowly and some way behind its end, so that the next start has little to check.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use postledger_events::id::Seq;

use super::Shared;
use super::chain::{Chain, Damage};
use super::snapshot::Snapshot;
use super::store::Head;
use super::writer::Message;

/// What is read at once, and once a pause, at least and at most: from 3 % of a processor to a third. Between them it is this part of
/// what waits, so that a log that grows by 10,000 records a second leaves some 300,000 to the next start, which takes two seconds
/// for them.
const STEP_RECORDS: u64 = 5_000;
const STEP_RECORDS_MAX: u64 = 50_000;
const STEP_PART: u64 = 20;
const PAUSE: Duration = Duration::from_secs(1);
/// Records that are left alone, as the engine may have them in memory only, where reading proves nothing.
const BEHIND_RECORDS: u64 = 100_000;

/// Works until the ledger goes; damage stops it.
pub(super) fn run(shared: &Arc<Shared>, verified: Head, writer: &mpsc::WeakSender<Message>) {
    let mut chain = Chain::after(verified);
    while !shared.closing.load(Ordering::Acquire) {
        match step(&shared.snapshot(), BEHIND_RECORDS, &mut chain) {
            Ok(None) => {}
            Ok(Some(verified)) => {
                let Some(writer) = writer.upgrade() else { return };
                // The mark only saves time; the next step brings it again.
                let _ = writer.try_send(Message::Verified(verified));
            }
            Err(damage) => {
                shared.stop(format!("{damage}. Run `postledger verify`"));
                return;
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Checks the next records; `None` if there are none that are old enough.
fn step(snapshot: &Snapshot, behind: u64, chain: &mut Chain) -> Result<Option<Seq>, Damage> {
    let next = chain.next();
    let end = Seq(snapshot.position().0.saturating_sub(behind));
    // Too many where a branch begins, whose number is far above the one before; the log itself ends the reading.
    let waiting = end.0.saturating_sub(next.0);
    let records = (waiting / STEP_PART).clamp(STEP_RECORDS, STEP_RECORDS_MAX);
    let mut verified = None;
    for line in snapshot.records(next..=end).take(usize::try_from(records).unwrap_or(usize::MAX)) {
        let (seq, line) = line.map_err(|e| Damage::Unreadable { seq: chain.next(), why: e.to_string() })?;
        chain.read(seq, &line)?;
        verified = Some(seq);
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, closed, open, run};
    use super::*;

    #[test]
    fn it_goes_on_where_it_stopped_and_finds_what_does_not_fit() {
        let dir = closed();
        let ledger = open(dir.path());
        let mut chain = Chain::after(Head::NONE);
        let snapshot = ledger.snapshot();
        assert_eq!(step(&snapshot, 1_000, &mut chain), Ok(None));
        assert_eq!(step(&snapshot, 10, &mut chain), Ok(Some(Seq(31))));
        assert_eq!(step(&snapshot, 10, &mut chain), Ok(None));
        assert_eq!(step(&snapshot, 0, &mut chain), Ok(Some(Seq(41))));
        drop((snapshot, ledger));
        let dir = closed();
        let ledger = open(dir.path());
        let log = &ledger.snapshot().0.view.segments[0].keyspace;
        log.remove(20u64.to_be_bytes()).unwrap();
        run(ledger.submit(account("one-more", true))).unwrap();
        let (mut chain, snapshot) = (Chain::after(Head::NONE), ledger.snapshot());
        let gap = Damage::Gap { missing: Seq(20), found: Seq(21) };
        assert_eq!(step(&snapshot, 0, &mut chain), Err(gap));
    }
}
