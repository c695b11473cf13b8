//! Who calls, and what they may see: people at this machine and the administrator all, an account's login its own account,
//! and a key what its owner may, as far as its scopes go.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use postledger_events::id::{AccountName, Author};
use postledger_events::time::Timestamp;
use postledger_projections::{Rows, access, accounts};

use super::problem::{BAD_CREDENTIALS, Problem};
use super::scopes;
use crate::auth::{Basic, bearer};
use crate::peer::LocalUser;
use crate::port::{Holder, Key, Login};
use crate::{Port, Site, csrf, peer, request_log};

/// The user name of the administrator; no email address, so no account's login.
const ADMIN: &str = "admin";

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user of this machine, on the control socket.
    Local(String),
    /// With the administrator's password.
    Admin,
    /// With an operators' key.
    Key(Key),
    /// With an account's password or key.
    Account(Login),
}

impl Caller {
    pub fn author(&self) -> Author {
        match self {
            Caller::Local(user) => Author(format!("unix:{user}")),
            Caller::Admin => Author("admin".to_owned()),
            Caller::Key(key) => key.author(),
            Caller::Account(login) => login.author(),
        }
    }

    /// What they came in with, if it was a key.
    fn key(&self) -> Option<&Key> {
        match self {
            Caller::Local(_) | Caller::Admin => None,
            Caller::Key(key) => Some(key),
            Caller::Account(login) => login.key.as_ref(),
        }
    }

    /// Whether they would still be let in. For what goes on without an end, which looks now and then.
    pub fn is_welcome(&self, rows: &impl Rows, now: Timestamp) -> Result<bool, Problem> {
        if let Some(key) = self.key() {
            let row = access::key_row(rows, key.key)?;
            if row.is_none_or(|row| row.expires.is_some_and(|expires| expires <= now)) {
                return Ok(false);
            }
        }
        let Some(own) = self.confined() else { return Ok(true) };
        let row = accounts::account(rows, own)?;
        Ok(row.is_some_and(|row| row.removing.is_none() && !row.settings.login_disabled))
    }

    /// The account that this caller is confined to; `None`: all are open.
    pub fn confined(&self) -> Option<&AccountName> {
        match self {
            Caller::Local(_) | Caller::Admin | Caller::Key(_) => None,
            Caller::Account(login) => Some(&login.account),
        }
    }

    /// Whether things of this account are this caller's business.
    pub fn may_see(&self, account: &AccountName) -> bool {
        self.confined().is_none_or(|own| own == account)
    }

    /// The account to limit a list to, which was asked for or is the only one open; `None`: all.
    pub fn scope(&self, asked: Option<AccountName>) -> Result<Option<AccountName>, Problem> {
        match (self.confined(), asked) {
            (Some(own), Some(asked)) if *own != asked => Err(foreign(own)),
            (Some(own), _) => Ok(Some(own.clone())),
            (None, asked) => Ok(asked),
        }
    }

    /// The one account that a request is about.
    pub fn one(&self, asked: Option<AccountName>) -> Result<AccountName, Problem> {
        self.scope(asked)?.ok_or_else(|| Problem::invalid("say which account: account=NAME"))
    }
}

/// Says the same whether or not the account that was asked for exists.
fn foreign(own: &AccountName) -> Problem {
    Problem::forbidden(format!("this login is for account {own} only"))
}

/// Finds out who calls before any handler runs.
pub async fn authenticate<P: Port>(State(site): State<Arc<Site<P>>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match identify(&site, &parts).await {
        Err(problem) => problem.into_response(),
        Ok(caller) => {
            if let Err(problem) = check_scope(&caller, &parts) {
                return problem.into_response();
            }
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
    }
}

/// Lets only callers through to whom all accounts are open.
pub async fn operators_only(caller: Caller, request: Request, next: Next) -> Response {
    match caller.confined() {
        None => next.run(request).await,
        Some(own) => foreign(own).into_response(),
    }
}

/// A password may do all that its owner may; a key what it was given out for.
fn check_scope(caller: &Caller, parts: &Parts) -> Result<(), Problem> {
    let Some(key) = caller.key() else { return Ok(()) };
    request_log::note_key(key.key);
    let scope = scopes::demanded(&parts.method, parts.uri.path());
    if key.allows(scope) {
        return Ok(());
    }
    Err(Problem::forbidden(format!("key {} lacks the scope {scope}", key.key)))
}

async fn identify<P: Port>(site: &Site<P>, parts: &Parts) -> Result<Caller, Problem> {
    if let Some(LocalUser(user)) = parts.extensions.get() {
        return Ok(Caller::Local(user.clone()));
    }
    if csrf::is_cross_site(parts, site.config.forwarded) {
        return Err(Problem::forbidden("the request was caused by another site"));
    }
    let client = peer::client(parts, site.config.forwarded);
    let client = client.ok_or_else(|| Problem::internal("the proxy gives no client address in X-Forwarded-For"))?;
    if let Some(token) = bearer(&parts.headers) {
        return Ok(match site.port.login_key(token, client).await? {
            Holder::Account(login) => Caller::Account(login),
            Holder::Operator(key) => Caller::Key(key),
        });
    }
    let basic = Basic::parse(&parts.headers).ok_or_else(|| Problem::unauthorized(BAD_CREDENTIALS))?;
    if basic.user == ADMIN {
        site.port.login_admin(&basic.password, client).await?;
        return Ok(Caller::Admin);
    }
    Ok(Caller::Account(site.port.login(&basic.user, &basic.password, client).await?))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        let caller = parts.extensions.get().cloned();
        caller.ok_or_else(|| Problem::internal("a request passed without a caller"))
    }
}
