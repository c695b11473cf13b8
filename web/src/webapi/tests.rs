//! The webapi over an in-memory program: what clients get for what they send.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use postledger_events::address::{Address, Domain};
use postledger_events::command::Submitted;
use postledger_events::fact::account::DkimAlgorithm;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::*;
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Memory, Order, Rows, Table};
use tower::ServiceExt;

use crate::api::tail::Tail;
use crate::api::verify::{Line, Wish};
use crate::port::*;
use crate::{Config, Peer};

/// Accepts what is not made to be refused, and keeps it.
#[derive(Default)]
struct Program {
    sent: Mutex<Vec<SendRequest>>,
    executed: Mutex<Vec<Command>>,
    logins: Mutex<u32>,
    stopped: Option<&'static str>,
    tail: Tail,
}

struct Moment(Memory);

impl Rows for Moment {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, postledger_projections::Error> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, postledger_projections::Error> {
        self.0.scan(table, start, end, order, limit)
    }
}

impl View for Moment {
    fn first_due(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn position(&self) -> Seq {
        Seq(0)
    }

    fn record_line(&self, _: Seq) -> Result<Option<Vec<u8>>, postledger_projections::Error> {
        Ok(None)
    }

    fn lines_after(&self, _: Seq, _: usize) -> Result<Vec<(Seq, Vec<u8>)>, postledger_projections::Error> {
        Ok(Vec::new())
    }

    fn body(&self, _: &BodyRef) -> Result<Bytes, std::io::Error> {
        Ok(Bytes::new())
    }

    fn export(&self, _: Seq, _: Option<Sha256>) -> Result<Pieces, ExportError> {
        Err(ExportError::Failed("not for the webapi".to_owned()))
    }

    fn vault(&self) -> Result<Bytes, String> {
        Err("not for the webapi".to_owned())
    }
}

impl Port for Program {
    type View = Moment;

    async fn login(&self, user: &str, password: &str, _: IpAddr) -> Result<Login, LoginError> {
        *self.logins.lock().unwrap() += 1;
        match (user, password) {
            ("panic@localhost", _) => panic!("a defect"),
            ("many@localhost", _) => Err(LoginError::TooMany { retry_after_s: 42 }),
            ("nologin@localhost", "moxmoxmox") => Err(LoginError::Disabled),
            (_, "moxmoxmox") if user.starts_with("mox") => {
                let address = Address::parse(user).map_err(|_| LoginError::BadCredentials)?;
                let account = AccountName::new("mox").unwrap();
                Ok(Login { account, user: user.to_owned(), address: Some(address), key: None })
            }
            _ => Err(LoginError::BadCredentials),
        }
    }

    async fn login_admin(&self, _: &str, _: IpAddr) -> Result<(), LoginError> {
        Err(LoginError::BadCredentials)
    }

    /// A token is the name of the one scope that it has, with `operator:` in front if it is for no account.
    async fn login_key(&self, token: &str, _: IpAddr) -> Result<Holder, LoginError> {
        let scope = token.trim_start_matches("operator:").parse().map_err(|_| LoginError::BadCredentials)?;
        let key = crate::port::Key { key: KeyId(7), scopes: vec![scope] };
        if token.starts_with("operator:") {
            return Ok(Holder::Operator(key));
        }
        let (account, address) = (AccountName::new("mox").unwrap(), Address::parse("first@localhost").ok());
        Ok(Holder::Account(Login { account, user: "key:7".to_owned(), address, key: Some(key) }))
    }

    async fn send(&self, request: SendRequest) -> Result<Submitted, SendError> {
        let submission = |(n, (_, given)): (u64, &(Address, String))| {
            (given.clone(), DeliveryId(n), (n == 1).then(|| FromId::new("fromid").unwrap()))
        };
        let recipients = (1..).zip(&request.recipients).map(submission).collect();
        let message_id = "<id@localhost>".to_owned();
        let answer = match request.draft.subject.as_str() {
            "quota" => Err(SendError::Refused(Refusal::OverQuota { quota_bytes: 1 })),
            "mismatch" => Err(SendError::Refused(Refusal::IdempotencyMismatch)),
            "in flight" => Err(SendError::InFlight),
            "id" => Err(SendError::Compose(ComposeFault::MalformedMessageId, "no <>".to_owned())),
            "stopped" => Err(SendError::Unavailable(Unavailable::Stopped("disk full".to_owned()))),
            _ => Ok(Submitted { message: MessageUuid(uuid::Uuid::nil()), message_id, recipients, repeated: false }),
        };
        self.sent.lock().unwrap().push(request);
        answer
    }

    fn preflight(&self, _: &AccountName, from: &Address, recipients: &[Address]) -> Result<(), Refusal> {
        match from.domain.as_str() {
            "elsewhere.example" => Err(Refusal::BadFrom),
            "disabled.example" => Err(Refusal::DomainDisabled),
            _ if recipients.is_empty() => Err(Refusal::NoRecipients),
            _ if recipients.len() > 100 => Err(Refusal::MessageLimit),
            _ => Ok(()),
        }
    }

    fn recipient_key(&self, _: &AccountName, _: &Address) -> RecipientKey {
        RecipientKey([0; 16])
    }

    async fn execute(&self, command: Command) -> Result<Answer, ExecuteError> {
        self.executed.lock().unwrap().push(command.clone());
        match command {
            Command::Suppress(s) if s.reason == "again" => {
                Err(ExecuteError::Refused(Refusal::Exists(Thing::Suppression(s.address.to_string()))))
            }
            _ => Ok(Answer::Done),
        }
    }

    async fn set_password(&self, _: &AccountName, _: &str, _: Author) -> Result<(), ExecuteError> {
        Err(ExecuteError::Unavailable(Unavailable::Busy))
    }

    async fn set_endpoint(&self, _: NewEndpoint, _: bool, _: Author) -> Result<Option<String>, ExecuteError> {
        unreachable!("no test sets an endpoint")
    }

    async fn redeliver(&self, _: Redelivery) -> Result<Submitted, ExecuteError> {
        unreachable!("no test sends again")
    }

    async fn test_call(
        &self,
        _: &AccountName,
        _: &postledger_events::id::EndpointName,
        _: Author,
    ) -> Result<TestCall, ExecuteError> {
        unreachable!("no test calls an endpoint")
    }

    async fn set_transport(&self, _: NewTransport, _: Author) -> Result<(), ExecuteError> {
        Err(ExecuteError::Unavailable(Unavailable::Busy))
    }

    async fn generate_dkim(
        &self,
        _: &Domain,
        _: &Selector,
        _: DkimAlgorithm,
        _: Author,
    ) -> Result<String, ExecuteError> {
        Err(ExecuteError::Unavailable(Unavailable::Busy))
    }

    fn view(&self) -> Moment {
        Moment(Memory::default())
    }

    fn verify(&self, _: Wish) -> Option<tokio::sync::mpsc::Receiver<Line>> {
        None
    }

    fn status(&self) -> Status {
        let accepting = self.stopped.map_or(Ok(()), |why| Err(why.to_owned()));
        Status { accepting, position: Seq(0), lagging: Vec::new(), warnings: Vec::new(), verified: None, free_bytes: 0 }
    }

    async fn wait_past(&self, _: Seq) {}

    async fn add_key(&self, _: NewKey, _: Author) -> Result<(KeyId, String), ExecuteError> {
        Err(ExecuteError::InFlight)
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    async fn stopping(&self) {
        std::future::pending().await
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

struct Site {
    program: Arc<Program>,
    router: Router,
}

struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Site {
    fn new(config: Config) -> Site {
        let program = Arc::new(Program::default());
        Site { router: crate::router(Arc::clone(&program), config), program }
    }

    fn ask(&self, request: Request<Body>) -> Got {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            Got { status: parts.status.as_u16(), headers: parts.headers, body }
        })
    }

    fn call(&self, method: &str, json: &str, headers: &[(&str, &str)]) -> Got {
        self.call_as("bW94QGxvY2FsaG9zdDptb3htb3htb3g=", method, json, headers)
    }

    fn call_as(&self, basic: &str, method: &str, json: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = from_peer("POST", &format!("/webapi/v0/{method}"))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Body::from(json.to_owned())).unwrap())
    }
}

fn from_peer(method: &str, path: &str) -> axum::http::request::Builder {
    let peer = Peer { addr: "192.0.2.1:5".parse().unwrap(), tls: false };
    Request::builder().method(method).uri(path).extension(peer)
}

#[test]
fn paths_and_http_methods() {
    let site = Site::new(Config::default());
    let check = |method: &str, path: &str, status: u16, content_type: &str, location: &str| {
        let got = site.ask(from_peer(method, path).body(Body::empty()).unwrap());
        let seen = (got.status, got.header("content-type"), got.header("location"));
        assert_eq!(seen, (status, content_type, location), "{method} {path}");
        assert_eq!(got.header("x-frame-options"), "deny", "{method} {path}");
    };
    let (text, html) = ("text/plain; charset=utf-8", "text/html; charset=utf-8");
    check("GET", "/webapi", 307, "", "/webapi/");
    check("GET", "/webapi/", 303, html, "/webapi/v0/");
    check("POST", "/webapi/", 405, text, "");
    check("GET", "/webapi/v0/", 200, html, "");
    check("POST", "/webapi/v0/", 200, html, "");
    check("GET", "/webapi/v0/Send", 200, html, "");
    check("GET", "/webapi/v0/SuppressionList", 200, html, "");
    check("PUT", "/webapi/v0/Send", 405, text, "");
    check("HEAD", "/webapi/v0/Send", 405, text, "");
    check("GET", "/webapi/v0/send", 404, text, "");
    check("POST", "/webapi/v0/Nope", 404, text, "");
    check("GET", "/webapi/v0/MessageGet", 404, text, "");
    check("POST", "/webapi/v1/Send", 404, text, "");
    check("GET", "/webapi/v0", 404, text, "");
    check("POST", "/webapi/v0/Send", 401, text, "");
    check("GET", "/nothing", 404, text, "");
    check("GET", "/healthz", 200, text, "");
    check("GET", "/readyz", 200, text, "");
}

#[test]
fn a_mount_at_the_root() {
    let site = Site::new(Config { webapi: "/".parse().unwrap(), ..Config::default() });
    let got = site.ask(from_peer("GET", "/v0/Send").body(Body::empty()).unwrap());
    assert_eq!(got.status, 200);
}

#[test]
fn ready_says_why_not() {
    let program = Arc::new(Program { stopped: Some("disk full"), ..Program::default() });
    let site = Site { router: crate::router(Arc::clone(&program), Config::default()), program };
    let got = site.ask(from_peer("GET", "/readyz").body(Body::empty()).unwrap());
    assert_eq!((got.status, got.body.as_str()), (503, "disk full\n"));
}

#[test]
fn logins() {
    let site = Site::new(Config::default());
    let check = |user: &str, password: &str, status: u16, header: (&str, &str)| {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let got = site.call_as(&basic, "Send", "{}", &[]);
        assert_eq!((got.status, got.header(header.0)), (status, header.1), "{user}");
        got.body
    };
    let challenge = ("www-authenticate", "Basic realm=webapi");
    let unknown = check("nobody@localhost", "moxmoxmox", 401, challenge);
    assert_eq!(check("mox@localhost", "wrong", 401, challenge), unknown);
    assert_ne!(check("nologin@localhost", "moxmoxmox", 401, challenge), unknown);
    check("many@localhost", "x", 429, ("retry-after", "42"));
    let panicked = check("panic@localhost", "x", 400, ("content-type", "application/json; charset=utf-8"));
    assert_eq!(panicked, "{\"Code\":\"server\",\"Message\":\"unhandled error\"}\n");
}

#[test]
fn every_method_demands_its_scope_of_a_key() {
    let site = Site::new(Config::default());
    let call = |token: &str, method: &str, json: &str| {
        let request = from_peer("POST", &format!("/webapi/v0/{method}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let got = site.ask(request.body(Body::from(json.to_owned())).unwrap());
        (got.status, got.body)
    };
    let check = |method: &str, json: &str, demands: &str| {
        for scope in postledger_events::fact::access::Scope::ALL.map(|scope| scope.name()) {
            let (status, body) = call(scope, method, json);
            if scope == demands || scope == "admin" {
                assert!(
                    status == 200 || body.contains("not in this version"),
                    "{method} with {scope}: {status} {body}"
                );
            } else {
                let refused = format!("403 - forbidden - key 7 lacks the scope {demands}\n");
                assert_eq!((status, body), (403, refused), "{method} with {scope}");
            }
        }
        let (status, body) = call(&format!("operator:{demands}"), method, json);
        assert_eq!((status, body.contains("for no account")), (403, true), "{method}");
        assert_eq!(call("nonsense", method, json), (401, format!("{}\n", crate::status::BAD_CREDENTIALS)));
    };
    check("Send", r#"{"To":[{"Address":"x@y.example"}],"Text":"t"}"#, "send");
    check("SuppressionList", "{}", "read");
    check("SuppressionPresent", r#"{"EmailAddress":"x@y.example"}"#, "read");
    check("SuppressionAdd", r#"{"EmailAddress":"x@y.example"}"#, "suppressions");
    check("SuppressionRemove", r#"{"EmailAddress":"x@y.example"}"#, "suppressions");
    for method in ["MessageGet", "MessageRawGet", "MessagePartGet"] {
        check(method, "{}", "read");
    }
    for method in ["MessageDelete", "MessageFlagsAdd", "MessageFlagsRemove", "MessageMove"] {
        check(method, "{}", "mailboxes");
    }
}

#[test]
fn what_a_key_does_is_told_of_the_key() {
    let site = Site::new(Config::default());
    let call = |token: &str, method: &str, json: &str| {
        let request = from_peer("POST", &format!("/webapi/v0/{method}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        assert_eq!(site.ask(request.body(Body::from(json.to_owned())).unwrap()).status, 200);
    };
    call("send", "Send", r#"{"To":[{"Address":"x@y.example"}],"Text":"t"}"#);
    call("suppressions", "SuppressionAdd", r#"{"EmailAddress":"x@y.example"}"#);
    let sent = site.program.sent.lock().unwrap();
    assert_eq!(
        (sent[0].login.user.as_str(), sent[0].draft.from.address.to_string()),
        ("key:7", "first@localhost".to_owned())
    );
    let executed = site.program.executed.lock().unwrap();
    let Command::Suppress(suppress) = &executed[0] else { panic!("{executed:?}") };
    assert_eq!(suppress.by, Author("key:7".to_owned()));
}

#[test]
fn checks_come_in_order() {
    let site = Site::new(Config { forwarded: true, ..Config::default() });
    let cross_site = [("origin", "https://evil.example"), ("host", "localhost")];
    assert_eq!(site.call("Send", "{}", &cross_site).status, 403);
    assert_eq!(site.call_as("!", "Send", "{}", &[]).status, 401);
    assert_eq!(site.call("Send", "{}", &[]).status, 500);
    assert_eq!(*site.program.logins.lock().unwrap(), 0);
    let forwarded = ("x-forwarded-for", "198.51.100.7");
    assert_eq!(site.call("Nope", "{}", &[]).status, 404);
    let got = site.call("Send", "[]", &[forwarded]);
    assert_eq!((got.status, got.body.contains("\"protocol\"")), (400, true));
    let got = site.call("MessageGet", "{\"MsgID\":1}", &[forwarded]);
    assert_eq!((got.status, got.body.as_str()), (400, "{\"Code\":\"server\",\"Message\":\"not in this version\"}\n"));
}

#[test]
fn what_send_refuses() {
    let site = Site::new(Config::default());
    let check = |json: &str, status: u16, code: &str, message: &str| {
        let got = site.call("Send", json, &[]);
        let error: serde_json::Value = serde_json::from_str(&got.body).unwrap();
        let seen = (got.status, error["Code"].as_str().unwrap(), error["Message"].as_str().unwrap());
        assert!(seen.0 == status && seen.1 == code && seen.2.contains(message), "{json} {seen:?}");
        assert_eq!(error.as_object().unwrap().len(), 2);
    };
    let to = r#""To":[{"Address":"mox@localhost"}],"Text":"x""#;
    check("null", 400, "missingBody", "at least text or html body required");
    check(&format!("{{{to},\"Nope\":1}}"), 400, "protocol", "json: unknown field \"Nope\"");
    check(&format!("{{{to},\"Date\":\"yesterday\"}}"), 400, "protocol", "parsing time \"yesterday\"");
    check(r#"{"From":[{},{}],"Text":"x"}"#, 400, "multipleFrom", "multiple from-addresses not allowed");
    check(
        r#"{"From":[{"Address":"x"}],"Text":"x"}"#,
        400,
        "badAddress",
        "parsing address \"x\": invalid email address: expected @",
    );
    check(r#"{"CC":[{"Address":"<x@y>"}],"Text":"x"}"#, 400, "badAddress", "parsing address \"<x@y>\"");
    check(r#"{"To":[{"Address":"mox@"}],"Text":"x"}"#, 400, "badAddress", "");
    check(
        r#"{"To":[{"Name":"a\tb","Address":"mox@localhost"}],"Text":"x"}"#,
        400,
        "user",
        "checking header values: control characters not allowed",
    );
    check(r#"{"From":[{"Address":"mox@elsewhere.example"}],"Text":"x"}"#, 400, "badFrom", "");
    check(r#"{"From":[{"Address":"mox@disabled.example"}],"Text":"x"}"#, 400, "domainDisabled", "");
    check(r#"{"Text":"x"}"#, 400, "noRecipients", "no recipients");
    check(&format!(r#"{{{to},"ReplyTo":[{{"Address":"x"}}]}}"#), 400, "badAddress", "");
    check(&format!(r#"{{{to},"AttachedFiles":[{{"Data":"?"}}]}}"#), 400, "user", "base64");
    check(&format!(r#"{{{to},"Date":"9999-12-31T23:59:59Z"}}"#), 400, "user", "1678");
    check(&format!(r#"{{{to},"Extra":{{"{}":""}}}}"#, "k".repeat(129)), 400, "user", "128 bytes");
    check(&format!(r#"{{{to},"Extra":{{"k":"{}"}}}}"#, "v".repeat(16 * 1024)), 400, "user", "16384 bytes");
    let keys: Vec<String> = (0..51).map(|n| format!("\"{n}\":\"\"")).collect();
    check(&format!(r#"{{{to},"Extra":{{{}}}}}"#, keys.join(",")), 400, "user", "50 keys");
    let many = |n: usize| -> String {
        let people: Vec<String> = (0..n).map(|n| format!(r#"{{"Address":"{n}@localhost"}}"#)).collect();
        format!(r#"{{"BCC":[{}],"Text":"x"}}"#, people.join(","))
    };
    check(&many(1001), 400, "user", "more than 1000 recipients");
    check(&many(101), 400, "messageLimitReached", "");
    let subject = |subject: &str| format!(r#"{{{to},"Subject":"{subject}"}}"#);
    assert!(site.program.sent.lock().unwrap().is_empty());
    check(&subject("quota"), 400, "sentOverQuota", "nothing was sent");
    check(&subject("id"), 400, "malformedMessageID", "no <>");
    check(&subject("mismatch"), 422, "idempotencyMismatch", "");
    check(&subject("in flight"), 409, "idempotencyInFlight", "");
    check(&subject("stopped"), 503, "server", "disk full");
}

#[test]
fn what_send_sends() {
    let site = Site::new(Config::default());
    let request = r#"{
        "to": [{"Name": "To", "Address": "u\u0308@Localhost"}, {"Address": "\u00fc@localhost"}],
        "CC": [{"Address": "<&>"}], "BCC": [],
        "Text": "x"
    }"#;
    let request = request.replace("\"<&>\"", "\"a&b@localhost\"");
    let headers =
        [("idempotency-key", "order-1"), ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    let got = site.call_as("bW94K3hAbG9jYWxob3N0Om1veG1veG1veA==", "Send", &request, &headers);
    let expect = "{\"MessageID\":\"<id@localhost>\",\"Submissions\":[\
                  {\"Address\":\"u\u{308}@Localhost\",\"QueueMsgID\":1,\"FromID\":\"fromid\"},\
                  {\"Address\":\"a&b@localhost\",\"QueueMsgID\":2,\"FromID\":\"\"}]}\n";
    assert_eq!((got.status, got.body.as_str()), (200, expect));
    assert_eq!(got.header("content-type"), "application/json; charset=utf-8");
    let sent = site.program.sent.lock().unwrap().pop().unwrap();
    assert_eq!(sent.login.user, "mox+x@localhost");
    assert_eq!(sent.draft.from.address.to_string(), "mox+x@localhost");
    assert_eq!(sent.draft.to.len(), 2);
    assert_eq!(sent.draft.message_id, None);
    assert_eq!(sent.trace.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    let key = sent.idempotency.unwrap();
    assert_eq!((key.method, key.key.as_str()), ("Send", "order-1"));
}

#[test]
fn idempotency_is_about_what_is_meant() {
    let site = Site::new(Config::default());
    let hash = |json: &str| {
        site.call("Send", json, &[("idempotency-key", "k")]);
        site.program.sent.lock().unwrap().pop().unwrap().idempotency.unwrap().request
    };
    let one = hash(r#"{"To":[{"Address":"mox@localhost"}],"Text":"x"}"#);
    assert_eq!(hash(r#"{ "text":"x", "CC":null, "to":[{"address":"mox@localhost"}] }"#), one);
    assert_ne!(hash(r#"{"To":[{"Address":"mox@localhost"}],"Text":"y"}"#), one);
    assert_ne!(hash(r#"{"CC":[{"Address":"mox@localhost"}],"Text":"x"}"#), one);
    let got = site.call("Send", r#"{"Text":"x"}"#, &[("idempotency-key", "a b")]);
    assert!(got.status == 400 && got.body.contains("\"user\""), "{}", got.body);
}

#[test]
fn files_of_json_come_before_those_of_the_form() {
    let site = Site::new(Config::default());
    let request =
        r#"{"To":[{"Address":"mox@localhost"}],"Text":"x","AttachedFiles":[{"Name":"a","Data":"AQID\nBA=="}]}"#;
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=request\r\n\r\n{request}\r\n--b\r\nContent-Disposition: \
         form-data; name=attachedfile; filename=b\r\nContent-Type: text/x\r\n\r\nB\r\n--b--\r\n"
    );
    let headers = [
        ("authorization", "Basic bW94QGxvY2FsaG9zdDptb3htb3htb3g="),
        ("content-type", "multipart/form-data; boundary=b"),
    ];
    let request = headers.iter().fold(from_peer("POST", "/webapi/v0/Send"), |r, (name, value)| r.header(*name, *value));
    assert_eq!(site.ask(request.body(Body::from(body)).unwrap()).status, 200);
    let draft = site.program.sent.lock().unwrap().pop().unwrap().draft;
    let files: Vec<_> =
        draft.attached_files.iter().map(|f| (f.name.as_str(), f.content_type.as_str(), &f.data[..])).collect();
    assert_eq!(files, [("a", "", &[1, 2, 3, 4][..]), ("b", "text/x", b"B")]);
}

#[test]
fn suppressions() {
    let site = Site::new(Config::default());
    let check = |method: &str, json: &str, status: u16, body: &str| {
        let got = site.call(method, json, &[]);
        assert!(got.status == status && got.body.contains(body), "{method} {} {}", got.status, got.body);
    };
    check("SuppressionList", "{}", 200, "{\"Suppressions\":[]}\n");
    check("SuppressionList", "{\"x\":1}", 400, "\"protocol\"");
    check("SuppressionPresent", "{\"EmailAddress\":\"a@localhost\"}", 200, "{\"Present\":false}\n");
    check("SuppressionPresent", "{\"EmailAddress\":\"\"}", 400, "\"badAddress\"");
    check("SuppressionAdd", "{\"EmailAddress\":\"a@localhost\",\"Reason\":\"again\"}", 400, "\"error\"");
    check("SuppressionAdd", "{\"EmailAddress\":\"bad\"}", 400, "\"badAddress\"");
    site.program.executed.lock().unwrap().clear();
    check("SuppressionAdd", "{\"EmailAddress\":\"a@localhost\",\"Manual\":true}", 200, "{}\n");
    check("SuppressionRemove", "{\"EmailAddress\":\"a@localhost\"}", 200, "{}\n");
    let executed = site.program.executed.lock().unwrap();
    let [Command::Suppress(add), Command::LiftSuppression(lift)] = &executed[..] else { panic!("{executed:?}") };
    assert_eq!((add.by.0.as_str(), add.manual, lift.by.0.as_str()), ("account:mox", true, "account:mox"));
}

#[test]
fn pages_need_nothing_from_elsewhere() {
    let site = Site::new(Config::default());
    for path in ["/webapi/v0/", "/webapi/v0/Send", "/webapi/v0/SuppressionAdd"] {
        let body = site.ask(from_peer("GET", path).body(Body::empty()).unwrap()).body;
        assert!(!body.contains("src=") && !body.contains("@import") && !body.contains("{name}"), "{path}");
        assert!(!body.contains("MessageGet"), "{path}");
    }
}
