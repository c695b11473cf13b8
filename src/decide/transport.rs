//! Next hops.

use postledger_events::Refusal;
use postledger_events::command::{ConfigureTransport, RemoveTransport};
use postledger_events::fact::account::{TransportConfigured, TransportRemoved};
use postledger_events::refusal::Thing;
use postledger_projections::{Rows, accounts};

use super::{Decision, damaged};

const CONNECTIONS_MAX: u32 = 1000;

pub fn configure(c: &ConfigureTransport, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let s = &c.settings;
    if s.credentials.is_some() && !s.tls.is_verified() {
        let why = "a password is only sent over verified TLS: use --tls starttls or --tls implicit, or no user name";
        return Err(Refusal::Invalid(why.to_owned()));
    }
    if s.host.is_empty() || s.host.len() > 255 || s.host.chars().any(|c| c.is_control() || c == ' ') || s.port == 0 {
        return Err(Refusal::Invalid("a transport needs a host name or address and a port".to_owned()));
    }
    if s.connections_max == 0 || s.connections_max > CONNECTIONS_MAX {
        return Err(Refusal::Invalid(format!("connections at once are 1 to {CONNECTIONS_MAX}")));
    }
    let before = accounts::transport(rows, &c.transport).map_err(damaged)?;
    let event = TransportConfigured { transport: c.transport.clone(), settings: s.clone(), by: c.by.clone() };
    let mut decision = Decision::done(event);
    let kept = s.credentials.as_ref().map(|k| k.password.id);
    let old = before.and_then(|row| row.settings.credentials).map(|k| k.password.id);
    decision.forget_secrets.extend(old.filter(|id| Some(*id) != kept));
    Ok(decision)
}

pub fn remove(c: &RemoveTransport, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = accounts::transport(rows, &c.transport).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Transport(c.transport.to_string())))?;
    let mut decision = Decision::done(TransportRemoved { transport: c.transport.clone(), by: c.by.clone() });
    decision.forget_secrets.extend(row.settings.credentials.map(|k| k.password.id));
    Ok(decision)
}
