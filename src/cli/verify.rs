//! `verify`: holds the log, the rows, the bodies and the books against each other.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::error::Error;
use super::out::Out;
use crate::ledger::Options;
use crate::ledger::verify::{Report, Scope, verify};

/// Verify the ledger: chain, gaps, watermark, bodies and the books; the server must not be running
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// Also the hash of every body, and all rows against a replay of the log
    #[arg(long)]
    full: bool,
    /// Take the end of the log as right although its watermark says otherwise or is missing
    #[arg(long)]
    accept_log_end: bool,
}

const EXAMPLES: &str = "\
Examples:
  postledger verify
  postledger verify --full --json

Exits with 1 if anything differs, and names the exact place.";

impl Verify {
    pub fn run(self, dir: &Path, mut out: Out) -> Result<ExitCode, Error> {
        let scope = Scope { full: self.full, accept_log_end: self.accept_log_end };
        let report =
            verify(&Options::new(dir), scope, &mut |done, end| eprintln!("verifying: record {done} of {end}"))?;
        if out.json {
            out.document(&report)?
        } else {
            out.text(&text(&report))?
        }
        out.finish()?;
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("records {} to {}: {} read", report.first, report.last, report.records)];
    lines.extend(report.hash.map(|hash| format!("hash of the last record: {hash}")));
    lines.push(format!("watermark: record {}", report.watermark));
    lines.push(format!("bodies: {}", report.bodies));
    if let Some(b) = &report.books {
        let open = b.queued + b.held + b.running;
        lines.push(format!(
            "recipients: {} accepted = {open} open + {} delivered + {} failed + {} suppressed + {} canceled + {} expired",
            b.tally.accepted, b.delivered, b.failed, b.suppressed, b.canceled, b.tally.expired
        ));
        lines.push(format!("attempts in doubt: {}", b.tally.in_doubt));
    }
    for table in &report.tables {
        lines.push(format!("{} v{}: {} rows, {}", table.projection, table.version, table.rows, table.digest));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.findings.iter().map(|finding| format!("DIFFERENCE: {finding}")));
    let shown = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    if report.findings_total > shown {
        lines.push(format!("and {} more differences", report.findings_total - shown));
    }
    lines.push(if report.is_clean() { "all is well".to_owned() } else { "NOT well".to_owned() });
    lines.join("\n") + "\n"
}
