//! The whole ledger, for backups: records with their contents, and, for people at this machine, a copy of the vault.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use postledger_events::id::{Seq, Sha256};
use serde::Deserialize;

use super::caller::Caller;
use super::extract::{Query, read};
use super::problem::Problem;
use crate::port::{ExportError, View};
use crate::{Port, Site};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// The record to go on from.
    #[serde(default)]
    after: Seq,
    /// Of that record's line: makes sure that it is the one that the caller has.
    hash: Option<Sha256>,
}

pub fn operator_routes<P: Port>() -> Router<Arc<Site<P>>> {
    Router::new().route("/ledger/export", get(export::<P>)).route("/ledger/vault", get(vault::<P>))
}

/// All of one moment. A fault is told in the last line, since the answer has begun by then.
async fn export<P: Port>(State(site): State<Arc<Site<P>>>, Query(begin): Query<Begin>) -> Result<Response, Problem> {
    let pieces = read(&site, move |view| Ok(view.export(begin.after, begin.hash)?)).await?;
    // One piece at a time: what the client does not take is not read, and no thread waits for it.
    let pieces = stream::try_unfold(pieces, |mut pieces| async move {
        let next = tokio::task::spawn_blocking(move || pieces.next().map(|piece| (piece, pieces)));
        next.await.map_err(io::Error::other)
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(pieces)).into_response())
}

/// Never over the network, whoever asks.
async fn vault<P: Port>(State(site): State<Arc<Site<P>>>, caller: Caller) -> Result<Response, Problem> {
    match caller {
        Caller::Local(_) => {}
        Caller::Admin | Caller::Key(_) | Caller::Account(_) => {
            return Err(Problem::forbidden("secrets leave by the control socket only: `postledger backup-vault`"));
        }
    }
    let copy = read(&site, |view| view.vault().map_err(Problem::internal)).await?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], copy).into_response())
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Problem {
        match error {
            ExportError::CutOff { after, last_common } => Problem::cut_off(after, last_common),
            ExportError::Failed(why) => Problem::internal(why),
        }
    }
}
