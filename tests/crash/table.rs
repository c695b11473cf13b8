//! The one table of all campaigns. It grows with each that has ended, and is printed each time.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::account::Verdict;
use super::scale::Scale;

/// Of findings that are printed, each kind.
const FINDINGS_MAX: usize = 20;

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub campaign: &'static str,
    pub rounds: u64,
    pub verdict: Verdict,
    pub damage: Option<Damage>,
    /// From the start of the process until its port accepts.
    pub recovery: Vec<Duration>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// What became of damage to files.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// The start or `verify --full` said so.
    pub found: u64,
    /// Neither did, and something reads back different or not at all.
    pub missed: Vec<String>,
    /// Everything reads back as it was.
    pub harmless: u64,
}

impl Row {
    pub fn new(campaign: &'static str) -> Row {
        Row { campaign, ..Row::default() }
    }

    pub fn add(&mut self, verdict: Verdict) {
        self.verdict.acknowledged += verdict.acknowledged;
        self.verdict.lost.extend(verdict.lost);
        self.verdict.duplicated.extend(verdict.duplicated);
        self.verdict.phantom.extend(verdict.phantom);
    }

    /// Enters it into the table, and fails if anything was lost, doubled, made up or missed.
    pub fn settle(self, seed: u64) {
        let wrong = self.findings();
        enter(self.clone());
        assert!(wrong.is_empty(), "{}, seed {seed}:\n{wrong}", self.campaign);
    }

    /// Enters the control into the table, and fails if nothing was lost: then the others prove nothing.
    pub fn settle_control(self) {
        let lost = self.verdict.lost.len();
        enter(self.clone());
        assert!(lost > 0, "{}: without syncing nothing was lost, so this proves nothing", self.campaign);
        println!("{}: rightly says, among others: {}", self.campaign, self.verdict.lost[0]);
    }

    fn findings(&self) -> String {
        let Verdict { lost, duplicated, phantom, .. } = &self.verdict;
        let missed = self.damage.as_ref().map(|d| d.missed.as_slice()).unwrap_or_default();
        let mut text = String::new();
        for (kind, found) in [("lost", &lost[..]), ("duplicated", duplicated), ("phantom", phantom), ("missed", missed)]
        {
            for finding in found.iter().take(FINDINGS_MAX) {
                let _ = writeln!(text, "{kind}: {finding}");
            }
        }
        text
    }

    fn cells(&self) -> Vec<String> {
        let Verdict { acknowledged, lost, duplicated, phantom } = &self.verdict;
        let damage = self.damage.as_ref().map_or("-".to_owned(), |d| {
            let Damage { found, missed, harmless } = d;
            format!("{found}/{}/{harmless}", missed.len())
        });
        let counts = [*acknowledged, lost.len() as u64, duplicated.len() as u64, phantom.len() as u64];
        let names = [self.campaign.to_owned(), self.rounds.to_string()];
        let counts = counts.map(|n| n.to_string());
        names.into_iter().chain(counts).chain([damage, self.recovery_time()]).collect()
    }

    fn recovery_time(&self) -> String {
        let mut sorted = self.recovery.clone();
        sorted.sort_unstable();
        let percentile = |n: usize| sorted.get((sorted.len() * n / 100).min(sorted.len().saturating_sub(1)));
        match (percentile(50), percentile(99)) {
            (Some(p50), Some(p99)) => format!("{}/{} ms", p50.as_millis(), p99.as_millis()),
            _ => "-".to_owned(),
        }
    }
}

/// A test that cannot run says so where it is seen, also when the test passes; in a full run it fails.
pub fn skip(campaign: &str, why: &str) {
    // Not `eprintln`, which a passing test keeps to itself. Nothing can be done if nobody listens.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {campaign}: {why}");
    assert_eq!(Scale::of_this_run(), Scale::Short, "{campaign} cannot run here: {why}");
}

fn enter(row: Row) {
    static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());
    // A campaign that failed stands in the table, too.
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    rows.push(row);
    println!("\n{}", text(&rows));
}

fn text(rows: &[Row]) -> String {
    let columns = ["campaign", "rounds", "acknowledged", "lost", "duplicated", "phantom"].map(str::to_owned);
    let more = ["damage found/missed/harmless", "recovery p50/p99"].map(str::to_owned);
    let head: Vec<String> = columns.into_iter().chain(more).collect();
    let cells: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |n: usize| cells.iter().map(|line| line[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    let mut text = String::new();
    for (n, line) in cells.iter().enumerate() {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        let _ = writeln!(text, "|{}|", padded.collect::<Vec<_>>().join("|"));
        if n == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(text, "|{}|", rule.join("|"));
        }
    }
    for row in rows {
        row.notes.iter().for_each(|note| _ = writeln!(text, "{}: {note}", row.campaign));
    }
    text
}

#[test]
fn a_row_tells_all_and_fails_for_any_finding() {
    let recovery = (1..=100).map(Duration::from_millis).collect();
    let damage = Some(Damage { found: 7, missed: vec!["a row".to_owned()], harmless: 2 });
    let mut row = Row { campaign: "x", rounds: 3, damage, recovery, ..Row::default() };
    row.add(Verdict { acknowledged: 9, phantom: vec!["a ghost".to_owned()], ..Verdict::default() });
    assert_eq!(row.cells(), ["x", "3", "9", "0", "0", "1", "7/1/2", "51/100 ms"]);
    assert_eq!(row.findings(), "phantom: a ghost\nmissed: a row\n");
    assert_eq!(Row::new("y").findings(), "");
    assert_eq!(text(&[]).lines().count(), 2);
}
