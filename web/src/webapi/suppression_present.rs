//! SuppressionPresent: whether an address, in any of its variants, is on the list.

use axum::response::Response;
use postledger_projections::suppressions;
use serde::Serialize;

use super::form::Form;
use super::json::fields;
use super::{Caller, decode, ok, parse_address, read};
use crate::Port;
use crate::openapi::Describe;
use crate::status::Fault;

#[derive(Default)]
pub(super) struct Request {
    email_address: String,
}

fields!(Request as "SuppressionPresentRequest" {
    "EmailAddress" => email_address,
});

#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
#[describe(name = "SuppressionPresentResult")]
pub(super) struct Presence {
    present: bool,
}

pub async fn call<P: Port>(port: &P, caller: Caller<'_>, form: Form) -> Result<Response, Fault> {
    let request: Request = decode(&form.request)?;
    let address = parse_address(&request.email_address)?;
    let account = caller.login.account;
    let recipient = port.recipient_key(&account, &address);
    let row = read(port, move |view| suppressions::suppression(view, &account, recipient)).await?;
    Ok(ok(&Presence { present: row.is_some() }))
}
