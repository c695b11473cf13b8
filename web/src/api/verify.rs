//! Verifies the ledger while the server runs, and tells how far it is.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::stream;
use postledger_events::id::Seq;
use serde::{Deserialize, Serialize};

use super::answer::Lines;
use super::extract::Query;
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// How to verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "VerifyWish")]
pub struct Wish {
    /// Also the hash of every body, and all rows against a replay of the log.
    pub full: bool,
    /// As fast as it goes, instead of at a small share of a processor.
    pub fast: bool,
}

/// A line of the answer. The last one is no `Progress`; an answer without such an end was broken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "VerifyLine")]
pub enum Line {
    Progress {
        done: Seq,
        end: Seq,
    },
    /// What was found: the program's own report.
    Report(serde_json::Value),
    Failed(String),
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Ledger", "The whole ledger, for backups and to be verified.")
        .post("/verify", "Verify the ledger, and be told how far it is", verify::<P>)
        .more("It ends early if whoever asked goes away. An answer whose last line is one of progress was broken off.")
}

/// It ends early if whoever asked goes away.
async fn verify<P: Port>(State(site): State<Arc<Site<P>>>, Query(wish): Query<Wish>) -> Result<Lines<Line>, Problem> {
    let lines = site.port.verify(wish).ok_or_else(|| {
        Problem::conflict(
            "the ledger is being verified already; wait until that is over, or look at `postledger status`",
        )
    })?;
    let pieces = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        let mut bytes = serde_json::to_vec(&line).expect("lines have string keys only");
        bytes.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), lines))
    });
    Ok(Lines::new(Body::from_stream(pieces)))
}
