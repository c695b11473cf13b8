//! A round over the whole ledger once a day, beside the work: everything that `verify --full` looks at, at a small share of a
//! processor. What it finds is told at once, and not when somebody needs it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use postledger_events::id::Seq;
use postledger_events::time::Timestamp;

use super::pace::Pace;
use super::verify::{self, Report};
use super::writer::Message;
use super::{Program, Shared};
use crate::clock::Clock;

/// Of one processor, in percent.
const SHARE_PERCENT: u32 = 10;
/// A server that starts has other things to do first.
const REST_AT_START: Duration = Duration::from_secs(60);
/// After a round that could not be made.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(3600);
/// How often it is asked whether it is time.
const LOOK: Duration = Duration::from_secs(1);
/// Characters of a finding that are kept.
const FINDING_CHARS_MAX: usize = 300;

/// How the last round ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    pub ended: Timestamp,
    pub took_s: u64,
    pub records: u64,
    pub bodies: u64,
    /// Contents of messages and single secrets that are missing or not what they were.
    pub bodies_damaged: u64,
    /// All that is wrong with log, rows and the vault as a whole; the ledger stopped if there was any.
    pub damage: u64,
    /// One of the findings.
    pub first: Option<String>,
}

impl Round {
    fn is_clean(&self) -> bool {
        self.damage == 0 && self.bodies_damaged == 0
    }

    fn of(report: &Report, began: Timestamp, ended: Timestamp) -> Round {
        let worst = report.findings.iter().find(|f| !f.about.is_alone()).or(report.findings.first());
        Round {
            ended,
            took_s: ended.since(began).as_secs(),
            records: report.records,
            bodies: report.bodies,
            bodies_damaged: report.alone_total,
            damage: report.damage_total(),
            first: worst.map(|finding| finding.text.chars().take(FINDING_CHARS_MAX).collect()),
        }
    }
}

/// What makes the rounds.
pub(super) struct Rounds {
    pub(super) shared: Arc<Shared>,
    pub(super) program: Program,
    pub(super) started: Timestamp,
    pub(super) clock: Clock,
    /// From the end of one to the begin of the next.
    pub(super) every: Duration,
    pub(super) writer: mpsc::WeakSender<Message>,
}

impl Rounds {
    /// Works until the ledger goes.
    pub(super) fn run(self) {
        let mut not_before = self.started + REST_AT_START;
        while !self.is_over() {
            // What a round before the start had found may be mended: the next one is to say so soon.
            let last = self.shared.round().filter(|last| last.ended > self.started || last.is_clean());
            let due = last.map_or(not_before, |last| not_before.max(last.ended + self.every));
            if self.clock.now() >= due
                && let Err(e) = self.go_round()
            {
                tracing::error!("{e}");
                not_before = self.clock.now() + REST_AFTER_FAILURE;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    fn is_over(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire) || self.shared.stopped().is_some()
    }

    fn go_round(&self) -> Result<(), super::Error> {
        // Tables are being rebuilt, without which little is looked at, or somebody verifies it by hand; the next look is soon.
        if self.shared.snapshot().lagging().next().is_some() {
            return Ok(());
        }
        let Some(_turn) = self.shared.verifying() else { return Ok(()) };
        let began = self.clock.now();
        let stop = || self.is_over();
        let pace = Pace::share(self.clock.clone(), SHARE_PERCENT, &stop);
        let progress = &mut |done: Seq, _: Seq| self.shared.round_at.store(done.0, Ordering::Relaxed);
        let report = verify::beside(&self.shared, self.program, true, &pace, progress);
        self.shared.round_at.store(0, Ordering::Relaxed);
        if let Some(report) = report? {
            self.tell(&report, Round::of(&report, began, self.clock.now()));
        }
        Ok(())
    }

    fn tell(&self, report: &Report, round: Round) {
        let Round { took_s, records, bodies, bodies_damaged, damage, .. } = &round;
        for finding in &report.findings {
            tracing::error!("the ledger is damaged: {finding}");
        }
        tracing::info!(took_s, records, bodies, bodies_damaged, damage, "the ledger was verified");
        let first = round.first.clone().filter(|_| round.damage > 0);
        self.shared.round.store(Some(Arc::new(round.clone())));
        if let Some(writer) = self.writer.upgrade() {
            // If the ledger goes now, the next start makes a round soon.
            let _ = writer.blocking_send(Message::Round(round));
        }
        if let Some(finding) = first {
            self.shared.stop(format!("{finding}. Run `postledger verify --full`, then `postledger repair`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::About;
    use super::*;

    fn round(bodies: u64, rows: u64) -> (Report, Round) {
        let mut report = Report::default();
        (0..bodies).for_each(|n| report.find(About::Body, format!("body {n}")));
        (0..rows).for_each(|n| report.find(About::Rows, format!("row {n}")));
        let at = Timestamp::from_secs(1_800_000_000);
        let round = Round::of(&report, at, at);
        (report, round)
    }

    #[test]
    fn many_damaged_contents_are_no_damage_of_the_ledger() {
        let check = |bodies: u64, rows: u64, first: &str| {
            let (report, round) = round(bodies, rows);
            assert_eq!((round.bodies_damaged, round.damage), (bodies, rows));
            assert_eq!(round.first.as_deref(), Some(first), "{bodies} {rows}");
            assert_eq!(report.findings_total, bodies + rows);
        };
        check(1_001, 0, "body 0");
        check(5_000, 1, "row 0");
        check(1, 5_000, "row 0");
        assert_eq!(round(5_000, 5_000).0.findings.len(), 2_000, "the list has an end");
    }

    #[test]
    fn a_report_of_an_older_server_is_read() {
        let (report, _) = round(2, 0);
        let mut json = serde_json::to_value(&report).unwrap();
        json.as_object_mut().unwrap().remove("alone_total");
        let read: Report = serde_json::from_value(json).unwrap();
        assert_eq!((read.findings_total, read.findings), (2, report.findings));
    }
}
