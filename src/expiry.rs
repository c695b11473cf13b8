//! Reactor: has the ledger forget what was kept long enough.

use std::time::Duration;

use postledger_events::command::Expire;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Ledger;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// How much later than a delivery's end its record may come: what has no keep period at all ends with the delivery.
const RECORD_DELAY_MAX: Duration = Duration::from_secs(600);

/// Runs until `stop`.
pub async fn run(ledger: Ledger, clock: Clock, stop: CancellationToken) {
    // What was forgotten leaves a field of tombstones behind, which later looks need not cross.
    let mut from = Timestamp::EPOCH;
    loop {
        let looked = clock.now();
        if drain(&ledger, from, &stop).await {
            from = looked - RECORD_DELAY_MAX;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Whether all that is over was forgotten.
async fn drain(ledger: &Ledger, from: Timestamp, stop: &CancellationToken) -> bool {
    while !stop.is_cancelled() {
        match ledger.submit(Command::Expire(Expire { from })).await.map(|c| c.answer) {
            Ok(Answer::More(true)) => {}
            Ok(_) => return true,
            Err(e) => {
                tracing::error!("what is over cannot be forgotten: {e}");
                return false;
            }
        }
    }
    false
}
