//! Transports: where mail goes next.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::Command;
use postledger_events::command::RemoveTransport;
use postledger_events::fact::account::TransportTls;
use postledger_events::id::TransportName;
use postledger_projections::accounts::{self, TransportRow};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::port::NewTransport;
use crate::{Port, Site};

const CONNECTIONS_DEFAULT: u32 = 10;

/// A next hop, without its password. The one named `default` takes all mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Transport {
    pub transport: TransportName,
    pub host: String,
    pub port: u16,
    pub tls: TransportTls,
    /// `null`: no AUTH.
    pub username: Option<String>,
    pub connections_max: u32,
}

/// The whole of a next hop: what is not there is not kept from before, the password neither.
#[derive(Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(
    name = "TransportSettings",
    example = r#"{"host": "smtp.example.net", "port": 587, "tls": "starttls", "credentials": {"username": "us", "password": "secret"}}"#
)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub tls: TransportTls,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    #[serde(default = "connections_default")]
    pub connections_max: u32,
}

#[derive(Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Transports", "Where mail goes next.")
        .get("/transports", "List transports", list::<P>)
        .put("/transports/{transport}", "Add or replace a transport", set::<P>)
        .delete("/transports/{transport}", "Remove a transport", remove::<P>)
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Transport>>, Problem> {
    let list = read(&site, move |view| {
        let all = accounts::transports(view)?.into_iter().map(transport_of).collect();
        paging.cut(all, |transport: &Transport| transport.transport.to_string())
    });
    list.await.map(Json)
}

async fn set<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(name): Path<TransportName>,
    Body(settings): Body<Settings>,
) -> Result<NoContent, Problem> {
    let transport = NewTransport {
        name,
        host: settings.host,
        port: settings.port,
        tls: settings.tls,
        credentials: settings.credentials.map(|c| (c.username, c.password)),
        connections_max: settings.connections_max,
    };
    site.port.set_transport(transport, caller.author()).await?;
    Ok(NoContent)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(transport): Path<TransportName>,
) -> Result<NoContent, Problem> {
    site.port.execute(Command::RemoveTransport(RemoveTransport { transport, by: caller.author() })).await?;
    Ok(NoContent)
}

fn transport_of(row: TransportRow) -> Transport {
    Transport {
        transport: row.transport,
        host: row.settings.host,
        port: row.settings.port,
        tls: row.settings.tls,
        username: row.settings.credentials.map(|c| c.username),
        connections_max: row.settings.connections_max,
    }
}

fn connections_default() -> u32 {
    CONNECTIONS_DEFAULT
}
