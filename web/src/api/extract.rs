//! Takes requests apart: whatever cannot be read is answered as a problem, and unknown fields are refused.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderName;
use axum::http::request::Parts;
use postledger_events::id::Seq;
use serde::de::DeserializeOwned;

use super::caller::Caller;
use super::problem::Problem;
use crate::openapi::{self, Content, Describe, Input, Operation, Parameter, Place, Schemas};
use crate::webapi::idempotency;
use crate::{Port, Site};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A JSON body.
pub struct Body<T>(pub T);

/// The part of the address behind the question mark.
pub struct Query<T>(pub T);

/// The variable parts of the address.
pub struct Path<T>(pub T);

/// The last record that a reader of server-sent events has seen (WHATWG HTML §9.2).
pub struct LastEventId(pub Option<Seq>);

/// The Idempotency-Key of a request that is to be done once only.
pub struct OnceKey(pub Option<String>);

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

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;
    /// An empty one is none: that is what a client has that saw no id yet.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<LastEventId, Problem> {
        let id = parts.headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
        let Some(id) = id else { return Ok(LastEventId(None)) };
        let seq = id.to_str().ok().and_then(|id| id.parse().ok());
        seq.map(|seq| LastEventId(Some(seq))).ok_or_else(|| Problem::invalid("Last-Event-ID is the number of a record"))
    }
}

impl<S: Sync> FromRequestParts<S> for OnceKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<OnceKey, Problem> {
        idempotency::text(&parts.headers).map(OnceKey).map_err(Problem::invalid)
    }
}

impl<T: Describe> Input for Body<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.body.push(Content::json(schemas.of::<T>()));
    }
}

impl<T: Describe> Input for Query<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        // Its members are parameters of their own, so it needs no name.
        let schema = T::schema(schemas);
        operation.parameters.extend(schema.members().map(|(name, required, schema)| Parameter {
            place: Place::Query,
            name: name.to_owned(),
            required,
            schema,
        }));
    }
}

impl<T: openapi::Parts> Input for Path<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let parts = T::schemas(schemas).into_iter();
        operation.parameters.extend(parts.map(|schema| Parameter {
            place: Place::Path,
            name: String::new(),
            required: true,
            schema,
        }));
    }
}

impl Input for LastEventId {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.parameters.push(Parameter {
            place: Place::Header,
            name: "Last-Event-ID".to_owned(),
            required: false,
            schema: schemas.of::<Seq>().with_description("The last record that was seen."),
        });
    }
}

impl Input for OnceKey {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.parameters.push(idempotency::parameter());
    }
}

/// Who calls is told by the security of an operation.
impl Input for Caller {
    fn describe(_: &mut Operation, _: &mut Schemas) {}
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
