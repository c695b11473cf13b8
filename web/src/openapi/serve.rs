//! The document and the page of it, as they are served: made when somebody asks for the first time, and for everybody, since they
//! hold no data.

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;

use super::operation::{Answer, Content, Operation, Output};
use super::page::page;
use super::schema::{Schema, Schemas};
use super::table::Table;
use crate::Port;

/// What is served.
pub struct Documents(LazyLock<Made, Box<dyn FnOnce() -> Made + Send>>);

struct Made {
    json: Bytes,
    html: Bytes,
}

impl Documents {
    pub fn new(document: impl FnOnce() -> Value + Send + 'static) -> Documents {
        Documents(LazyLock::new(Box::new(|| Made::of(&document()))))
    }
}

impl Made {
    fn of(document: &Value) -> Made {
        let json = serde_json::to_vec(document).expect("a document has string keys only");
        Made { json: json.into(), html: page(document).into() }
    }
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Description", "This description, for programs and for people.")
        .get("/openapi.json", "This document", json)
        .get("/docs", "This document, to be read", html)
        .for_anybody()
}

async fn json(Extension(documents): Extension<Arc<Documents>>) -> Json {
    Json(documents.0.json.clone())
}

async fn html(Extension(documents): Extension<Arc<Documents>>) -> Html {
    Html(documents.0.html.clone())
}

/// An OpenAPI document.
struct Json(Bytes);

/// A page.
struct Html(Bytes);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

impl Output for Json {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        let schema = Schema::object(false, []).with_description("An OpenAPI 3.1 document.");
        operation.answers.push(Answer::new("200", "The document.").with(Content::json(schema)));
    }
}

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0).into_response()
    }
}

impl Output for Html {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers.push(Answer::new("200", "A page.").with(Content::of("text/html", schemas.of::<String>())));
    }
}
