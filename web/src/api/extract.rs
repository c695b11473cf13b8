//! Takes requests apart: whatever cannot be read is answered as a problem, and unknown fields are refused.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::{Port, Site};

/// A JSON body.
pub struct Body<T>(pub T);

/// The part of the address behind the question mark.
pub struct Query<T>(pub T);

/// The variable parts of the address.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        Ok(Body(axum::Json::from_request(request, state).await?.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Problem> {
        Ok(Query(axum::extract::Query::from_request_parts(parts, state).await?.0))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Problem> {
        Ok(Path(axum::extract::Path::from_request_parts(parts, state).await?.0))
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem::rejected(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::rejected(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::rejected(rejection.status(), rejection.body_text())
    }
}

/// Reads rows and records where blocking on the disk keeps nobody waiting.
pub async fn read<P: Port, T: Send + 'static>(
    site: &Arc<Site<P>>,
    with: impl FnOnce(&P::View) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let view = site.port.view();
    let read = tokio::task::spawn_blocking(move || with(&view)).await;
    read.unwrap_or_else(|_| Err(Problem::internal("a read ended by a fault of the program; its log says more")))
}
