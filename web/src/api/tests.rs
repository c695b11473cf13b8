//! The API from outside: how requests fail, and that no account sees or changes what is another's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use postledger_events::address::{Address, Domain};
use postledger_events::command::{AddKey, Submitted};
use postledger_events::fact::access::{CursorSet, KeyAdded};
use postledger_events::fact::account::{AccountConfigured, AccountPersonal, AccountSettings, DkimAlgorithm};
use postledger_events::fact::delivery::{CanceledDelivery, DeliveryCanceled};
use postledger_events::fact::job::QueueFilter;
use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
use postledger_events::fact::mailbox::{MailboxCopy, MessageReceived};
use postledger_events::fact::replay::{ReplayEnd, ReplayEnded, ReplayScope, ReplayStarted};
use postledger_events::fact::submission::{
    BodyRef, MessageSubmitted, SubmissionPersonal, SubmittedDelivery, SubmittedRecipient, Via,
};
use postledger_events::fact::suppression::{AddressSuppressed, Cause, SuppressionPersonal};
use postledger_events::id::{
    AccountName, Author, CursorName, DeliveryId, EndpointName, Fingerprint, JobId, KeyId, MailboxName, MessageUuid,
    MsgId, RecipientKey, ReplayId, SecretId, SecretRef, Selector, Seq, Sha256, SuppressionId,
};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Event, Record, Refusal};
use postledger_projections::rows::{Key, Value as Row};
use postledger_projections::{Error, Memory, Order, Rows, Table, fold};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::api::place::Place;
use crate::api::tail::Tail;
use crate::api::verify::{Line, Wish};
use crate::peer::{LocalUser, Peer};
use crate::port::*;
use crate::{Config, Site};

/// Two accounts, `a` and `b`, which have one of everything each.
pub(super) struct Program {
    moment: Mutex<Moment>,
    position: watch::Sender<Seq>,
    executed: Mutex<Vec<Command>>,
    redelivered: Mutex<Vec<Redelivery>>,
    tail: Tail,
    /// Whether it is asked to stop.
    pub(super) stop: watch::Sender<bool>,
    /// How often the log was read.
    pub(super) reads: Arc<AtomicUsize>,
}

#[derive(Clone)]
pub(super) struct Moment {
    rows: Memory,
    lines: BTreeMap<u64, Vec<u8>>,
    reads: Arc<AtomicUsize>,
}

pub(super) fn name(s: &str) -> AccountName {
    AccountName::new(s).unwrap()
}

pub(super) fn uuid(n: u64) -> MessageUuid {
    format!("00000000-0000-7000-8000-{n:012}").parse().unwrap()
}

fn body(n: u64) -> BodyRef {
    BodyRef { body: uuid(n), size: 9, sha256: Sha256::ZERO }
}

fn configured(account: &str) -> Event {
    let personal = Some(AccountPersonal { full_name: format!("secret-{account}") });
    AccountConfigured { account: name(account), settings: AccountSettings::default(), by: Author::program(), personal }
        .into()
}

pub(super) fn submitted(account: &str, n: u64) -> Event {
    let to: Address = format!("secret-{account}@example.net").parse().unwrap();
    MessageSubmitted {
        message: uuid(n),
        account: name(account),
        via: Via::Webapi,
        body: body(n),
        eight_bit: false,
        smtputf8: false,
        require_tls: None,
        due: Timestamp::from_secs(100),
        future_release: None,
        separator: None,
        keep_s: 0,
        keep_contents: false,
        deliveries: vec![SubmittedDelivery {
            id: DeliveryId(n),
            recipient: RecipientKey([0; 16]),
            domain: to.domain.clone(),
            fromid: None,
            hold: None,
        }],
        sent_copy: None,
        origin: None,
        idempotency: None,
        trace: None,
        code_version: "0".to_owned(),
        personal: Some(SubmissionPersonal {
            login: String::new(),
            client: None,
            from: to.clone(),
            reverse_path: None,
            recipients: vec![SubmittedRecipient::new(to, "")],
            message_id: String::new(),
            subject: format!("secret-{account}"),
            extra: Default::default(),
            idempotency_key: None,
        }),
    }
    .into()
}

pub(super) fn suppressed(account: &str, n: u64) -> Event {
    let original_address: Address = format!("secret-{account}@example.org").parse().unwrap();
    AddressSuppressed {
        id: SuppressionId(n),
        account: name(account),
        recipient: RecipientKey([0; 16]),
        cause: Cause::Person(Author::program()),
        manual: false,
        idempotency: None,
        personal: Some(SuppressionPersonal {
            base_address: original_address.to_string(),
            original_address,
            reason: String::new(),
        }),
    }
    .into()
}

/// A message that came in for these accounts.
fn received(accounts: &[&str], n: u64) -> Event {
    let copies = (n..).zip(accounts).map(|(id, account)| MailboxCopy {
        account: name(account),
        mailbox: MailboxName::inbox(),
        msg_id: MsgId(id),
        recipient: 0,
    });
    let copies = copies.collect();
    MessageReceived { body: body(n), copies, tls: None, smtputf8: false, notice_of: None, personal: None }.into()
}

impl Program {
    pub(super) fn new() -> Program {
        let events = [
            configured("a"),
            configured("b"),
            submitted("a", 1),
            submitted("b", 2),
            suppressed("a", 1),
            suppressed("b", 2),
            received(&["a"], 11),
            received(&["b"], 12),
            received(&["a", "b"], 13),
        ];
        Program::of((1..).zip(events))
    }

    /// A ledger that was restored: records 4 to 19 are of another branch.
    pub(super) fn branched() -> Program {
        let branched = LedgerBranched {
            from_seq: Seq(3),
            from_hash: Sha256::ZERO,
            next_seq: Seq(20),
            numbers: LastNumbers::NONE,
            job: JobId(1),
            reason: String::new(),
            by: Author::program(),
        };
        let events = [(1, configured("a")), (2, configured("b")), (3, submitted("a", 1)), (20, branched.into())];
        Program::of(events.into_iter().chain([(21, submitted("a", 2))]))
    }

    fn of(events: impl IntoIterator<Item = (u64, Event)>) -> Program {
        let reads = Arc::new(AtomicUsize::new(0));
        let moment = Moment { rows: Memory::default(), lines: BTreeMap::new(), reads: Arc::clone(&reads) };
        let program = Program {
            moment: Mutex::new(moment),
            position: watch::Sender::new(Seq(0)),
            executed: Mutex::default(),
            redelivered: Mutex::default(),
            tail: Tail::default(),
            stop: watch::Sender::new(false),
            reads,
        };
        events.into_iter().for_each(|(seq, event)| program.append(seq, event));
        program
    }

    pub(super) fn append(&self, seq: u64, event: Event) {
        self.append_at(seq, Timestamp::from_secs(100), event);
    }

    fn append_at(&self, seq: u64, at: Timestamp, event: Event) {
        let record = Record { seq: Seq(seq), at, prev: Sha256::ZERO, event };
        let mut moment = self.moment.lock().unwrap();
        fold(&record, &mut moment.rows).unwrap();
        moment.lines.insert(seq, record.to_line());
        drop(moment);
        self.position.send_replace(Seq(seq));
    }
}

impl Rows for Moment {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, Error> {
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, Error> {
        self.rows.scan(table, start, end, order, limit)
    }
}

impl View for Moment {
    fn first_due(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn position(&self) -> Seq {
        Seq(self.lines.keys().last().copied().unwrap_or(0))
    }

    fn record_line(&self, seq: Seq) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.lines.get(&seq.0).cloned())
    }

    fn lines_after(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, Vec<u8>)>, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        part_of(self.lines.range(after.0 + 1..).map(|(seq, line)| Ok((Seq(*seq), line.clone()))), limit)
    }

    fn body(&self, _: &BodyRef) -> Result<Bytes, std::io::Error> {
        Ok(Bytes::from_static(b"raw bytes"))
    }

    fn export(&self, after: Seq, _: Option<Sha256>) -> Result<Pieces, ExportError> {
        if after > self.position() {
            return Err(ExportError::CutOff { after, last_common: self.position() });
        }
        Ok(Box::new([Bytes::from_static(b"one\n"), Bytes::from_static(b"two\n")].into_iter()))
    }

    fn vault(&self) -> Result<Bytes, String> {
        Ok(Bytes::from_static(b"secrets"))
    }
}

impl Port for Program {
    type View = Moment;

    async fn login(&self, user: &str, password: &str, _: IpAddr) -> Result<Login, LoginError> {
        let address: Address = user.parse().map_err(|_| LoginError::BadCredentials)?;
        match password {
            "right" => {
                let account = name(address.localpart.as_str());
                Ok(Login { account, user: user.to_owned(), address: Some(address), key: None })
            }
            _ => Err(LoginError::BadCredentials),
        }
    }

    async fn login_admin(&self, password: &str, _: IpAddr) -> Result<(), LoginError> {
        if password == "right" { Ok(()) } else { Err(LoginError::BadCredentials) }
    }

    /// A token is its scopes, of account a or of operators: `a:read,queue`.
    async fn login_key(&self, token: &str, _: IpAddr) -> Result<Holder, LoginError> {
        let (owner, scopes) = token.split_once(':').ok_or(LoginError::BadCredentials)?;
        let scopes = scopes.split(',').map(|scope| scope.parse().map_err(|_| LoginError::BadCredentials));
        let key = crate::port::Key { key: KeyId(7), scopes: scopes.collect::<Result<_, _>>()? };
        if owner == "operators" {
            return Ok(Holder::Operator(key));
        }
        Ok(Holder::Account(Login { account: name(owner), user: "key:7".to_owned(), address: None, key: Some(key) }))
    }

    async fn send(&self, _: SendRequest) -> Result<Submitted, SendError> {
        Err(SendError::InFlight)
    }

    fn preflight(&self, _: &AccountName, _: &Address, _: &[Address]) -> Result<(), Refusal> {
        Ok(())
    }

    fn recipient_key(&self, _: &AccountName, _: &Address) -> RecipientKey {
        RecipientKey([0; 16])
    }

    async fn execute(&self, command: Command) -> Result<Answer, ExecuteError> {
        let answer = match &command {
            Command::Queue(_) => Answer::Affected(1),
            _ => Answer::Done,
        };
        self.executed.lock().unwrap().push(command);
        Ok(answer)
    }

    async fn set_password(&self, _: &AccountName, _: &str, _: Author) -> Result<(), ExecuteError> {
        Ok(())
    }

    async fn set_endpoint(&self, _: NewEndpoint, _: bool, _: Author) -> Result<Option<String>, ExecuteError> {
        unreachable!("no test sets an endpoint")
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
        Ok(())
    }

    async fn redeliver(&self, wish: Redelivery) -> Result<Submitted, ExecuteError> {
        self.redelivered.lock().unwrap().push(wish.clone());
        let recipients = wish.deliveries.iter().map(|id| (String::new(), DeliveryId(id.0 + 100), None)).collect();
        Ok(Submitted { message: uuid(99), message_id: String::new(), recipients, repeated: false })
    }

    async fn generate_dkim(
        &self,
        _: &Domain,
        _: &Selector,
        _: DkimAlgorithm,
        _: Author,
    ) -> Result<String, ExecuteError> {
        Ok(String::new())
    }

    async fn wait_past(&self, seq: Seq) {
        self.position.subscribe().wait_for(|position| *position > seq).await.unwrap();
    }

    async fn add_key(&self, key: NewKey, by: Author) -> Result<(KeyId, String), ExecuteError> {
        let NewKey { account, label, scopes, expires, networks } = key;
        let hash = SecretRef { id: SecretId(uuid::Uuid::nil()), fingerprint: Fingerprint([0; 8]) };
        let command = AddKey { account, label, scopes, hash, expires, networks, by };
        self.executed.lock().unwrap().push(Command::AddKey(command));
        Ok((KeyId(8), "pl_8_secret".to_owned()))
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    async fn stopping(&self) {
        self.stop.subscribe().wait_for(|stop| *stop).await.unwrap();
    }

    fn view(&self) -> Moment {
        self.moment.lock().unwrap().clone()
    }

    fn verify(&self, _: Wish) -> Option<tokio::sync::mpsc::Receiver<Line>> {
        None
    }

    fn status(&self) -> Status {
        Status {
            accepting: Ok(()),
            position: self.view().position(),
            lagging: Vec::new(),
            warnings: Vec::new(),
            verified: None,
            free_bytes: 0,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }
}

/// Who sends a request.
#[derive(Clone, Copy)]
pub(super) enum As {
    Nobody,
    Admin,
    A,
    Local,
}

pub(super) fn request(by: As, method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = match by {
        // admin:right, a@x.example:right
        As::Admin => request.header(header::AUTHORIZATION, "Basic YWRtaW46cmlnaHQ="),
        As::A => request.header(header::AUTHORIZATION, "Basic YUB4LmV4YW1wbGU6cmlnaHQ="),
        As::Nobody | As::Local => request,
    };
    let mut request = request.body(body.into()).unwrap();
    match by {
        As::Local => request.extensions_mut().insert(LocalUser("root".to_owned())).is_none(),
        As::Nobody | As::Admin | As::A => {
            request.extensions_mut().insert(Peer { addr: "192.0.2.1:5".parse().unwrap(), tls: false }).is_none()
        }
    };
    request
}

pub(super) async fn send(program: &Arc<Program>, request: Request<Body>) -> Response<Body> {
    let site = Arc::new(Site { port: Arc::clone(program), config: Config::default() });
    super::router(site).oneshot(request).await.unwrap()
}

pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn get(by: As, path: &str) -> (u16, String) {
    let response = send(&Arc::new(Program::new()), request(by, Method::GET, path, "")).await;
    (response.status().as_u16(), text(response).await)
}

#[tokio::test]
async fn whatever_fails_is_told_as_a_problem() {
    let program = Arc::new(Program::new());
    let check = async |request: Request<Body>, status: u16| {
        let what = format!("{} {}", request.method(), request.uri());
        let response = send(&program, request).await;
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401, "{what}");
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405, "{what}");
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(problem["status"], status, "{what}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{what}");
    };
    check(request(As::Nobody, Method::GET, "/queue", ""), 401).await;
    check(request(As::Nobody, Method::GET, "/nothing", ""), 404).await;
    check(request(As::Admin, Method::PUT, "/queue", ""), 405).await;
    check(request(As::Admin, Method::GET, "/queue?nonsense=1", ""), 400).await;
    check(request(As::Admin, Method::GET, "/queue?limit=0", ""), 422).await;
    check(request(As::Admin, Method::GET, "/queue?cursor=x", ""), 422).await;
    check(request(As::Admin, Method::GET, "/queue/99", ""), 404).await;
    check(request(As::Admin, Method::GET, "/queue/x", ""), 400).await;
    check(request(As::Admin, Method::GET, "/suppressions", ""), 422).await;
    check(request(As::Admin, Method::GET, "/suppressions?account=nobody", ""), 404).await;
    check(request(As::Admin, Method::GET, "/events?kind=Nonsense", ""), 422).await;
    check(request(As::Admin, Method::POST, "/queue", "{"), 400).await;
    check(request(As::Admin, Method::POST, "/queue", r#"{"action":"hold","nonsense":1}"#), 422).await;
    check(request(As::Admin, Method::POST, "/queue", r#"{"action":"hold"}"#), 422).await;
    check(request(As::Admin, Method::POST, "/holdrules", "{}"), 422).await;
    check(request(As::Admin, Method::POST, "/holdrules", vec![b' '; 1024 * 1024 + 1]), 413).await;
    let mut plain = request(As::Admin, Method::POST, "/holdrules", "{}");
    plain.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    check(plain, 415).await;
    let mut foreign = request(As::Admin, Method::GET, "/queue", "");
    foreign.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    check(foreign, 403).await;
    assert!(program.executed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn operators_see_all_and_an_account_only_its_own() {
    let paths = [
        "/accounts",
        "/queue",
        "/events",
        "/events/export",
        "/events?account=a",
        "/events?recipient=secret-a@example.net",
        "/accounts/a",
        "/suppressions?account=a",
        "/mailboxes?account=a",
        "/inbox?account=a",
        "/inbox/11?account=a",
        "/inbox/11/raw?account=a",
        "/queue/1",
        "/messages/1/timeline",
        "/messages/00000000-0000-7000-8000-000000000011/timeline",
    ];
    for path in paths {
        for by in [As::Admin, As::Local, As::A] {
            let (status, _) = get(by, path).await;
            assert_eq!(status, 200, "{path}");
        }
        let (_, answer) = get(As::A, path).await;
        assert!(!answer.contains("secret-b"), "{path}: {answer}");
    }
    for path in ["/accounts", "/queue", "/events", "/events/export"] {
        for by in [As::Admin, As::Local] {
            let (_, answer) = get(by, path).await;
            assert!(answer.contains("secret-a") && answer.contains("secret-b"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn what_is_another_accounts_is_refused_or_not_there() {
    let check = async |path: &str, status: u16| {
        assert_eq!(get(As::Admin, path).await.0, 200, "{path}");
        let (got, answer) = get(As::A, path).await;
        assert_eq!(got, status, "{path}: {answer}");
        assert!(!answer.contains("secret-b"), "{path}: {answer}");
    };
    check("/accounts/b", 403).await;
    check("/addresses?account=b", 403).await;
    check("/queue?account=b", 403).await;
    check("/queue/2", 404).await;
    check("/suppressions?account=b", 403).await;
    check("/suppressions/present?account=b&address=x@y.example", 403).await;
    check("/mailboxes?account=b", 403).await;
    check("/inbox?account=b", 403).await;
    check("/inbox/12?account=b", 403).await;
    check("/inbox/12/raw?account=b", 403).await;
    check("/events?account=b", 403).await;
    check("/messages/2/timeline", 404).await;
    check("/messages/00000000-0000-7000-8000-000000000012/timeline", 404).await;
    // This came in for both; the record names b as well.
    check("/messages/00000000-0000-7000-8000-000000000013/timeline", 404).await;
    for path in ["/domains", "/transports", "/holdrules", "/status", "/ledger/export"] {
        check(path, 403).await;
    }
    assert_eq!(get(As::A, "/inbox/12").await.0, 404);
}

#[tokio::test]
async fn an_account_changes_only_its_own() {
    let program = Arc::new(Program::new());
    let check = async |method: Method, path: &str, body: &Value, status: u16| {
        let response = send(&program, request(As::A, method, path, body.to_string())).await;
        assert_eq!(response.status().as_u16(), status, "{path} {body}");
    };
    let domain = json!({ "domain": "x.example" });
    check(Method::POST, "/accounts", &json!({ "account": "c" }), 403).await;
    check(Method::PATCH, "/accounts/a", &json!({ "quota_bytes": null }), 403).await;
    check(Method::PUT, "/accounts/a/password", &json!({ "password": "x" }), 403).await;
    check(Method::DELETE, "/accounts/b", &json!({}), 403).await;
    check(Method::POST, "/addresses", &json!({ "address": "x@y.example", "account": "a" }), 403).await;
    check(Method::POST, "/domains", &domain, 403).await;
    check(Method::DELETE, "/transports/default", &json!({}), 403).await;
    check(Method::POST, "/holdrules", &json!({ "all": true }), 403).await;
    check(Method::POST, "/suppressions", &json!({ "account": "b", "address": "x@y.example" }), 403).await;
    check(Method::DELETE, "/inbox/12?account=b", &json!({}), 403).await;
    check(Method::POST, "/queue", &json!({ "action": "cancel", "filter": { "account": "b" } }), 403).await;
    assert!(program.executed.lock().unwrap().is_empty());

    check(Method::POST, "/queue", &json!({ "action": "cancel", "all": true }), 200).await;
    check(Method::POST, "/queue", &json!({ "action": "cancel", "filter": { "ids": [2] } }), 200).await;
    check(Method::POST, "/queue", &json!({ "action": "cancel", "filter": { "to": "secret" } }), 200).await;
    let filter = |ids: &[u64]| QueueFilter {
        ids: ids.iter().copied().map(DeliveryId).collect(),
        account: Some(name("a")),
        ..QueueFilter::default()
    };
    let executed = std::mem::take(&mut *program.executed.lock().unwrap());
    let filters: Vec<QueueFilter> = executed
        .into_iter()
        .map(|command| match command {
            Command::Queue(command) => {
                assert_eq!(command.by.to_string(), "account:a");
                command.filter
            }
            other => panic!("{other:?}"),
        })
        .collect();
    // The ledger itself holds numbers that were named against the account.
    assert_eq!(filters, [filter(&[]), filter(&[2]), filter(&[1])]);
}

#[tokio::test]
async fn an_export_is_the_log_to_the_byte_and_pages_of_events_join() {
    let program = Arc::new(Program::new());
    let whole = program.view().lines.values().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect::<Vec<u8>>();
    let (status, exported) = get(As::Admin, "/events/export").await;
    assert_eq!(status, StatusCode::OK.as_u16());
    assert_eq!(exported.as_bytes(), whole);
    let (_, rest) = get(As::Admin, "/events/export?after=8").await;
    assert_eq!(rest.lines().count(), 1);
    let (mut joined, mut after) = (Vec::new(), 0);
    loop {
        let (_, part) = get(As::A, &format!("/events?limit=2&after={after}")).await;
        let part: Value = serde_json::from_str(&part).unwrap();
        joined.extend(part["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()));
        after = part["next"].as_u64().unwrap();
        if part["next"] == part["position"] {
            break;
        }
    }
    assert_eq!(joined, [1, 3, 5, 7]);
}

#[tokio::test]
async fn records_that_are_large_come_in_short_pages() {
    let program = Arc::new(Program::of([]));
    let size = PART_BYTES / 2 - 1;
    for seq in 1..=4 {
        let settings = AccountSettings::default();
        let personal = Some(AccountPersonal { full_name: "x".repeat(size) });
        program.append(seq, AccountConfigured { account: name("a"), settings, by: Author::program(), personal }.into());
    }
    let page = async |path: &str| -> (usize, Value) {
        let response = send(&program, request(As::Admin, Method::GET, path, "")).await;
        let mut page: Value = serde_json::from_str(&text(response).await).unwrap();
        (page["items"].as_array().unwrap().len(), page["next"].take())
    };
    assert_eq!(page("/events?limit=500").await, (2, json!(2)));
    assert_eq!(page("/events?limit=500&after=2").await, (2, json!(4)));
    assert_eq!(page("/events?limit=500&after=1&wait_s=1").await, (2, json!(3)));
    let exported = send(&program, request(As::Admin, Method::GET, "/events/export", "")).await;
    assert_eq!(text(exported).await.lines().count(), 4);
}

#[tokio::test]
async fn the_ledger_leaves_whole_and_secrets_only_at_this_machine() {
    assert_eq!(get(As::Admin, "/ledger/export?after=3").await, (200, "one\ntwo\n".to_owned()));
    let (status, problem) = get(As::Local, "/ledger/export?after=99").await;
    let problem: Value = serde_json::from_str(&problem).unwrap();
    assert_eq!((status, &problem["last_common"]), (409, &json!(Program::new().view().lines.len())));
    assert_eq!(get(As::Local, "/ledger/vault").await, (200, "secrets".to_owned()));
    for by in [As::Admin, As::A, As::Nobody] {
        let (status, answer) = get(by, "/ledger/vault").await;
        assert!(matches!(status, 401 | 403) && !answer.contains("\"secrets\""), "{status} {answer}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_branch_is_told_where_to_go_on() {
    let program = Arc::new(Program::branched());
    let check = async |by: As, path: &str, last_event: Option<u64>, common: Option<u64>| {
        let mut asked = request(by, Method::GET, path, "");
        if let Some(last) = last_event {
            asked.headers_mut().insert("last-event-id", last.into());
        }
        let response = send(&program, asked).await;
        let status = response.status().as_u16();
        let body = text(response).await;
        match common {
            None => assert_eq!(status, 200, "{path}: {body}"),
            Some(common) => {
                let problem: super::problem::Details = serde_json::from_str(&body).unwrap();
                assert_eq!((status, problem.last_common), (409, Some(Seq(common))), "{path}: {body}");
            }
        }
    };
    for path in ["/events?after=", "/events?wait_s=1&after=", "/events/export?after="] {
        for (after, common) in
            [(0, None), (3, None), (4, Some(3)), (19, Some(3)), (20, None), (21, None), (22, Some(0))]
        {
            for by in [As::Admin, As::A] {
                check(by, &format!("{path}{after}"), None, common).await;
                check(by, path.trim_end_matches("after="), Some(after), common).await;
                check(by, &format!("{path}{after}"), Some(99), common).await;
            }
        }
    }
}

/// A request with a key; see the login of the program.
fn with_key(token: &str, method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = request(As::Nobody, method, path, body);
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_key_may_do_what_its_owner_may_as_far_as_its_scopes_go() {
    let program = Arc::new(Program::new());
    let check = async |token: &str, method: Method, path: &str, body: Value, status: u16| {
        let response = send(&program, with_key(token, method, path, body.to_string())).await;
        let got = response.status().as_u16();
        let answer = text(response).await;
        assert_eq!(got, status, "{path} with {token}: {answer}");
        answer
    };
    let cancel = json!({ "action": "cancel", "all": true });
    let seen = check("a:read", Method::GET, "/queue", json!({}), 200).await;
    assert!(seen.contains("secret-a") && !seen.contains("secret-b"), "{seen}");
    check("a:read", Method::GET, "/queue?account=b", json!({}), 403).await;
    check("a:admin", Method::GET, "/status", json!({}), 403).await;
    check("operators:read", Method::GET, "/status", json!({}), 200).await;
    check("operators:read", Method::GET, "/ledger/vault", json!({}), 403).await;
    let refused = check("a:read", Method::POST, "/queue", cancel.clone(), 403).await;
    assert!(refused.contains("key 7 lacks the scope queue"), "{refused}");
    let refused = check("a:queue", Method::GET, "/queue", json!({}), 403).await;
    assert!(refused.contains("key 7 lacks the scope read"), "{refused}");
    check("a:read,send", Method::PUT, "/accounts/a/password", json!({ "password": "x" }), 403).await;
    check("operators:read", Method::POST, "/accounts", json!({ "account": "c" }), 403).await;
    check("nonsense", Method::GET, "/queue", json!({}), 401).await;
    assert!(program.executed.lock().unwrap().is_empty());

    check("a:queue", Method::POST, "/queue", cancel, 200).await;
    let Some(Command::Queue(command)) = program.executed.lock().unwrap().pop() else { panic!() };
    assert_eq!((command.by.to_string().as_str(), command.filter.account), ("key:7", Some(name("a"))));
}

#[tokio::test]
async fn keys_are_given_out_by_whom_they_may_be() {
    let program = Arc::new(Program::new());
    let new = |account: Option<&str>, scope: &str| json!({ "account": account, "label": "x", "scopes": [scope] });
    let check = async |request: Request<Body>, status: u16| {
        let response = send(&program, request).await;
        assert_eq!(response.status().as_u16(), status);
        let given = text(response).await;
        assert_eq!(given.contains("pl_8_secret"), status == 201, "{given}");
        program.executed.lock().unwrap().pop().map(|command| match command {
            Command::AddKey(command) => (command.account.map(|a| a.to_string()), command.by.0),
            other => panic!("{other:?}"),
        })
    };
    let by = |who: As, body: Value| request(who, Method::POST, "/keys", body.to_string());
    let by_key = |token: &str, body: Value| with_key(token, Method::POST, "/keys", body.to_string());
    let given = |account: Option<&str>, by: &str| Some((account.map(str::to_owned), by.to_owned()));
    assert_eq!(check(by(As::Local, new(None, "admin")), 201).await, given(None, "unix:root"));
    assert_eq!(check(by(As::Admin, new(Some("b"), "admin")), 201).await, given(Some("b"), "admin"));
    assert_eq!(check(by(As::A, new(None, "send")), 201).await, given(Some("a"), "account:a"));
    assert_eq!(check(by(As::A, new(Some("b"), "send")), 403).await, None);
    assert_eq!(check(by(As::A, new(None, "admin")), 403).await, None);
    assert_eq!(check(by_key("a:read,send,queue", new(None, "send")), 403).await, None);
    assert_eq!(check(by_key("a:admin", new(None, "send")), 201).await, given(Some("a"), "key:7"));
    assert_eq!(check(by_key("a:admin", new(None, "admin")), 403).await, None);
    assert_eq!(check(by_key("operators:admin", new(None, "admin")), 201).await, given(None, "key:7"));
    assert_eq!(check(by(As::Admin, json!({ "label": "x", "scopes": ["all"] })), 422).await, None);
    let network = json!({ "label": "x", "scopes": ["send"], "networks": ["192.0.2.1/24"] });
    assert_eq!(check(by(As::Admin, network), 422).await, None);
}

#[tokio::test]
async fn keys_and_cursors_of_others_are_not_there() {
    let program = Arc::new(Program::new());
    let hash = SecretRef { id: SecretId(uuid::Uuid::nil()), fingerprint: Fingerprint([0; 8]) };
    for (n, owner) in [(1, Some("a")), (2, Some("b")), (3, None)] {
        let (account, label, scopes) = (owner.map(name), format!("key of {owner:?}"), vec![]);
        let (expires, networks, by) = (None, Vec::new(), Author::program());
        let added = KeyAdded { key: KeyId(n), account: account.clone(), label, scopes, hash, expires, networks, by };
        program.append(20 + n, added.into());
        let (cursor, by) = (CursorName::new("x").unwrap(), Author::program());
        program.append(30 + n, CursorSet { account, cursor, seq: Seq(n), by }.into());
    }
    let check = async |by: As, method: Method, path: &str, status: u16| {
        let response = send(&program, request(by, method, path, "")).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let answer: Value = serde_json::from_str(&text(response).await).unwrap_or_default();
        let numbers = answer["items"].as_array().map(|items| items.iter().map(|item| item["key"].as_u64()).collect());
        (numbers.unwrap_or_default(), answer)
    };
    let get = Method::GET;
    assert_eq!(check(As::Admin, get.clone(), "/keys", 200).await.0, [Some(1), Some(2), Some(3)]);
    assert_eq!(check(As::Admin, get.clone(), "/keys?account=b", 200).await.0, [Some(2)]);
    assert_eq!(check(As::A, get.clone(), "/keys", 200).await.0, [Some(1)]);
    let (first, page) = check(As::Admin, get.clone(), "/keys?limit=2", 200).await;
    assert_eq!((first, &page["next"]), (vec![Some(1), Some(2)], &json!("3")));
    assert_eq!(check(As::Admin, get.clone(), "/keys?cursor=3", 200).await.0, [Some(3)]);
    for path in ["/keys/2", "/keys/3", "/keys/9"] {
        check(As::A, Method::DELETE, path, 404).await;
    }
    assert!(program.executed.lock().unwrap().is_empty());
    check(As::A, Method::DELETE, "/keys/1", 204).await;
    let seq = async |by: As, path: &str, status: u16| check(by, get.clone(), path, status).await.1["seq"].clone();
    assert_eq!(seq(As::A, "/cursors/x", 200).await, 1);
    assert_eq!(seq(As::Admin, "/cursors/x?account=b", 200).await, 2);
    assert_eq!(seq(As::Admin, "/cursors/x", 200).await, 3);
    seq(As::A, "/cursors/x?account=b", 403).await;
    seq(As::A, "/cursors/y", 404).await;
}

#[tokio::test]
async fn queue_pages_join() {
    let (_, first) = get(As::Local, "/queue?limit=1").await;
    let first: Value = serde_json::from_str(&first).unwrap();
    let (_, second) = get(As::Local, &format!("/queue?limit=1&cursor={}", first["next"].as_str().unwrap())).await;
    let second: Value = serde_json::from_str(&second).unwrap();
    assert_eq!([&first["items"][0]["id"], &second["items"][0]["id"]], [1, 2]);
    let (_, none) = get(As::Local, "/queue?state=held").await;
    assert_eq!(serde_json::from_str::<Value>(&none).unwrap(), json!({ "items": [], "next": null }));
}

#[test]
fn places_are_found_by_time() {
    let program = Program::of([]);
    for (seq, at) in [(1, 10), (2, 20), (3, 20), (4, 30), (20, 40), (21, 50)] {
        program.append_at(seq, Timestamp::from_secs(at), configured("a"));
    }
    let check = |at: i64, first: u64, last: u64| {
        let (place, view) = (Place::Time(Timestamp::from_secs(at)), program.view());
        let seqs = view.lines.keys().copied();
        assert_eq!(seqs.clone().find(|seq| Seq(*seq) >= place.first(&view).unwrap()).unwrap_or(22), first, "{at}");
        assert_eq!(seqs.rev().find(|seq| Seq(*seq) <= place.last(&view).unwrap()).unwrap_or(0), last, "{at}");
    };
    check(9, 1, 0);
    check(10, 1, 1);
    check(11, 2, 1);
    check(20, 2, 3);
    check(30, 4, 4);
    check(31, 20, 4);
    check(40, 20, 20);
    check(50, 21, 21);
    check(51, 22, 21);
    let first = Place::Time(Timestamp::from_secs(10)).first(&Program::of([]).view());
    assert_eq!(first, Ok(Seq(1)));
}

#[tokio::test]
async fn replays_are_shown_and_changed_by_their_owner() {
    let program = Arc::new(Program::new());
    let endpoint = EndpointName::new("shop").unwrap();
    for (seq, account) in [(10, "a"), (11, "b"), (12, "a")] {
        let scope = ReplayScope { from: Seq(1), to: Seq(8), only_failed: false, kinds: Vec::new() };
        let (account, endpoint, by) = (name(account), endpoint.clone(), Author::program());
        let (replay, calls_per_second_max) = (ReplayId(seq), None);
        program.append(seq, ReplayStarted { replay, account, endpoint, scope, calls_per_second_max, by }.into());
    }
    let (account, endpoint, by) = (name("a"), endpoint.clone(), Author::program());
    program.append(13, ReplayEnded { replay: ReplayId(12), account, endpoint, end: ReplayEnd::Done, by }.into());
    let list = async |by: As, path: &str| -> (Vec<u64>, Value) {
        let response = send(&program, request(by, Method::GET, path, "")).await;
        let page: Value = serde_json::from_str(&text(response).await).unwrap();
        let items = page["items"].as_array().unwrap().iter().map(|item| item["replay"].as_u64().unwrap());
        (items.collect(), page["next"].clone())
    };
    assert_eq!(list(As::Admin, "/replays").await, (vec![12, 11, 10], Value::Null));
    assert_eq!(list(As::Admin, "/replays?limit=2").await, (vec![12, 11], json!("11")));
    assert_eq!(list(As::Admin, "/replays?limit=2&cursor=11").await, (vec![10], Value::Null));
    assert_eq!(list(As::Admin, "/replays?account=b").await.0, [11]);
    assert_eq!(list(As::A, "/replays").await.0, [12, 10]);
    let check = async |by: As, method: Method, path: &str, status: u16| {
        let response = send(&program, request(by, method, path, "")).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
    };
    check(As::A, Method::GET, "/replays/10", 200).await;
    check(As::A, Method::GET, "/replays/11", 404).await;
    check(As::Admin, Method::GET, "/replays/11", 200).await;
    check(As::Admin, Method::GET, "/replays/7", 404).await;
    for change in ["stop", "resume", "cancel"] {
        check(As::A, Method::POST, &format!("/replays/11/{change}"), 404).await;
    }
    assert!(program.executed.lock().unwrap().is_empty());
    check(As::A, Method::POST, "/replays/10/stop", 204).await;
    assert!(matches!(&program.executed.lock().unwrap()[..], [Command::StopReplay(c)] if c.by.0 == "account:a"));
}

#[tokio::test]
async fn an_account_sends_only_its_own_again() {
    let program = Arc::new(Program::new());
    let ask = async |by: As, path: &str, body: Value| -> (u16, Value) {
        let response = send(&program, request(by, Method::POST, path, body.to_string())).await;
        let status = response.status().as_u16();
        (status, serde_json::from_str(&text(response).await).unwrap())
    };
    assert_eq!(ask(As::A, "/queue/2/redeliver", json!({})).await.0, 404);
    assert_eq!(ask(As::A, "/queue/redeliver", json!({ "filter": { "account": "b" } })).await.0, 403);
    assert_eq!(ask(As::Admin, "/queue/redeliver", json!({})).await.0, 422);
    let (status, part) = ask(As::A, "/queue/redeliver", json!({ "filter": { "ids": [1, 2] } })).await;
    assert_eq!((status, &part["made"]), (200, &json!([])));
    let codes: Vec<&str> = part["refused"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["conflict", "not_found"], "its own waits, and the other is not there");
    assert!(program.redelivered.lock().unwrap().is_empty());

    for (seq, account, id) in [(10, "a", 1), (11, "b", 2)] {
        let deliveries = vec![CanceledDelivery { id: DeliveryId(id), held: false }];
        let (message, account, by) = (uuid(id), name(account), Author::program());
        let keep_until = Timestamp::from_secs(1000);
        program.append(seq, DeliveryCanceled { message, account, deliveries, keep_until, job: None, by }.into());
    }
    let (_, part) = ask(As::A, "/queue/redeliver", json!({ "states": ["canceled"], "all": true })).await;
    assert_eq!(part["made"], json!([{ "origin": 1, "delivery": 101, "message": uuid(99), "repeated": false }]));
    assert_eq!(part["next"], Value::Null);
    let mut keyed = request(As::Admin, Method::POST, "/queue/2/redeliver", "");
    keyed.headers_mut().insert("idempotency-key", "k".parse().unwrap());
    assert_eq!(send(&program, keyed).await.status(), StatusCode::ACCEPTED);
    let wishes = program.redelivered.lock().unwrap().clone();
    let by: Vec<&str> = wishes.iter().map(|wish| wish.by.0.as_str()).collect();
    assert_eq!(by, ["account:a", "admin"]);
    let key = wishes[1].idempotency.as_ref().unwrap();
    assert_eq!((key.method, key.key.clone()), ("Redeliver", format!("k/{}", uuid(2))));
}
