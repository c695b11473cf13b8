//! The webapi: which method a request is for, and what is checked before it is called.

mod describe;
mod form;
pub(crate) mod idempotency;
mod intake;
mod json;
mod media;
mod multipart;
mod pages;
mod send;
mod suppression_add;
mod suppression_list;
mod suppression_present;
mod suppression_remove;
#[cfg(test)]
mod tests;
mod time;
mod trace;

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{self, HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::any;
use postledger_events::address::Address;
use postledger_events::command::IdempotencyKey;
use postledger_events::fact::access::Scope;
use postledger_events::id::Author;
use serde::Serialize;
use tower_http::catch_panic::CatchPanicLayer;

pub(crate) use describe::describe;

use crate::auth::{Basic, bearer};
use crate::port::{Holder, Login};
use crate::status::{BAD_CREDENTIALS, Code, Fault, json as answer};
use crate::{Port, Site, csrf, peer, request_log};
use form::FormFile;

/// The contract's methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Send,
    SuppressionList,
    SuppressionAdd,
    SuppressionRemove,
    SuppressionPresent,
    MessageGet,
    MessageRawGet,
    MessagePartGet,
    MessageDelete,
    MessageFlagsAdd,
    MessageFlagsRemove,
    MessageMove,
}

impl Method {
    const ALL: [Method; 12] = [
        Method::Send,
        Method::SuppressionList,
        Method::SuppressionAdd,
        Method::SuppressionRemove,
        Method::SuppressionPresent,
        Method::MessageGet,
        Method::MessageRawGet,
        Method::MessagePartGet,
        Method::MessageDelete,
        Method::MessageFlagsAdd,
        Method::MessageFlagsRemove,
        Method::MessageMove,
    ];

    fn name(self) -> &'static str {
        match self {
            Method::Send => "Send",
            Method::SuppressionList => "SuppressionList",
            Method::SuppressionAdd => "SuppressionAdd",
            Method::SuppressionRemove => "SuppressionRemove",
            Method::SuppressionPresent => "SuppressionPresent",
            Method::MessageGet => "MessageGet",
            Method::MessageRawGet => "MessageRawGet",
            Method::MessagePartGet => "MessagePartGet",
            Method::MessageDelete => "MessageDelete",
            Method::MessageFlagsAdd => "MessageFlagsAdd",
            Method::MessageFlagsRemove => "MessageFlagsRemove",
            Method::MessageMove => "MessageMove",
        }
    }

    /// What a key must be good for.
    fn scope(self) -> Scope {
        match self {
            Method::Send => Scope::Send,
            Method::SuppressionAdd | Method::SuppressionRemove => Scope::Suppressions,
            Method::SuppressionList
            | Method::SuppressionPresent
            | Method::MessageGet
            | Method::MessageRawGet
            | Method::MessagePartGet => Scope::Read,
            Method::MessageDelete | Method::MessageFlagsAdd | Method::MessageFlagsRemove | Method::MessageMove => {
                Scope::Mailboxes
            }
        }
    }

    /// Names are case-sensitive.
    fn from_name(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

pub fn router<P: Port>(site: Arc<Site<P>>) -> Router {
    let mount = site.config.webapi.clone();
    let below = format!("{}{{*path}}", mount.as_str());
    let mut router = Router::new().route(mount.as_str(), any(serve::<P>)).route(&below, any(serve::<P>));
    if !mount.without_slash().is_empty() {
        let to = mount.as_str().to_owned();
        router = router.route(mount.without_slash(), any(move || async move { Redirect::temporary(&to) }));
    }
    router.with_state(site).layer(CatchPanicLayer::custom(panicked))
}

async fn serve<P: Port>(State(site): State<Arc<Site<P>>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let result = match resolve(&parts, site.config.webapi.as_str()) {
        Ok(Target::Root) => Ok(pages::see(&format!("{}v0/", site.config.webapi.as_str()))),
        Ok(Target::Index) => Ok(pages::index()),
        Ok(Target::Page(method)) => pages::method(method).ok_or(Fault::NotFound),
        Ok(Target::Call(method)) => call(&site, method, &parts, body).await,
        Err(fault) => Err(fault),
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

/// What a request is for.
enum Target {
    Root,
    Index,
    Page(Method),
    Call(Method),
}

fn resolve(parts: &Parts, mount: &str) -> Result<Target, Fault> {
    let path = parts.uri.path().strip_prefix(mount).ok_or(Fault::NotFound)?;
    let is_get = parts.method == http::Method::GET;
    match path.strip_prefix("v0/") {
        None if path.is_empty() && is_get => Ok(Target::Root),
        None if path.is_empty() => Err(Fault::MethodNotAllowed("405 - method not allowed")),
        None => Err(Fault::NotFound),
        Some("") => Ok(Target::Index),
        Some(name) => {
            let method = Method::from_name(name).ok_or(Fault::NotFound)?;
            match parts.method {
                http::Method::GET => Ok(Target::Page(method)),
                http::Method::POST => Ok(Target::Call(method)),
                _ => Err(Fault::MethodNotAllowed("405 - method not allowed - use get or post")),
            }
        }
    }
}

/// The contract's order of checks (1.2), then the method.
async fn call<P: Port>(site: &Site<P>, method: Method, parts: &Parts, body: Body) -> Result<Response, Fault> {
    if csrf::is_cross_site(parts, site.config.forwarded) {
        return Err(Fault::CrossSite);
    }
    let client = || peer::client(parts, site.config.forwarded).ok_or(Fault::NoClient);
    let (login, client) = if let Some(token) = bearer(&parts.headers) {
        let client = client()?;
        match site.port.login_key(token, client).await? {
            Holder::Account(login) => (login, client),
            Holder::Operator(key) => return Err(Fault::Forbidden(format!("key {} is for no account", key.key))),
        }
    } else {
        let Basic { user, password } = Basic::parse(&parts.headers).ok_or(Fault::Unauthorized(BAD_CREDENTIALS))?;
        let client = client()?;
        (site.port.login(&user, &password, client).await?, client)
    };
    if let Some(key) = &login.key {
        request_log::note_key(key.key);
        if !key.allows(method.scope()) {
            return Err(Fault::Forbidden(format!("key {} lacks the scope {}", key.key, method.scope())));
        }
    }
    let caller = Caller { login, client, headers: &parts.headers };
    let form = || form::read(parts, body, &site.config);
    match method {
        Method::Send => send::call(&site.port, caller, form().await?).await,
        Method::SuppressionList => suppression_list::call(&*site.port, caller, form().await?).await,
        Method::SuppressionAdd => suppression_add::call(&*site.port, caller, form().await?).await,
        Method::SuppressionRemove => suppression_remove::call(&*site.port, caller, form().await?).await,
        Method::SuppressionPresent => suppression_present::call(&*site.port, caller, form().await?).await,
        Method::MessageGet
        | Method::MessageRawGet
        | Method::MessagePartGet
        | Method::MessageDelete
        | Method::MessageFlagsAdd
        | Method::MessageFlagsRemove
        | Method::MessageMove => Err(Fault::Request(Code::Server, "not in this version".to_owned())),
    }
}

/// Who calls a method.
struct Caller<'a> {
    login: Login,
    client: IpAddr,
    headers: &'a HeaderMap,
}

impl Caller<'_> {
    fn author(&self) -> Author {
        self.login.author()
    }

    fn idempotency(
        &self,
        method: Method,
        request: &impl Serialize,
        files: &[FormFile],
    ) -> Result<Option<IdempotencyKey>, Fault> {
        idempotency::key(self.headers, method.name(), request, files)
    }
}

fn decode<'a, T: json::Decode<'a>>(request: &'a [u8]) -> Result<T, Fault> {
    json::decode(request).map_err(|e| Fault::protocol(format!("parsing request: {e}")))
}

fn parse_address(text: &str) -> Result<Address, Fault> {
    Address::parse(text).map_err(|e| Fault::Request(Code::BadAddress, format!("parsing address {text:?}: {e}")))
}

fn ok(result: &impl Serialize) -> Response {
    answer(StatusCode::OK, result)
}

/// Reads rows where blocking on the disk is fine.
async fn read<P: Port, T: Send + 'static>(
    port: &P,
    read: impl FnOnce(&P::View) -> Result<T, postledger_projections::Error> + Send + 'static,
) -> Result<T, Fault> {
    let view = port.view();
    match tokio::task::spawn_blocking(move || read(&view)).await {
        Ok(result) => Ok(result?),
        Err(gone) => Err(Fault::Internal(format!("reading rows: {gone}"))),
    }
}

/// A defect of ours; the log has what happened, the client gets no details.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a webapi request panicked");
    Fault::Internal("unhandled error".to_owned()).into_response()
}
