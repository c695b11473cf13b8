//! A request over HTTP, through the whole router: it is answered as the contract says, no defect shows, and what it submits is a
//! message that says what was asked for and nothing else.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use bytes::Bytes;
use postledger::mail::compose::{Context, compose};
use postledger::smtp::data::is_canonical;
use postledger_events::address::{Address, Domain};
use postledger_events::command::Submitted;
use postledger_events::fact::account::DkimAlgorithm;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{
    AccountName, Author, DeliveryId, EndpointName, HoldRuleId, JobId, KeyId, MessageUuid, RecipientKey, Selector, Seq,
    Sha256,
};
use postledger_events::refusal::RECIPIENTS_MAX;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Memory, Order, Rows, Table};
use postledger_web::api::tail::Tail;
use postledger_web::api::verify::{Line, Wish};
use postledger_web::port::*;
use postledger_web::{Config, LocalUser, Peer, router};
use tokio::sync::mpsc;
use tower::ServiceExt;

const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// `mox@localhost` with any password.
const AUTHORIZATION: HeaderValue = HeaderValue::from_static("Basic bW94QGxvY2FsaG9zdDptb3htb3htb3g=");

/// A request line, header lines, an empty line and a body; with any line ends, and without a version.
pub fn check(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    let config = Config { message_bytes_max: MESSAGE_BYTES_MAX, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (status, content_type, body) = runtime.block_on(async {
        let response = router(Arc::new(Program::default()), config)
            .oneshot(request)
            .await
            .unwrap_or_else(|e: Infallible| match e {});
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
        (head.status, content_type, to_bytes(body, RESPONSE_BYTES_MAX).await.expect("a body that ends"))
    });
    let shown = String::from_utf8_lossy(&body);
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{shown}");
    assert!(!shown.contains(r#""Code":"server""#), "we are at fault: {shown}");
    if content_type.is_some_and(|is| is.as_bytes().starts_with(b"application/json")) {
        let json: Result<serde_json::Value, _> = serde_json::from_slice(&body);
        assert!(json.is_ok(), "{status} with what is no JSON: {shown}");
    }
}

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let (line, mut rest) = first_line(bytes)?;
    let (method, uri) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method.parse::<Method>().ok()?;
    *request.uri_mut() = uri.parse::<Uri>().ok()?;
    while let Some((line, after)) = first_line(rest) {
        rest = after;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':')?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(HeaderName::from_bytes(&line[..colon]).ok()?, value);
    }
    request.headers_mut().entry(header::AUTHORIZATION).or_insert(AUTHORIZATION);
    request.extensions_mut().insert(Peer { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 5)), tls: false });
    request.extensions_mut().insert(LocalUser("tester".to_owned()));
    *request.body_mut() = Body::from(rest.to_vec());
    Some(request)
}

fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), &bytes[end + 1..]))
}

/// What may reach the program, and the message that it makes of it.
fn check_send(request: &SendRequest) -> Result<String, SendError> {
    let SendRequest { draft, recipients, .. } = request;
    assert!(recipients.len() <= RECIPIENTS_MAX, "{} recipients", recipients.len());
    for (n, (address, given)) in recipients.iter().enumerate() {
        assert_eq!(Address::parse(given).as_ref(), Ok(address), "as it was written");
        assert!(recipients[..n].iter().all(|(other, _)| other != address), "{address} gets it once");
        let named = draft.to.iter().chain(&draft.cc).chain(&draft.bcc).any(|person| person.address == *address);
        assert!(named, "nobody named {address}");
    }
    let context = Context {
        hostname: "localhost",
        now: Timestamp::EPOCH,
        message_id_random: [1; 16],
        boundary_random: [2; 16],
        user_agent: "postledger/test",
        size_max: MESSAGE_BYTES_MAX,
    };
    let composed = compose(draft, &context).map_err(|e| SendError::Compose(ComposeFault::User, e.to_string()))?;
    check_message(&composed.message, draft.headers.len());
    assert!(composed.message.len() as u64 <= MESSAGE_BYTES_MAX, "{} bytes", composed.message.len());
    assert!(composed.eight_bit || composed.message.is_ascii(), "a next hop must know that it has 8-bit bytes");
    Ok(composed.message_id)
}

/// Nothing in a request can end a line of the header, or the header.
fn check_message(message: &[u8], custom_fields: usize) {
    assert!(is_canonical(message), "CR or LF stand alone: {}", message.escape_ascii());
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").expect("a header ends");
    let header = String::from_utf8_lossy(&message[..end]);
    let names: Vec<&str> = header
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field")).0)
        .collect();
    for name in ["From", "To", "Cc", "Subject", "Date", "Message-Id", "Reply-To", "References", "MIME-Version"] {
        let count = names.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
        let least = usize::from(["From", "Date", "Message-Id", "MIME-Version"].contains(&name));
        assert!((least..=1).contains(&count), "{count} fields {name} in {header:?}");
    }
    // Four of Content and three of threads, at most, beside those above and the agent.
    assert!(names.len() <= custom_fields + 15, "{header:?}");
}

/// A program without a ledger, which takes what may be taken.
#[derive(Default)]
struct Program {
    tail: Tail,
}

struct Moment(Memory);

impl Rows for Moment {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, Error> {
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

    fn record_line(&self, _: Seq) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    fn lines_after(&self, _: Seq, _: usize) -> Result<Vec<(Seq, Vec<u8>)>, Error> {
        Ok(Vec::new())
    }

    fn body(&self, _: &BodyRef) -> Result<Bytes, std::io::Error> {
        Ok(Bytes::new())
    }

    fn export(&self, after: Seq, _: Option<Sha256>) -> Result<Pieces, ExportError> {
        Err(ExportError::CutOff { after, last_common: self.position() })
    }

    fn vault(&self) -> Result<Bytes, String> {
        Ok(Bytes::new())
    }
}

impl Port for Program {
    type View = Moment;

    async fn login(&self, user: &str, _: &str, _: IpAddr) -> Result<Login, LoginError> {
        let address = Address::parse(user).map_err(|_| LoginError::BadCredentials)?;
        let account = AccountName::new("mox").expect("a name");
        Ok(Login { account, user: user.to_owned(), address: Some(address), key: None })
    }

    async fn login_admin(&self, _: &str, _: IpAddr) -> Result<(), LoginError> {
        Ok(())
    }

    async fn login_key(&self, _: &str, _: IpAddr) -> Result<Holder, LoginError> {
        Err(LoginError::BadCredentials)
    }

    async fn send(&self, request: SendRequest) -> Result<Submitted, SendError> {
        let message_id = check_send(&request)?;
        let recipients = (1..).zip(request.recipients).map(|(n, (_, given))| (given, DeliveryId(n), None)).collect();
        Ok(Submitted { message: MessageUuid(uuid::Uuid::nil()), message_id, recipients, repeated: false })
    }

    fn preflight(&self, _: &AccountName, _: &Address, recipients: &[Address]) -> Result<(), Refusal> {
        if recipients.is_empty() { Err(Refusal::NoRecipients) } else { Ok(()) }
    }

    fn recipient_key(&self, _: &AccountName, _: &Address) -> RecipientKey {
        RecipientKey([0; 16])
    }

    async fn execute(&self, command: Command) -> Result<Answer, ExecuteError> {
        Ok(match command {
            Command::Queue(_) => Answer::Affected(1),
            Command::RemoveAccount(_) => Answer::Job(JobId(1)),
            Command::AddHoldRule(_) => Answer::HoldRule(HoldRuleId(1), JobId(1)),
            _ => Answer::Done,
        })
    }

    async fn set_password(&self, _: &AccountName, _: &str, _: Author) -> Result<(), ExecuteError> {
        Ok(())
    }

    async fn set_transport(&self, _: NewTransport, _: Author) -> Result<(), ExecuteError> {
        Ok(())
    }

    async fn set_endpoint(&self, _: NewEndpoint, _: bool, _: Author) -> Result<Option<String>, ExecuteError> {
        Ok(None)
    }

    async fn redeliver(&self, _: Redelivery) -> Result<Submitted, ExecuteError> {
        Err(ExecuteError::InFlight)
    }

    async fn test_call(&self, _: &AccountName, _: &EndpointName, _: Author) -> Result<TestCall, ExecuteError> {
        Err(ExecuteError::InFlight)
    }

    async fn add_key(&self, _: NewKey, _: Author) -> Result<(KeyId, String), ExecuteError> {
        Ok((KeyId(1), "pl_1_secret".to_owned()))
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    /// A stream ends at once, or no request for one would.
    async fn stopping(&self) {}

    async fn generate_dkim(
        &self,
        _: &Domain,
        _: &Selector,
        _: DkimAlgorithm,
        _: Author,
    ) -> Result<String, ExecuteError> {
        Ok(String::new())
    }

    fn view(&self) -> Moment {
        Moment(Memory::default())
    }

    fn status(&self) -> Status {
        Status {
            accepting: Ok(()),
            position: Seq(0),
            lagging: Vec::new(),
            warnings: Vec::new(),
            verified: None,
            free_bytes: 0,
        }
    }

    fn verify(&self, _: Wish) -> Option<mpsc::Receiver<Line>> {
        None
    }

    async fn wait_past(&self, _: Seq) {}

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}
