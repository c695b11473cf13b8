//! `status`: how the ledger is doing.

use clap::Args;
use postledger_web::api::overview::Overview;
use postledger_web::port::Verified;

use super::Session;
use super::error::Error;
use super::out::second;
use super::query::Query;

/// Show how the ledger is doing: whether it accepts, what it counted, what is being rebuilt
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Status {}

const EXAMPLES: &str = "\
Examples:
  postledger status --dir /var/lib/postledger
  postledger status --json";

impl Status {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        let o: Overview = session.client.get(Query::path(&["status"])).await?;
        let t = o.tally;
        let rebuilding = o.projections.iter().filter_map(|p| Some(format!("{} as of record {}", p.name, p.as_of?)));
        let rebuilding: Vec<String> = rebuilding.collect();
        session.out.one(
            &o,
            [
                ("Version", o.version.clone()),
                ("Accepting", o.stopped.as_ref().map_or("yes".to_owned(), |why| format!("no: {why}"))),
                ("Last record", o.position.to_string()),
                ("Messages submitted", format!("{}, with {} recipients", t.messages, t.accepted)),
                ("Delivered", t.delivered.to_string()),
                ("Failed", t.failed.to_string()),
                ("Suppressed", t.suppressed.to_string()),
                ("Canceled", t.canceled.to_string()),
                ("Open", format!("{}, of these on hold: {}", t.open(), t.held)),
                ("Attempts in doubt", t.in_doubt.to_string()),
                ("Messages received", t.received.to_string()),
                ("Free on the disk", format!("{} MiB", o.free_bytes / (1024 * 1024))),
                ("Last verified", o.verified.as_ref().map_or("not yet".to_owned(), verified)),
                ("Look at", if o.warnings.is_empty() { "-".to_owned() } else { o.warnings.join("; ") }),
                ("Being rebuilt", if rebuilding.is_empty() { "-".to_owned() } else { rebuilding.join(", ") }),
            ],
        )
    }
}

fn verified(v: &Verified) -> String {
    let Verified { ended, took_s, records, bodies, findings } = v;
    let found = if *findings == 0 { "all well".to_owned() } else { format!("{findings} findings") };
    format!("{}, {records} records and {bodies} contents in {took_s} s: {found}", second(*ended))
}
