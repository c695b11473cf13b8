//! Answers that are more than JSON and 200, as types: what they are is said once, for the client and for the description.

use std::marker::PhantomData;

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::openapi::{Answer, Content, Describe, Operation, Output, Schemas};

/// What was made.
pub struct Created<T>(pub T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: Describe> Output for Created<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let content = Content::json(schemas.of::<T>());
        operation.answers.push(Answer::new("201", "It was made.").with(content));
    }
}

/// What was begun and goes on.
pub struct Accepted<T>(pub T);

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

impl<T: Describe> Output for Accepted<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let content = Content::json(schemas.of::<T>());
        operation.answers.push(Answer::new("202", "It was begun, and goes on.").with(content));
    }
}

/// JSON Lines, each a `T`, as they come.
pub struct Lines<T> {
    body: Body,
    of: PhantomData<T>,
}

impl<T> Lines<T> {
    pub fn new(body: Body) -> Lines<T> {
        Lines { body, of: PhantomData }
    }
}

impl<T> IntoResponse for Lines<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/x-ndjson")], self.body).into_response()
    }
}

impl<T: Describe> Output for Lines<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let content = Content::of("application/x-ndjson", schemas.of::<T>());
        operation.answers.push(Answer::new("200", "JSON Lines; the schema is that of one line.").with(content));
    }
}
