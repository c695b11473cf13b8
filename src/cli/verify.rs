//! `verify`: holds the log, the rows, the bodies and the books against each other.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use axum::body::Body;
use axum::http::Method;
use clap::Args;
use futures_util::StreamExt;
use postledger_events::id::Seq;
use postledger_web::api::verify::Line;

use super::client::Client;
use super::error::Error;
use super::out::Out;
use super::query::Query;
use crate::ledger::Options;
use crate::ledger::verify::{Report, verify};

/// Bytes of one line of the server's answer.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Verify the ledger, also while the server runs: chain, gaps, watermark, bodies and the books
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// Also the hash of every body, and all rows against a replay of the log
    #[arg(long)]
    full: bool,
    /// Do not spare the server that runs on the directory
    #[arg(long)]
    fast: bool,
}

const EXAMPLES: &str = "\
Examples:
  postledger verify                beside the server, at a small share of a processor
  postledger verify --full --fast  everything, and soon
  postledger verify --full --json

Exits with 1 if anything differs, and names the exact place.";

impl Verify {
    pub fn run(self, dir: &Path, mut out: Out) -> Result<ExitCode, Error> {
        let report = self.report(dir)?;
        if out.json {
            out.document(&report)?
        } else {
            out.text(&text(&report))?
        }
        out.finish()?;
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn report(&self, dir: &Path) -> Result<Report, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        if let Some(server) = runtime.block_on(Client::of_server(dir))? {
            return runtime.block_on(self.ask(&server));
        }
        Ok(verify(&Options::new(dir), self.full, &mut show)?)
    }

    async fn ask(&self, server: &Client) -> Result<Report, Error> {
        let query = Query::path(&["verify"]).with("full", Some(self.full)).with("fast", Some(self.fast));
        let mut pieces = server.request(Method::POST, &query, Body::empty()).await?.into_body().into_data_stream();
        let mut rest = Vec::new();
        while let Some(piece) = pieces.next().await {
            rest.extend_from_slice(&piece.map_err(|e| Error::Broken(e.to_string()))?);
            while let Some(end) = rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(|e| Error::Answer(e.to_string()))? {
                    Line::Progress { done, end } => show(done, end),
                    Line::Report(report) => {
                        return serde_json::from_value(report).map_err(|e| Error::Answer(e.to_string()));
                    }
                    Line::Failed(why) => return Err(Error::Failed(why)),
                }
            }
            if rest.len() > LINE_BYTES_MAX {
                return Err(Error::Answer("a line has no end".to_owned()));
            }
        }
        Err(Error::Broken("it stopped before the end of the verification".to_owned()))
    }
}

/// Only for a person who waits.
fn show(done: Seq, end: Seq) {
    if std::io::stderr().is_terminal() {
        eprintln!("verifying: record {done} of {end}");
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
