//! SuppressionAdd: an address that this account does not send to any more.

use axum::response::Response;
use postledger_events::Command;
use postledger_events::command::Suppress;

use super::form::Form;
use super::json::fields;
use super::{Caller, Method, decode, ok, parse_address};
use crate::Port;
use crate::status::Fault;

#[derive(Default)]
pub(super) struct Request {
    email_address: String,
    manual: bool,
    reason: String,
}

fields!(Request as "SuppressionAddRequest" {
    "EmailAddress" => email_address,
    /// Means nothing to us; shown again.
    "Manual" => manual,
    "Reason" => reason,
});

pub async fn call<P: Port>(port: &P, caller: Caller<'_>, form: Form) -> Result<Response, Fault> {
    let request: Request = decode(&form.request)?;
    let address = parse_address(&request.email_address)?;
    let idempotency = caller.idempotency(Method::SuppressionAdd, &request, &[])?;
    let by = caller.author();
    let Request { manual, reason, .. } = request;
    let account = caller.login.account;
    port.execute(Command::Suppress(Suppress { account, address, manual, reason, by, idempotency })).await?;
    Ok(ok(&serde_json::Map::new()))
}
