//! How endpoints do, and what calls came to since the start, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postledger_projections::{Error, Rows, calls};

/// Upper ends of the classes of durations, in milliseconds.
pub const BOUNDS_MS: [u64; 9] = [1, 5, 25, 100, 500, 1000, 5000, 20_000, 60_000];

#[derive(Debug, Default)]
pub struct Metrics {
    delivered: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    took_us: AtomicU64,
    /// One more than bounds: what is longer than the last.
    classes: [AtomicU64; BOUNDS_MS.len() + 1],
}

/// The figures of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Answered with 2xx.
    pub delivered: u64,
    /// Answered otherwise.
    pub refused: u64,
    pub unanswered: u64,
    pub seconds: f64,
    /// Each with its upper end in seconds, not added up.
    pub classes: [(f64, u64); BOUNDS_MS.len() + 1],
}

impl Metrics {
    /// A POST that was answered with this status, or not at all.
    pub fn count(&self, status: Option<u16>, took: Duration) {
        let counter = match status {
            Some(200..300) => &self.delivered,
            Some(_) => &self.refused,
            None => &self.unanswered,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.took_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), Ordering::Relaxed);
        let class = BOUNDS_MS.iter().position(|ms| took <= Duration::from_millis(*ms)).unwrap_or(BOUNDS_MS.len());
        self.classes[class].fetch_add(1, Ordering::Relaxed);
    }

    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let end = |n: usize| BOUNDS_MS.get(n).map_or(f64::MAX, |ms| Duration::from_millis(*ms).as_secs_f64());
        Figures {
            delivered: read(&self.delivered),
            refused: read(&self.refused),
            unanswered: read(&self.unanswered),
            seconds: Duration::from_micros(read(&self.took_us)).as_secs_f64(),
            classes: std::array::from_fn(|n| (end(n), read(&self.classes[n]))),
        }
    }
}

/// How many endpoints there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub working: u64,
    /// Only probes are made.
    pub failing: u64,
    /// By the program or by a person.
    pub disabled: u64,
}

impl Endpoints {
    pub fn count(rows: &impl Rows) -> Result<Endpoints, Error> {
        let mut counted = Endpoints::default();
        for row in calls::all_endpoints(rows)?.iter().filter(|row| row.removing.is_none()) {
            let state = calls::state(rows, &row.account, &row.endpoint)?;
            let counter = match (calls::is_enabled(row, &state), state.failing) {
                (false, _) => &mut counted.disabled,
                (true, Some(_)) => &mut counted.failing,
                (true, None) => &mut counted.working,
            };
            *counter += 1;
        }
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_they_came_to() {
        let metrics = Metrics::default();
        for (status, ms) in [(Some(200), 1), (Some(204), 2), (Some(301), 30), (Some(500), 70_000), (None, 60_000)] {
            metrics.count(status, Duration::from_millis(ms));
        }
        let figures = metrics.figures();
        assert_eq!((figures.delivered, figures.refused, figures.unanswered), (2, 2, 1));
        assert_eq!(figures.classes.map(|(_, count)| count), [1, 1, 0, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(figures.seconds, 130.033);
    }
}
