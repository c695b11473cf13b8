//! When a delivery is tried again.

use std::time::Duration;

use postledger_events::fact::account::RetrySchedule;
use postledger_events::time::Timestamp;
use postledger_projections::accounts::AccountRow;

use super::Policy;

/// The first wait of the contract's schedule, which its spread of -5 to 4 seconds belongs to.
const SPREAD_OF_S: i64 = 450;

/// The schedule in force for an account.
pub fn schedule<'a>(account: Option<&'a AccountRow>, policy: &'a Policy) -> &'a RetrySchedule {
    account.and_then(|a| a.settings.retry.as_ref()).unwrap_or(&policy.retry)
}

/// When attempt `number` + 1 is due, or `None` if `number` was the last. The spread grows with the wait.
pub fn next(schedule: &RetrySchedule, scale: u32, number: u32, started: Timestamp, jitter_s: i8) -> Option<Timestamp> {
    let wait_s = i64::from(*schedule.waits_s.get(usize::try_from(number).ok()?.checked_sub(1)?)?);
    let spread_ms = i64::from(jitter_s) * 1000 * wait_s / SPREAD_OF_S;
    let wait_ms = (wait_s * 1000 + spread_ms).max(0) / i64::from(scale.max(1));
    Some(started + Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_schedule() {
        let schedule = RetrySchedule::contract();
        let wait = |number, jitter, scale| {
            next(&schedule, scale, number, Timestamp::EPOCH, jitter).map(|t| t.as_nanos() / 1_000_000)
        };
        assert_eq!(wait(1, 0, 1), Some(450_000));
        assert_eq!(wait(1, -5, 1), Some(445_000));
        assert_eq!(wait(2, 4, 1), Some(908_000), "the spread doubles with the wait");
        assert_eq!(wait(7, 0, 1), Some(8 * 3_600_000));
        assert_eq!(wait(8, 0, 1), None, "the eighth attempt is the last");
        assert_eq!(wait(1, 0, 100), Some(4_500));
    }
}
