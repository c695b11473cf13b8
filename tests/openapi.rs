//! The description of the HTTP APIs: fresh in docs/openapi.json, valid, and true of what a server answers. `UPDATE=1` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::server::{Response, Server, USER, get, wait_until, webapi};

const DOCUMENT: &str = "docs/openapi.json";
/// As https://spec.openapis.org/oas/3.1/schema/2022-10-07 has it.
const META_SCHEMA: &str = include_str!("openapi/oas-3.1-2022-10-07.json");
const API: &str = "/api/v1";
/// No body.
const NOTHING: Value = Value::Null;

/// The document that a server gives to everybody.
fn served(server: &Server) -> Value {
    let response = get(server.http(), &format!("{API}/openapi.json"));
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    response.json()
}

#[test]
fn the_document_is_fresh() {
    let served = served(&Server::start(&[]));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os("UPDATE").is_some() {
        let pretty = serde_json::to_string_pretty(&served).expect("a document has string keys only");
        std::fs::write(&path, pretty + "\n").expect("the document is written");
    }
    let found = std::fs::read(&path).unwrap_or_default();
    let found: Value = serde_json::from_slice(&found).unwrap_or_default();
    assert!(found == served, "{DOCUMENT} is stale: UPDATE=1 cargo test --test promises openapi");
}

#[test]
fn the_document_is_valid() {
    let document = checked_in();
    let meta: Value = serde_json::from_str(META_SCHEMA).expect("the meta-schema is JSON");
    assert_eq!(faults(&meta, &document), Vec::<String>::new());
    for (name, schema) in members(&document["components"]["schemas"]) {
        if let Err(fault) = jsonschema::draft202012::meta::validate(schema) {
            panic!("{name}: {fault}");
        }
        let examples = schema["examples"].as_array().into_iter().flatten();
        examples.for_each(|example| assert_is(&document, schema, example, name));
    }
    let bodies = operations(&document).flat_map(|(_, _, operation)| {
        members(&operation["responses"]).map(|(_, answer)| answer).chain([&operation["requestBody"]])
    });
    let shared = members(&document["components"]["responses"]).map(|(_, answer)| answer);
    let contents = bodies.chain(shared).flat_map(|body| members(&body["content"]));
    let examples = contents.filter_map(|(_, content)| Some((&content["schema"], content.get("example")?)));
    let checked = examples.map(|(schema, example)| assert_is(&document, schema, example, "an example")).count();
    assert!(checked > 80, "{checked} examples");
}

/// A server with one of everything.
struct World {
    server: Server,
    document: Value,
    /// Where everything is that can be asked for, by the document's paths.
    paths: BTreeMap<&'static str, String>,
}

impl World {
    fn new() -> World {
        let server = Server::start(&[]);
        // Nobody listens there, so its calls fail.
        let endpoint = json!({"direction": "outgoing", "url": format!("http://{}:9/", server.ip)});
        server.api("PUT", "/endpoints/mox/shop", &endpoint);
        let delivered = send(&server, USER);
        send(&server, "xpermerror@example.org");
        send(&server, "xtemperror@example.org");
        wait_until("a message came in", || !server.items("/inbox?account=mox").is_empty());
        wait_until("one failed, and its recipient is suppressed", || {
            !server.items("/suppressions?account=mox").is_empty()
        });
        wait_until("one was deferred", || {
            server.items("/queue").iter().any(|delivery| !delivery["last_problem"].is_null())
        });
        let called = |call: &Value| !call["last"].is_null();
        wait_until("calls were tried", || server.items("/endpoints/mox/shop/calls").iter().any(called));
        let dkim = json!({"selector": "s1", "algorithm": "ed25519-sha256"});
        server.api("POST", "/domains/localhost/dkim", &dkim);
        server.api("PUT", "/cursors/billing?account=mox", &json!({"seq": 1}));
        server.api("POST", "/keys", &json!({"account": "mox", "label": "of this test", "scopes": ["read"]}));
        let rule = server.api("POST", "/holdrules", &json!({"recipient_domain": "example.net"})).json();
        let call = server.items("/endpoints/mox/shop/calls")[0].clone();
        // Its own, so that no call that is queued holds the replay back.
        let outgoing = json!({"direction": "outgoing", "url": format!("http://{}:9/", server.ip)});
        server.api("PUT", "/endpoints/mox/crm", &outgoing);
        let begun = server.api("POST", "/endpoints/mox/crm/replays", &json!({"from": 1})).json();
        let replay = format!("/replays/{}", begun["replay"]);
        let shown = || server.api("GET", &replay, &NOTHING).json();
        wait_until("a replay is held up", || !shown()["trouble"].is_null());
        let document = served(&server);
        let paths = BTreeMap::from([
            ("/accounts", "/accounts?limit=1".to_owned()),
            ("/accounts/{account}", "/accounts/mox".to_owned()),
            ("/addresses", "/addresses?limit=1".to_owned()),
            ("/cursors", "/cursors?account=mox".to_owned()),
            ("/cursors/{cursor}", "/cursors/billing?account=mox".to_owned()),
            ("/domains", "/domains".to_owned()),
            ("/domains/{domain}", "/domains/localhost".to_owned()),
            ("/domains/{domain}/dkim", "/domains/localhost/dkim".to_owned()),
            ("/endpoints", "/endpoints".to_owned()),
            ("/endpoints/{account}/{endpoint}", "/endpoints/mox/shop".to_owned()),
            ("/endpoints/{account}/{endpoint}/calls", "/endpoints/mox/shop/calls?limit=1".to_owned()),
            (
                "/endpoints/{account}/{endpoint}/calls/{fact}/{place}",
                format!("/endpoints/mox/shop/calls/{}/{}", call["fact"], call["place"]),
            ),
            ("/endpoints/{account}/{endpoint}/replays", "/endpoints/mox/crm/replays?limit=1".to_owned()),
            ("/events", "/events?after=0&limit=1000".to_owned()),
            ("/events/export", "/events/export".to_owned()),
            ("/holdrules", "/holdrules".to_owned()),
            ("/inbox", "/inbox?account=mox&limit=1".to_owned()),
            ("/inbox/{msg_id}", format!("/inbox/{}?account=mox", server.items("/inbox?account=mox")[0]["msg_id"])),
            (
                "/inbox/{msg_id}/raw",
                format!("/inbox/{}/raw?account=mox", server.items("/inbox?account=mox")[0]["msg_id"]),
            ),
            ("/jobs/{job}", format!("/jobs/{}", rule["job"])),
            ("/keys", "/keys".to_owned()),
            ("/ledger/export", "/ledger/export".to_owned()),
            ("/mailboxes", "/mailboxes?account=mox".to_owned()),
            ("/messages/{id}/timeline", format!("/messages/{delivered}/timeline")),
            ("/openapi.json", "/openapi.json".to_owned()),
            ("/docs", "/docs".to_owned()),
            ("/queue", "/queue?limit=1".to_owned()),
            ("/queue/{id}", format!("/queue/{delivered}")),
            ("/replays", "/replays?account=mox".to_owned()),
            ("/replays/{replay}", replay),
            ("/status", "/status".to_owned()),
            ("/suppressions", "/suppressions?account=mox".to_owned()),
            ("/suppressions/present", "/suppressions/present?account=mox&address=you@example.org".to_owned()),
            ("/transports", "/transports".to_owned()),
        ]);
        World { server, document, paths }
    }

    /// Asks the native API as the administrator; what it answers must be as the operation says.
    fn ask(&self, method: &str, template: &str, path: &str, body: &Value, expect: u16) -> Response {
        let answer = self.server.try_api(method, path, body);
        assert_eq!(answer.status, expect, "{method} {path}: {}", answer.text());
        self.check(method, &format!("{API}{template}"), &answer);
        answer
    }

    fn check(&self, method: &str, template: &str, answer: &Response) {
        let operation = &self.document["paths"][template][method.to_ascii_lowercase()];
        let (status, class) = (answer.status.to_string(), format!("{}XX", answer.status / 100));
        let answers = &operation["responses"];
        let described = answers.get(&status).or_else(|| answers.get(&class));
        let described = described.unwrap_or_else(|| panic!("{method} {template} does not tell of {status}"));
        let described = match described["$ref"].as_str() {
            Some(path) => self.document.pointer(&path[1..]).expect("the reference leads somewhere"),
            None => described,
        };
        let what = format!("{method} {template} {status}");
        let Some(content) = described.get("content") else {
            return assert!(answer.body.is_empty(), "{what}: {}", answer.text());
        };
        let media_type =
            answer.header("content-type").expect("it says what it is").split(';').next().unwrap_or_default();
        let content = content.get(media_type).unwrap_or_else(|| panic!("{what} does not tell of {media_type}"));
        match media_type {
            "application/x-ndjson" => {
                let text = answer.text();
                assert!(!text.is_empty(), "{what}: no lines");
                let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
                lines.for_each(|line| assert_is(&self.document, &content["schema"], &line, &what));
            }
            "application/json" | "application/problem+json" => {
                assert_is(&self.document, &content["schema"], &answer.json(), &what);
            }
            "text/plain" | "text/html" | "message/rfc822" => assert!(!answer.body.is_empty(), "{what}"),
            other => panic!("{what} is {other}, which nobody checks"),
        }
    }
}

#[test]
fn a_server_answers_as_the_document_says() {
    let world = World::new();
    let not_asked = BTreeSet::from(["/events/stream", "/ledger/vault"]);
    let all = operations(&world.document).filter(|(_, method, _)| *method == "get");
    for template in all.filter_map(|(path, ..)| path.strip_prefix(API)) {
        if not_asked.contains(template) {
            continue;
        }
        let path = world.paths.get(template).unwrap_or_else(|| panic!("nobody asks for {template}"));
        let answer = world.ask("GET", template, path, &NOTHING, 200);
        if answer.text().starts_with("{\"items\"") {
            assert_ne!(answer.json()["items"], json!([]), "{path} has nothing to hold against its schema");
        }
    }
}

#[test]
fn a_server_changes_and_refuses_as_the_document_says() {
    let world = World::new();
    let ask = |method: &str, template: &str, path: &str, body: Value, expect| {
        world.ask(method, template, path, &body, expect)
    };
    ask("POST", "/accounts", "/accounts", json!({"account": "other"}), 201);
    ask("POST", "/accounts", "/accounts", json!({"account": "other"}), 409);
    ask("POST", "/accounts", "/accounts", json!({"account": "other", "colour": 1}), 422);
    ask("POST", "/accounts", "/accounts", json!(7), 422);
    ask("PATCH", "/accounts/{account}", "/accounts/other", json!({"quota_bytes": null, "keep_s": 60}), 200);
    ask("PUT", "/accounts/{account}/password", "/accounts/other/password", json!({"password": "long enough 1"}), 204);
    ask("DELETE", "/accounts/{account}", "/accounts/other", NOTHING, 202);
    ask("GET", "/accounts/{account}", "/accounts/nobody", NOTHING, 404);
    ask("GET", "/accounts", "/accounts?limit=0", NOTHING, 422);
    ask("POST", "/addresses", "/addresses", json!({"address": "more@localhost", "account": "mox"}), 204);
    ask("POST", "/domains", "/domains", json!({"domain": "example.com"}), 201);
    ask("PATCH", "/domains/{domain}", "/domains/example.com", json!({"disabled": true}), 200);
    ask("DELETE", "/domains/{domain}", "/domains/example.com", NOTHING, 204);
    ask("POST", "/holdrules", "/holdrules", json!({}), 422);
    ask("POST", "/holdrules", "/holdrules", json!({"account": "mox"}), 201);
    ask("DELETE", "/holdrules/{rule}", "/holdrules/1", NOTHING, 204);
    ask("POST", "/queue", "/queue", json!({"action": {"schedule_add": 60}, "filter": {"account": "mox"}}), 202);
    ask("POST", "/queue", "/queue", json!({"action": "hold", "filter": {"ids": [3]}}), 200);
    let redelivery = json!({"filter": {"ids": [1, 2]}});
    let part = ask("POST", "/queue/redeliver", "/queue/redeliver", redelivery, 200).json();
    for (list, origin) in [("made", 2), ("refused", 1)] {
        assert_eq!(
            (part[list].as_array().map(Vec::len), &part[list][0]["origin"]),
            (Some(1), &json!(origin)),
            "{part}"
        );
    }
    ask("POST", "/queue/redeliver", "/queue/redeliver", json!({}), 422);
    ask("POST", "/queue/{id}/redeliver", "/queue/2/redeliver", NOTHING, 202);
    ask("POST", "/queue/{id}/redeliver", "/queue/1/redeliver", NOTHING, 409);
    ask("PUT", "/cursors/{cursor}", "/cursors/far", json!({"seq": 1_u64 << 40}), 409);
    ask("POST", "/keys", "/keys", json!({"label": "one", "scopes": ["read"], "networks": ["192.0.2.0/24"]}), 201);
    ask("DELETE", "/keys/{key}", "/keys/2", NOTHING, 204);
    ask("PUT", "/endpoints/{account}/{endpoint}", "/endpoints/mox/shop", json!({"new_secret": true}), 200);
    ask("POST", "/endpoints/{account}/{endpoint}/test", "/endpoints/mox/shop/test", NOTHING, 200);
    let replays = "/endpoints/{account}/{endpoint}/replays";
    ask("POST", replays, "/endpoints/mox/crm/replays", json!({"from": 1}), 409);
    ask("POST", replays, "/endpoints/mox/shop/replays", json!({"from": "2000-01-01T00:00:00Z", "to": 9}), 202);
    for change in ["stop", "resume", "cancel"] {
        let (template, path) = (format!("/replays/{{replay}}/{change}"), &world.paths["/replays/{replay}"]);
        ask("POST", &template, &format!("{path}/{change}"), NOTHING, 204);
    }
    ask("POST", "/calls", "/calls", json!({"action": "cancel", "filter": {"account": "mox"}}), 202);
    ask("POST", "/suppressions", "/suppressions", json!({"account": "mox", "address": "x@example.org"}), 204);
    ask("DELETE", "/suppressions", "/suppressions?account=mox&address=x@example.org", NOTHING, 204);
    let transport = json!({"host": "smtp.example.net", "port": 587, "tls": "starttls"});
    ask("PUT", "/transports/{transport}", "/transports/other", transport, 204);
    ask("POST", "/verify", "/verify?fast=true", NOTHING, 200);
    ask("GET", "/ledger/vault", "/ledger/vault", NOTHING, 403);
    let nobody = get(world.server.http(), "/api/v1/queue");
    assert_eq!(nobody.status, 401);
    world.check("GET", "/api/v1/queue", &nobody);
}

#[test]
fn the_webapi_answers_as_the_document_says() {
    let world = World::new();
    let check = |method: &str, request: Value, expect: u16| {
        let answer = world.server.webapi(method, &request);
        assert_eq!(answer.status, expect, "{method} {request}: {}", answer.text());
        world.check("POST", &format!("/webapi/v0/{method}"), &answer);
    };
    // The document's own example is a request that is done.
    let send = &world.document["paths"]["/webapi/v0/Send"]["post"]["requestBody"]["content"]["application/json"];
    check("Send", send["example"].clone(), 200);
    check("Send", json!({"To": [{"Address": "x"}], "Text": "t"}), 400);
    check("Send", json!({"Colour": 1}), 400);
    check("SuppressionAdd", json!({"EmailAddress": "x@example.org", "Manual": true, "Reason": "asked"}), 200);
    check("SuppressionList", json!({}), 200);
    check("SuppressionPresent", json!({"EmailAddress": "x@example.org"}), 200);
    check("SuppressionRemove", json!({"EmailAddress": "x@example.org"}), 200);
    check("SuppressionRemove", json!({"EmailAddress": "x@example.org"}), 400);
    let nobody = webapi(world.server.http(), USER, "wrong", "SuppressionList", &json!({}));
    assert_eq!(nobody.status, 401);
    world.check("POST", "/webapi/v0/SuppressionList", &nobody);
    let page = get(world.server.http(), "/webapi/v0/Send");
    world.check("GET", "/webapi/v0/Send", &page);
}

fn checked_in() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    serde_json::from_slice(&std::fs::read(path).expect(DOCUMENT)).expect("the document is JSON")
}

/// Sends a message and answers the number of its delivery.
fn send(server: &Server, to: &str) -> u64 {
    server.send(&json!({"To": [{"Address": to}], "Subject": "s", "Text": "t"}))[0]
}

/// Path, method and operation.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    members(&document["paths"])
        .flat_map(|(path, methods)| members(methods).map(move |(method, operation)| (path, method, operation)))
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// The value must be what the schema says, and have no member that the schema does not tell of.
fn assert_is(document: &Value, schema: &Value, value: &Value, what: &str) {
    let mut schema = schema.clone();
    let mut components = document["components"].clone();
    deny_unknown_members(&mut schema);
    deny_unknown_members(&mut components);
    schema["components"] = components;
    assert_eq!(faults(&schema, value), Vec::<String>::new(), "{what}: {value}");
}

/// A client must take members that it does not know; the document has to know them all.
fn deny_unknown_members(schema: &mut Value) {
    if let Value::Array(list) = schema {
        list.iter_mut().for_each(deny_unknown_members);
    }
    let Some(map) = schema.as_object_mut() else { return };
    map.values_mut().for_each(deny_unknown_members);
    let has_members = map.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
    if has_members && map.get("type") == Some(&json!("object")) {
        map.entry("additionalProperties").or_insert(json!(false));
    }
}

fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    let validator = options.build(schema).expect("the schema is one");
    validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect()
}
