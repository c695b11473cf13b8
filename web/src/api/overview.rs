//! How the ledger is doing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::id::Seq;
use postledger_projections::PROJECTIONS;
use postledger_projections::tally::{Tally, tally};
use serde::{Deserialize, Serialize};

use super::extract::read;
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::port::Verified;
use crate::{Port, Site};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Overview {
    /// The program's.
    pub version: String,
    pub accepting: bool,
    /// Why nothing is accepted.
    pub stopped: Option<String>,
    /// The last record.
    pub position: Seq,
    pub tally: Tally,
    pub projections: Vec<Projection>,
    pub warnings: Vec<String>,
    /// The last round over the whole ledger; `null` before the first.
    pub verified: Option<Verified>,
    /// Of the disk that the ledger is on.
    pub free_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Projection {
    pub name: String,
    pub version: u32,
    /// While it is being rebuilt: the record up to which it is complete.
    pub as_of: Option<Seq>,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Status", "How the ledger is doing.").get("/status", "Show how the ledger is doing", show::<P>)
}

async fn show<P: Port>(State(site): State<Arc<Site<P>>>) -> Result<Json<Overview>, Problem> {
    let status = site.port.status();
    let tally = read(&site, |view| Ok(tally(view)?)).await?;
    let as_of = |name: &str| status.lagging.iter().find(|(lagging, _)| lagging == name).map(|(_, seq)| *seq);
    let projections = PROJECTIONS.iter();
    let projections =
        projections.map(|p| Projection { name: p.name.to_owned(), version: p.version, as_of: as_of(p.name) }).collect();
    Ok(Json(Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        accepting: status.accepting.is_ok(),
        stopped: status.accepting.err(),
        position: status.position,
        tally,
        projections,
        warnings: status.warnings,
        verified: status.verified,
        free_bytes: status.free_bytes,
    }))
}
