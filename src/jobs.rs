//! Reactor: walks the jobs that are recorded, one part after the other, until they are finished.

use std::time::Duration;

use postledger_events::command::AdvanceJob;
use postledger_events::{Answer, Command};
use postledger_projections::accounts;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;

/// The shortest time between two looks for jobs, however many records are written meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How long to wait before a job that waits for running attempts is looked at again.
const PAUSE: Duration = Duration::from_millis(250);

/// Runs until `stop`.
pub async fn run(ledger: Ledger, stop: CancellationToken) {
    let mut log = ledger.watch();
    loop {
        let waits = round(&ledger, &stop).await;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = log.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(PAUSE), if waits => {}
        }
        tokio::time::sleep(if waits { PAUSE } else { LOOK_PAUSE }).await;
    }
}

/// Takes every job as far as it goes now; answers whether some is not finished.
async fn round(ledger: &Ledger, stop: &CancellationToken) -> bool {
    let jobs = match accounts::jobs(&ledger.snapshot()) {
        Ok(jobs) => jobs,
        Err(e) => {
            tracing::error!("jobs cannot be read: {e}");
            return true;
        }
    };
    for job in &jobs {
        while !stop.is_cancelled() {
            match ledger.submit(Command::AdvanceJob(AdvanceJob { job: job.job })).await.map(|c| c.answer) {
                Ok(Answer::More(true)) => {}
                Ok(_) => break,
                Err(e) => {
                    tracing::error!(job = %job.job, "the job cannot go on: {e}");
                    break;
                }
            }
        }
    }
    !jobs.is_empty() && accounts::jobs(&ledger.snapshot()).is_ok_and(|jobs| !jobs.is_empty())
}
