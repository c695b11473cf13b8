//! Jobs: what was asked for and touches too much to be done at once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use postledger_events::fact::job::Work;
use postledger_events::id::JobId;
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer as Ended, Refusal};
use postledger_projections::accounts::{self, JobRow};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Path, read};
use super::problem::Problem;
use crate::openapi::{Answer, Content, Describe, Operation, Output, Schemas, Table};
use crate::{Port, Site};

/// A job, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Job {
    pub job: JobId,
    pub work: Kind,
    pub by: String,
    pub started: Timestamp,
    /// Rows it changed so far.
    pub affected: u64,
    pub finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "JobKind")]
pub enum Kind {
    ApplyHoldRule,
    HoldRestored,
    Queue,
    RemoveAccount,
    Calls,
    RemoveEndpoint,
}

/// What a change answers: how many deliveries it changed, or the job that goes on changing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(example = r#"{"affected": 3}"#)]
pub enum Started {
    Affected(u64),
    Job(JobId),
}

impl Started {
    pub fn of(answer: Ended) -> Result<Started, Problem> {
        match answer {
            Ended::Job(job) => Ok(Started::Job(job)),
            Ended::Affected(n) => Ok(Started::Affected(n)),
            other => Err(unexpected(&other)),
        }
    }
}

impl IntoResponse for Started {
    fn into_response(self) -> Response {
        let status = match self {
            Started::Affected(_) => StatusCode::OK,
            Started::Job(_) => StatusCode::ACCEPTED,
        };
        (status, Json(self)).into_response()
    }
}

impl Output for Started {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let mut content = || Content::json(schemas.of::<Started>());
        let done = Answer::new("200", "Done: how much was changed.").with(content());
        let job = Content { example: Some(serde_json::json!({"job": 1})), ..content() };
        operation.answers.extend([done, Answer::new("202", "A job does it; ask for its progress.").with(job)]);
    }
}

/// An answer that the command cannot have.
pub fn unexpected(answer: &Ended) -> Problem {
    Problem::internal(format!("the change was made, but answered {answer:?}"))
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Jobs", "What was asked for and touches too much to be done at once.")
        .get("/jobs/{job}", "Show a job", show::<P>)
        .more("An account's login sees the jobs that it started.")
}

/// An account's login sees the jobs that it started.
async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(id): Path<JobId>,
) -> Result<Json<Job>, Problem> {
    let row = read(&site, move |view| Ok(accounts::job(view, id)?)).await?;
    let row = row.filter(|row| caller.confined().is_none() || row.by == caller.author());
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Job(id.to_string())))?;
    Ok(Json(job_of(row)))
}

fn job_of(row: JobRow) -> Job {
    let work = match row.work {
        Work::ApplyHoldRule(..) => Kind::ApplyHoldRule,
        Work::HoldRestored(_) => Kind::HoldRestored,
        Work::Queue(..) => Kind::Queue,
        Work::RemoveAccount(_) => Kind::RemoveAccount,
        Work::Calls(..) => Kind::Calls,
        Work::RemoveEndpoint(..) => Kind::RemoveEndpoint,
    };
    let JobRow { job, by, started, affected, finished, .. } = row;
    Job { job, work, by: by.0, started, affected, finished }
}
