//! A client session over a socket.

use std::net::SocketAddr;
use std::time::Duration;

use postledger_events::address::Domain;
use postledger_events::reply::Reply;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::tls::{ClientTls, TlsMode};
use super::wire::{self, Stream, Wire};
use crate::smtp::client::{
    Action, Capabilities, Credentials, Delivery, Error, Fault, Handshake, Phase, Plan, RecipientResult, Security,
    Session, Step, Transaction,
};
use crate::smtp::data::Stuffer;
use crate::smtp::tls::TlsFacts;

/// How long a client waits for each thing (RFC 5321 §4.5.3.2; connect and TLS, which it does not name, by custom).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub tls: Duration,
    pub greeting: Duration,
    pub ehlo: Duration,
    pub auth: Duration,
    pub mail: Duration,
    pub rcpt: Duration,
    pub data_init: Duration,
    pub data_block: Duration,
    /// After the end mark. Giving up early here is how messages arrive twice.
    pub last: Duration,
    pub quit: Duration,
}

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
pub const TLS_TIMEOUT: Duration = Duration::from_secs(60);
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(5 * 60);
pub const EHLO_TIMEOUT: Duration = Duration::from_secs(5 * 60);
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(3 * 60);
pub const MAIL_TIMEOUT: Duration = Duration::from_secs(5 * 60);
pub const RCPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
pub const DATA_INIT_TIMEOUT: Duration = Duration::from_secs(2 * 60);
pub const DATA_BLOCK_TIMEOUT: Duration = Duration::from_secs(3 * 60);
pub const FINAL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
pub const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: CONNECT_TIMEOUT,
            tls: TLS_TIMEOUT,
            greeting: GREETING_TIMEOUT,
            ehlo: EHLO_TIMEOUT,
            auth: AUTH_TIMEOUT,
            mail: MAIL_TIMEOUT,
            rcpt: RCPT_TIMEOUT,
            data_init: DATA_INIT_TIMEOUT,
            data_block: DATA_BLOCK_TIMEOUT,
            last: FINAL_TIMEOUT,
            quit: QUIT_TIMEOUT,
        }
    }
}

impl Timeouts {
    /// The same limit for everything.
    pub fn all(limit: Duration) -> Timeouts {
        Timeouts {
            connect: limit,
            tls: limit,
            greeting: limit,
            ehlo: limit,
            auth: limit,
            mail: limit,
            rcpt: limit,
            data_init: limit,
            data_block: limit,
            last: limit,
            quit: limit,
        }
    }

    fn of(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Connect => self.connect,
            Phase::Tls => self.tls,
            Phase::Greeting => self.greeting,
            Phase::Ehlo | Phase::StartTls => self.ehlo,
            Phase::Auth => self.auth,
            Phase::Mail => self.mail,
            Phase::Rcpt => self.rcpt,
            Phase::DataInit => self.data_init,
            Phase::Data => self.data_block,
            Phase::Final => self.last,
        }
    }
}

/// Where to connect to, and whose certificate to expect there.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub addr: SocketAddr,
}

/// What can be said about a session apart from its messages.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub remote_host: String,
    pub remote_addr: SocketAddr,
    pub local_addr: SocketAddr,
    pub greeting: Reply,
    pub ehlo: Reply,
    pub tls: Option<TlsFacts>,
    pub connect_time: Duration,
    /// Zero without TLS.
    pub tls_time: Duration,
    /// From the first wait for the greeting until mail could be sent, without the TLS handshake.
    pub hello_time: Duration,
    /// A transaction was run before the latest one.
    pub reused: bool,
}

/// What came of a transaction.
#[derive(Clone, Debug)]
pub struct Report {
    /// As many and in the order of the recipients.
    pub recipients: Vec<RecipientResult>,
    pub spent: Spent,
    /// Of the content as it was sent, with stuffed dots and end mark.
    pub bytes_sent: u64,
    /// Another transaction can follow.
    pub usable: bool,
}

/// How long the parts of a transaction took; zero for those that it did not come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Up to the answer to DATA.
    pub mail_rcpt: Duration,
    pub data: Duration,
    /// Waiting for the reply to the message.
    pub last: Duration,
}

/// A session that takes mail.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    session: Session,
    facts: SessionFacts,
    timeouts: Timeouts,
    transactions: u64,
    /// A transaction was begun and has not come to its end.
    open: bool,
    /// Content of the latest transaction was on its way to the peer.
    content_begun: bool,
}

impl Client {
    pub async fn connect(
        target: &Target,
        tls: &TlsMode,
        auth: Option<&Credentials>,
        ehlo_name: &Domain,
        timeouts: &Timeouts,
    ) -> Result<Client, Error> {
        let plan = Plan {
            ehlo_name: ehlo_name.clone(),
            encryption: tls.encryption(),
            verified: tls.tls().is_some_and(ClientTls::is_verified),
            auth: auth.cloned(),
        };
        Connecting::dial(target, tls, timeouts).await?.hello(plan).await
    }

    /// One transaction. Every recipient gets its own result; see [`RecipientResult`] for what may be tried again, and when.
    pub async fn deliver(&mut self, transaction: &Transaction) -> Report {
        self.facts.reused = self.transactions > 0;
        self.transactions += 1;
        (self.open, self.content_begun) = (true, false);
        let wrong = self.wire.wrong_while_idle().await;
        let mut delivery = Delivery::begin(&mut self.session, transaction);
        if let Some(text) = wrong {
            delivery.broke(text);
        }
        let mut run = Run {
            wire: &mut self.wire,
            timeouts: &self.timeouts,
            spent: Spent::default(),
            bytes_sent: 0,
            content_begun: &mut self.content_begun,
        };
        run.complete(&mut delivery, transaction).await;
        let (spent, bytes_sent) = (run.spent, run.bytes_sent);
        self.open = false;
        Report { recipients: delivery.finish(), spent, bytes_sent, usable: self.session.is_usable() }
    }

    pub fn facts(&self) -> &SessionFacts {
        &self.facts
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.session.capabilities
    }

    /// Another transaction can follow. Not after one that was dropped in the middle.
    pub fn is_usable(&self) -> bool {
        self.session.is_usable() && !self.open
    }

    /// Whether the peer may have some of the content of the latest transaction.
    pub fn content_begun(&self) -> bool {
        self.content_begun
    }

    /// Takes leave, as well as that goes: what was to be learnt is known by now.
    pub async fn quit(mut self) {
        if self.wire.write(b"QUIT\r\n", self.timeouts.quit).await.is_ok() {
            let said = self.wire.reply(self.timeouts.quit).await;
            tracing::trace!(answered = said.is_ok(), "QUIT");
        }
        let closed = timeout(self.timeouts.quit, self.wire.shutdown()).await;
        tracing::trace!(clean = matches!(closed, Ok(Ok(()))), "connection closed");
    }
}

/// A session on its way.
struct Connecting<'a> {
    target: &'a Target,
    tls: &'a TlsMode,
    timeouts: &'a Timeouts,
    wire: Wire,
    local_addr: SocketAddr,
    tls_facts: Option<TlsFacts>,
    connect_time: Duration,
    tls_time: Duration,
}

impl<'a> Connecting<'a> {
    async fn dial(target: &'a Target, tls: &'a TlsMode, timeouts: &'a Timeouts) -> Result<Connecting<'a>, Error> {
        let started = Instant::now();
        let network = |e: std::io::Error| Error::network(Phase::Connect, e.to_string());
        let stream = timeout(timeouts.connect, TcpStream::connect(target.addr))
            .await
            .map_err(|_| Error::network(Phase::Connect, wire::Error::TimedOut(timeouts.connect).to_string()))?
            .map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        let local_addr = stream.local_addr().map_err(network)?;
        let wire = Wire::new(Stream::Clear(stream));
        let (connect_time, tls_time) = (started.elapsed(), Duration::ZERO);
        Ok(Connecting { target, tls, timeouts, wire, local_addr, tls_facts: None, connect_time, tls_time })
    }

    async fn hello(mut self, plan: Plan) -> Result<Client, Error> {
        let started = Instant::now();
        let (mut handshake, mut step) = Handshake::start(plan);
        loop {
            step = match step {
                Step::Read(phase) => self.read(phase, &mut handshake).await?,
                Step::Send(bytes, phase) => {
                    self.send(&bytes, phase).await?;
                    self.read(phase, &mut handshake).await?
                }
                Step::Tls => {
                    self = self.secure().await?;
                    handshake.secured()
                }
                Step::Ready => return Ok(self.ready(handshake, started)),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8], phase: Phase) -> Result<(), Error> {
        match self.wire.write(bytes, self.timeouts.of(phase)).await {
            // A peer that refuses and closes has its word in the inbox.
            Err(wire::Error::Io(_)) | Ok(()) => Ok(()),
            Err(e) => Err(lost(phase, &e)),
        }
    }

    async fn read(&mut self, phase: Phase, handshake: &mut Handshake) -> Result<Step, Error> {
        let reply = self.wire.reply(self.timeouts.of(phase)).await.map_err(|e| lost(phase, &e))?;
        handshake.reply(reply, self.wire.has_unread())
    }

    async fn secure(mut self) -> Result<Connecting<'a>, Error> {
        let started = Instant::now();
        let tls = self.tls.tls().expect("TLS begins in modes that have a configuration");
        let name = self.server_name(tls)?;
        let Stream::Clear(stream) = self.wire.into_stream() else { unreachable!("TLS begins once") };
        let stream = timeout(self.timeouts.tls, TlsConnector::from(tls.config()).connect(name, stream))
            .await
            .map_err(|_| Error::network(Phase::Tls, wire::Error::TimedOut(self.timeouts.tls).to_string()))?
            .map_err(|e| tls_error(&e))?;
        self.tls_facts = Some(tls.facts(stream.get_ref().1));
        self.wire = Wire::new(Stream::Tls(Box::new(TlsStream::Client(stream))));
        self.tls_time = started.elapsed();
        Ok(self)
    }

    fn server_name(&self, tls: &ClientTls) -> Result<ServerName<'static>, Error> {
        match ServerName::try_from(self.target.host.clone()) {
            Ok(name) => Ok(name),
            // Any name will do where none is checked.
            Err(_) if !tls.is_verified() => Ok(ServerName::IpAddress(self.target.addr.ip().into())),
            Err(_) => Err(Error {
                phase: Phase::Tls,
                fault: Fault::Operator,
                text: format!("{:?} is no name that a certificate could be checked for", self.target.host),
                reply: None,
            }),
        }
    }

    fn ready(self, handshake: Handshake, started: Instant) -> Client {
        let (greeting, ehlo, capabilities) = handshake.finish();
        let security = match (&self.tls_facts, self.tls.tls().is_some_and(ClientTls::is_verified)) {
            (None, _) => Security::Clear,
            (Some(_), false) => Security::Unverified,
            (Some(_), true) => Security::Verified,
        };
        let facts = SessionFacts {
            remote_host: self.target.host.clone(),
            remote_addr: self.target.addr,
            local_addr: self.local_addr,
            greeting,
            ehlo,
            tls: self.tls_facts,
            connect_time: self.connect_time,
            tls_time: self.tls_time,
            hello_time: started.elapsed().saturating_sub(self.tls_time),
            reused: false,
        };
        let session = Session::new(capabilities, security);
        Client {
            wire: self.wire,
            session,
            facts,
            timeouts: *self.timeouts,
            transactions: 0,
            open: false,
            content_begun: false,
        }
    }
}

fn lost(phase: Phase, error: &wire::Error) -> Error {
    match error {
        wire::Error::Reply(_) => Error::broken(phase, error.to_string()),
        wire::Error::Closed | wire::Error::TimedOut(_) | wire::Error::Io(_) => Error::network(phase, error.to_string()),
    }
}

fn tls_error(error: &std::io::Error) -> Error {
    let by_peer = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    match by_peer {
        true => Error::broken(Phase::Tls, error.to_string()),
        false => Error::network(Phase::Tls, error.to_string()),
    }
}

/// A transaction being run.
struct Run<'a> {
    wire: &'a mut Wire,
    timeouts: &'a Timeouts,
    spent: Spent,
    bytes_sent: u64,
    content_begun: &'a mut bool,
}

impl Run<'_> {
    async fn complete(&mut self, delivery: &mut Delivery<'_>, transaction: &Transaction) {
        let mut since = Instant::now();
        let mut part = Part::MailRcpt;
        loop {
            match delivery.next_action() {
                Action::Write(bytes, phase) => self.write(&bytes, phase, delivery).await,
                Action::Read(phase) => self.read(phase, delivery).await,
                Action::WriteMessage => {
                    *self.content_begun = true;
                    *self.spent_on(part) = std::mem::replace(&mut since, Instant::now()).elapsed();
                    self.write_message(&transaction.message, delivery).await;
                    self.spent.data = std::mem::replace(&mut since, Instant::now()).elapsed();
                    part = Part::Last;
                }
                Action::Done => break,
            }
        }
        *self.spent_on(part) = since.elapsed();
    }

    fn spent_on(&mut self, part: Part) -> &mut Duration {
        match part {
            Part::MailRcpt => &mut self.spent.mail_rcpt,
            Part::Last => &mut self.spent.last,
        }
    }

    async fn write(&mut self, bytes: &[u8], phase: Phase, delivery: &mut Delivery<'_>) {
        match self.wire.write(bytes, self.timeouts.of(phase)).await {
            // A peer that refuses and closes has its word in the inbox; if not, reading fails as well.
            Ok(()) | Err(wire::Error::Io(_)) => {}
            Err(e) => delivery.broke(e.to_string()),
        }
    }

    async fn read(&mut self, phase: Phase, delivery: &mut Delivery<'_>) {
        match self.wire.reply(self.timeouts.of(phase)).await {
            Ok(reply) => delivery.reply(reply),
            Err(e) => delivery.broke(e.to_string()),
        }
    }

    async fn write_message(&mut self, message: &[u8], delivery: &mut Delivery<'_>) {
        let (mut stuffer, mut block) = (Stuffer::new(message), Vec::new());
        while stuffer.next_block(&mut block) {
            match self.wire.write(&block, self.timeouts.data_block).await {
                Ok(()) => self.bytes_sent += block.len() as u64,
                // IMPORTANT: part of the last block may be with the peer, end mark and all.
                Err(_) if stuffer.is_last() => break,
                Err(e) => return self.cut(e, delivery).await,
            }
        }
        delivery.message_written();
    }

    /// The connection failed within the content: the peer may have said why.
    async fn cut(&mut self, error: wire::Error, delivery: &mut Delivery<'_>) {
        if let wire::Error::Io(_) = error
            && let Ok(reply) = self.wire.reply(self.timeouts.data_block).await
        {
            return delivery.message_cut(reply);
        }
        delivery.broke(error.to_string());
    }
}

#[derive(Clone, Copy)]
enum Part {
    MailRcpt,
    Last,
}
