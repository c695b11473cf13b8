//! The whole ledger, for backups: records with their contents, and, for people at this machine, a copy of the vault.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use postledger_events::id::{Seq, Sha256};
use serde::Deserialize;

use super::answer::Lines;
use super::caller::Caller;
use super::extract::{Query, read};
use super::problem::Problem;
use crate::openapi::{Answer, Content, Describe, Operation, Output, Schema, Schemas, Table};
use crate::port::{ExportError, View};
use crate::{Port, Site};

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// The record to go on from.
    #[serde(default)]
    after: Seq,
    /// Of that record's line: makes sure that it is the one that the caller has.
    hash: Option<Sha256>,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Ledger", "The whole ledger, for backups and to be verified.")
        .get("/ledger/export", "Get all records with their contents", export::<P>)
        .more("All of one moment. A fault is told in the last line, since the answer has begun by then.")
        .get("/ledger/vault", "Get a copy of the vault", vault::<P>)
        .more("On the control socket only: never over the network, whoever asks.")
}

/// All of one moment. A fault is told in the last line, since the answer has begun by then.
async fn export<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Query(begin): Query<Begin>,
) -> Result<Lines<serde_json::Value>, Problem> {
    let pieces = read(&site, move |view| Ok(view.export(begin.after, begin.hash)?)).await?;
    // One piece at a time: what the client does not take is not read, and no thread waits for it.
    let pieces = stream::try_unfold(pieces, |mut pieces| async move {
        let next = tokio::task::spawn_blocking(move || pieces.next().map(|piece| (piece, pieces)));
        next.await.map_err(io::Error::other)
    });
    Ok(Lines::new(Body::from_stream(pieces)))
}

/// Never over the network, whoever asks.
async fn vault<P: Port>(State(site): State<Arc<Site<P>>>, caller: Caller) -> Result<Vault, Problem> {
    match caller {
        Caller::Local(_) => {}
        Caller::Admin | Caller::Key(_) | Caller::Account(_) => {
            return Err(Problem::forbidden("secrets leave by the control socket only: `postledger backup-vault`"));
        }
    }
    read(&site, |view| view.vault().map_err(Problem::internal)).await.map(Vault)
}

/// The vault's bytes, which nobody on the way may keep.
struct Vault(Bytes);

impl IntoResponse for Vault {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], self.0).into_response()
    }
}

impl Output for Vault {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        let content = Content::json(Schema::object(false, []));
        operation.answers.push(Answer::new("200", "The vault.").with(content));
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Problem {
        match error {
            ExportError::CutOff { after, last_common } => Problem::cut_off(after, last_common),
            ExportError::Failed(why) => Problem::internal(why),
        }
    }
}
