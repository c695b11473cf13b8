//! The description of the HTTP APIs, held against the routers: what it lists is there, and nothing else is.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{Method, Response, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

use super::tests::{As, Program, request, send, text};
use crate::Config;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

async fn document() -> Value {
    let program = Arc::new(Program::new());
    let response = send(&program, request(As::Nobody, Method::GET, "/openapi.json", "")).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_str(&text(response).await).unwrap()
}

/// Asks without logging in, from the root.
async fn ask(method: &Method, path: &str) -> Response<axum::body::Body> {
    let mut request = request(As::Nobody, method.clone(), "", "");
    *request.uri_mut() = path.parse().unwrap();
    crate::router(Arc::new(Program::new()), Config::default()).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn it_lists_what_the_routers_have() {
    let document = document().await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path.split(['{', '}']).enumerate().map(|(n, part)| if n % 2 == 1 { "1" } else { part });
        let concrete: String = concrete.collect();
        for method in METHODS {
            let status = ask(&method, &concrete).await.status().as_u16();
            let described = methods.get(method.as_str().to_ascii_lowercase());
            // Whoever has not logged in is told so by a route that is there, and by no other.
            let expect: &[u16] = match described.map(|operation| operation["security"].as_array().unwrap().is_empty()) {
                Some(true) => &[200],
                Some(false) => &[401],
                // The list of methods is shown whatever the method.
                None if path == "/webapi/v0/" => &[200],
                None => &[405],
            };
            assert!(expect.contains(&status), "{method} {path}: {status}");
        }
    }
    assert_eq!(ask(&Method::POST, "/webapi/v0/MessageGet").await.status(), 401, "it is known and not in this version");
    assert!(document["paths"].get("/webapi/v0/MessageGet").is_none());
    assert!(document["paths"].as_object().unwrap().len() > 40);
}

#[tokio::test]
async fn it_tells_what_a_key_needs() {
    let document = document().await;
    let check = |path: &str, method: &str, scope: &str| {
        let operation = &document["paths"][path][method];
        assert_eq!(operation["security"][1]["key"][0], scope, "{method} {path}");
    };
    check("/api/v1/queue", "get", "read");
    check("/api/v1/queue", "post", "queue");
    check("/api/v1/cursors/{cursor}", "put", "read");
    check("/api/v1/endpoints/{account}/{endpoint}", "put", "webhooks");
    check("/api/v1/replays/{replay}/stop", "post", "webhooks");
    check("/api/v1/queue/redeliver", "post", "queue");
    check("/api/v1/inbox/{msg_id}", "delete", "mailboxes");
    check("/api/v1/keys", "get", "admin");
    check("/webapi/v0/Send", "post", "send");
    check("/webapi/v0/SuppressionAdd", "post", "suppressions");
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_and_says_what_it_is_for() {
    let document = document().await;
    let mut ids = BTreeSet::new();
    let all = document["paths"].as_object().unwrap().values().flat_map(|methods| methods.as_object().unwrap().values());
    for operation in all {
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", operation["operationId"]);
        assert!(!operation["summary"].as_str().unwrap().is_empty());
    }
    assert!(ids.contains("accounts_set_password") && ids.contains("webapi_Send"), "{ids:?}");
}

#[tokio::test]
async fn the_page_shows_every_operation_and_loads_nothing() {
    let document = document().await;
    let program = Arc::new(Program::new());
    let response = send(&program, request(As::Nobody, Method::GET, "/docs", "")).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let page = text(response).await;
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<section id=\"schema-{name}\">")), "{name}");
    }
    for (at, _) in page.match_indices("href=\"#") {
        let target = page[at + 7..].split('"').next().unwrap();
        assert!(page.contains(&format!("id=\"{target}\"")), "a link leads to {target}, which is not there");
    }
    for foreign in ["<script", "<link", "<img", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}
