//! The webapi's methods for the description of the HTTP APIs.

use axum::http;
use postledger_events::fact::access::Scope;
use serde_json::{Value, json};

use super::pages::{self, Example};
use super::{Method, idempotency, send, suppression_add, suppression_list, suppression_present, suppression_remove};
use crate::Mount;
use crate::openapi::{Answer, Content, Described, Document, Operation, Parameter, Schema, Schemas, Tag};
use crate::status::ErrorBody;

const TAG: Tag = Tag {
    name: "Webapi",
    doc: "The webapi as mox has it: the request is JSON, in the form field `request` or as the body. Keys of requests may be \
          in any case; unknown ones are refused.",
};

/// Adds every method of this version, and its page.
pub fn describe(document: &mut Document, mount: &Mount) {
    let at = |name: &str| format!("{}v0/{name}", mount.as_str());
    document.add(page(at(""), "index".to_owned(), "Read which methods there are"));
    for method in Method::ALL {
        let Some(example) = pages::example(method) else { continue };
        let path = at(method.name());
        document.add(page(path.clone(), method.name().to_owned(), "Read about the method, and try it"));
        let operation = call(method, &example, &mut document.schemas);
        document.add(Described {
            tag: TAG,
            method: http::Method::POST,
            path,
            id: format!("webapi_{}", method.name()),
            summary: method.name(),
            more: example.what.replace("<code>", "`").replace("</code>", "`"),
            scope: Some(method.scope()),
            operation,
        });
    }
}

fn page(path: String, name: String, summary: &'static str) -> Described {
    let html = Content::of("text/html", Schema::from_json(json!({"type": "string"})));
    let operation = Operation { answers: vec![Answer::new("200", "A page.").with(html)], ..Operation::default() };
    let (method, id) = (http::Method::GET, format!("webapi_page_{name}"));
    Described { tag: TAG, method, path, id, summary, more: String::new(), scope: None, operation }
}

fn call(method: Method, example: &Example, schemas: &mut Schemas) -> Operation {
    let (request, result) = types(method, schemas);
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("an example is JSON");
    let (given, answered) = (parse(example.request), parse(example.response));
    let done = Answer::new("200", "Done.").with(Content { example: Some(answered), ..Content::json(result) });
    let mut answers = vec![done];
    answers.extend(errors(method, schemas));
    Operation { parameters: parameters(method), body: bodies(method, request, given), answers }
}

/// What a method takes and gives.
fn types(method: Method, schemas: &mut Schemas) -> (Schema, Schema) {
    let nothing = || Schema::object(true, []);
    match method {
        Method::Send => (schemas.of::<send::Request>(), schemas.of::<send::Sent>()),
        Method::SuppressionList => (schemas.of::<suppression_list::Request>(), schemas.of::<suppression_list::List>()),
        Method::SuppressionAdd => (schemas.of::<suppression_add::Request>(), nothing()),
        Method::SuppressionRemove => (schemas.of::<suppression_remove::Request>(), nothing()),
        Method::SuppressionPresent => {
            (schemas.of::<suppression_present::Request>(), schemas.of::<suppression_present::Presence>())
        }
        Method::MessageGet
        | Method::MessageRawGet
        | Method::MessagePartGet
        | Method::MessageDelete
        | Method::MessageFlagsAdd
        | Method::MessageFlagsRemove
        | Method::MessageMove => (nothing(), nothing()),
    }
}

/// Methods that change something can be told to do so once only.
fn parameters(method: Method) -> Vec<Parameter> {
    if method.scope() == Scope::Read {
        return Vec::new();
    }
    vec![idempotency::parameter()]
}

/// The forms that a request may come in.
fn bodies(method: Method, request: Schema, given: Value) -> Vec<Content> {
    let field = json!({
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": request.clone().into_json(),
    });
    let mut parts = json!({"request": field});
    let form = json!({"type": "object", "properties": parts.clone(), "required": ["request"]});
    if method == Method::Send {
        for part in ["alternativefile", "inlinefile", "attachedfile"] {
            let file = json!({"type": "string", "contentMediaType": "application/octet-stream"});
            parts[part] = json!({"type": "array", "items": file});
        }
    }
    let multipart = json!({"type": "object", "properties": parts, "required": ["request"]});
    vec![
        Content { example: Some(given), ..Content::json(request) },
        Content::of("application/x-www-form-urlencoded", Schema::from_json(form)),
        Content::of("multipart/form-data", Schema::from_json(multipart)),
    ]
}

fn errors(method: Method, schemas: &mut Schemas) -> Vec<Answer> {
    let mut object = |status, doc, code: &str, message: &str| {
        let example = Some(json!({"Code": code, "Message": message}));
        Answer::new(status, doc).with(Content { example, ..Content::json(schemas.of::<ErrorBody>()) })
    };
    let text = |status, doc| {
        Answer::new(status, doc).with(Content::of("text/plain", Schema::from_json(json!({"type": "string"}))))
    };
    let retry = "Seconds to wait.";
    let mut all = vec![
        object("400", "The request cannot be done; `Code` tells why.", "badAddress", "parsing address \"x\": no @"),
        text("401", "The credentials are not good."),
        text("403", "The key lacks the scope, or another site caused the request."),
        text("429", "Too many failed logins.").with_header("Retry-After", retry),
        text("500", "The proxy in front does not say who the client is."),
        object("503", "Nothing can be accepted now.", "server", "too busy; try again")
            .with_header("Retry-After", retry),
    ];
    if !parameters(method).is_empty() {
        all.extend([
            object("409", "The same is being worked on.", "idempotencyInFlight", "ask again for its outcome"),
            object("422", "The key was used with another request.", "idempotencyMismatch", "the request differs"),
        ]);
    }
    all
}
