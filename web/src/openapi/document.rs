//! The whole document, put together from the routes of the native API and the methods of the webapi.

use axum::http::Method;
use postledger_events::fact::access::Scope;
use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::schema::Schemas;
use super::table::{Access, Entry, Tag};
use crate::Mount;
use crate::api::{PREFIX, scopes};
use crate::webapi;

const INTRODUCTION: &str = "\
Two APIs on one port. The **native API** is below `/api/v1`: JSON in snake_case, times in RFC 3339, lists in pages, and errors as \
problem details (RFC 9457) with a `code` for programs. The **webapi** is mox's: one method per address, a request in JSON in a form \
field or as the body, and errors as an object with `Code` and `Message`.

Log in with HTTP Basic (an account's email address, or `admin`, and the password) or with a key as a bearer token. An account's \
login sees and changes what is its own. A key is good for its scopes; each operation names the one that it needs.";

/// The document of a native API with these routes, and of the webapi at this place.
pub fn document(entries: &[Entry], mount: &Mount) -> Value {
    let mut document = Document::default();
    webapi::describe(&mut document, mount);
    entries.iter().for_each(|entry| document.add_entry(entry));
    document.into_json()
}

/// The document while it is being made.
#[derive(Debug, Default)]
pub struct Document {
    pub schemas: Schemas,
    tags: Vec<Tag>,
    paths: Map<String, Value>,
    /// Answers that many operations have.
    answers: Map<String, Value>,
}

/// A method of an address, described.
pub struct Described {
    pub tag: Tag,
    pub method: Method,
    /// From the root.
    pub path: String,
    pub id: String,
    pub summary: &'static str,
    pub more: String,
    /// The scope that a key needs. `None`: nobody has to log in.
    pub scope: Option<Scope>,
    pub operation: Operation,
}

impl Document {
    fn add_entry(&mut self, entry: &Entry) {
        let mut operation = Operation::default();
        (entry.describe)(&mut operation, &mut self.schemas);
        let scope = match entry.access {
            Access::Anybody => None,
            Access::LoggedIn | Access::Operators => Some(scopes::demanded(&entry.method, entry.path)),
        };
        let whom = if entry.access == Access::Operators { "For operators only." } else { "" };
        self.add(Described {
            tag: entry.tag,
            method: entry.method.clone(),
            path: format!("{PREFIX}{}", entry.path),
            id: entry.operation_id(),
            summary: entry.summary,
            more: [entry.more, whom].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n"),
            scope,
            operation,
        });
    }

    pub fn add(&mut self, described: Described) {
        let Described { tag, method, path, id, summary, more, scope, operation } = described;
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        let mut json = operation.into_json(&path, &self.schemas, &mut self.answers);
        json["tags"] = json!([tag.name]);
        json["operationId"] = Value::from(id);
        json["summary"] = Value::from(summary);
        if !more.is_empty() {
            json["description"] = Value::from(more);
        }
        json["security"] = match scope {
            None => json!([]),
            Some(scope) => json!([{"basic": []}, {"key": [scope.name()]}]),
        };
        let methods = self.paths.entry(path).or_insert_with(|| json!({}));
        methods[method.as_str().to_ascii_lowercase()] = json;
    }

    fn into_json(self) -> Value {
        let tags = self.tags.iter().map(|tag| json!({"name": tag.name, "description": tag.doc}));
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Postledger",
                "version": env!("CARGO_PKG_VERSION"),
                "description": INTRODUCTION,
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "servers": [{"url": "/", "description": "The server that this document comes from."}],
            "tags": tags.collect::<Vec<_>>(),
            "paths": self.paths,
            "components": {
                "schemas": self.schemas.into_json(),
                "responses": self.answers,
                "securitySchemes": {
                    "basic": {
                        "type": "http",
                        "scheme": "basic",
                        "description": "An account's email address and its password; or `admin` and the administrator's, \
                                        for the native API.",
                    },
                    "key": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "pl_…",
                        "description": "A key of the API. An operation lists the scope that the key needs; the scope \
                                        `admin` is good for all.",
                    },
                },
            },
        })
    }
}
