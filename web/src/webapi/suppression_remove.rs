//! SuppressionRemove: mail to an address may be sent again. Any variant of the address will do.

use axum::response::Response;
use postledger_events::Command;
use postledger_events::command::LiftSuppression;

use super::form::Form;
use super::json::fields;
use super::{Caller, Method, decode, ok, parse_address};
use crate::Port;
use crate::status::Fault;

#[derive(Default)]
pub(super) struct Request {
    email_address: String,
}

fields!(Request as "SuppressionRemoveRequest" {
    "EmailAddress" => email_address,
});

pub async fn call<P: Port>(port: &P, caller: Caller<'_>, form: Form) -> Result<Response, Fault> {
    let request: Request = decode(&form.request)?;
    let address = parse_address(&request.email_address)?;
    let idempotency = caller.idempotency(Method::SuppressionRemove, &request, &[])?;
    let by = caller.author();
    let account = caller.login.account;
    port.execute(Command::LiftSuppression(LiftSuppression { account, address, by, idempotency })).await?;
    Ok(ok(&serde_json::Map::new()))
}
