//! `job`: what was asked for and touches too much to be done at once.

use clap::Args;
use postledger_events::id::JobId;
use postledger_web::api::jobs::{self, Kind, Started};

use super::Session;
use super::error::Error;
use super::out::{second, yes_no};
use super::query::Query;

/// Show how far a job has come
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Job {
    job: JobId,
}

const EXAMPLES: &str = "\
Examples:
  postledger job 120311    the number is what `queue`, `holdrule` and others print when they start one";

impl Job {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        let j: jobs::Job = session.client.get(Query::path(&["jobs", &self.job.to_string()])).await?;
        let work = match j.work {
            Kind::ApplyHoldRule => "puts on hold what a new rule is about",
            Kind::HoldRestored => "puts on hold what may have been sent before the ledger was restored",
            Kind::Queue => "changes deliveries",
            Kind::RemoveAccount => "removes an account",
            Kind::Calls => "changes calls",
            Kind::RemoveEndpoint => "removes an endpoint",
        };
        session.out.one(
            &j,
            [
                ("Job", j.job.to_string()),
                ("Work", work.to_owned()),
                ("Started", format!("{} by {}", second(j.started), j.by)),
                ("Changed so far", j.affected.to_string()),
                ("Finished", yes_no(j.finished)),
            ],
        )
    }
}

/// Tells what a change led to.
pub fn started(session: &mut Session, started: Started) -> Result<(), Error> {
    let said = match started {
        Started::Affected(1) => "1 changed".to_owned(),
        Started::Affected(n) => format!("{n} changed"),
        Started::Job(job) => format!("job {job} does it while the server runs; see `postledger job {job}`"),
    };
    session.out.done(&started, said)
}
