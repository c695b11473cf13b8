//! HTTP/1.1 towards endpoints: connects to the very address that was checked, follows no redirect, keeps connections for the next
//! call, and lets no peer take more time or memory than it may.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use postledger_events::time::Timestamp;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::target::{Allowed, Target, TargetHost};
use crate::smtp::drive::ClientTls;

/// Addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 8;
/// Of a response's body; a longer one costs its connection.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Of a response's body that is kept.
const EXCERPT_BYTES_MAX: usize = 512;
/// Of a response's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Of a proxy's answer to CONNECT.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a connection is kept that is not used. mox closes its own as early.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Connections of one endpoint that are kept.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// How endpoints are reached.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Special networks that calls may go to.
    pub allowed: Allowed,
    /// All calls go through this HTTP proxy, by CONNECT.
    pub proxy: Option<Target>,
}

/// A POST.
pub struct Post<'a> {
    /// Whose connections can be used.
    pub pool: &'a str,
    pub target: &'a Target,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// What a date in the answer is compared with.
    pub started: Timestamp,
    /// For name lookup, connection and TLS.
    pub connect_timeout: Duration,
    /// For all of it.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub retry_after_s: Option<u32>,
    /// The beginning of the body.
    pub excerpt: String,
    pub remote: SocketAddr,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0} is in a network that calls must not go to; the operator can allow it with `allow_networks` below [webhook]"
    )]
    Forbidden(IpAddr),
    #[error("the address of {0} cannot be found: {1}")]
    Resolve(String, String),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error("there was no connection within {} s", .0.as_secs())]
    ConnectTimeout(Duration),
    #[error("there was no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error("the proxy {0}")]
    Proxy(String),
    #[error("a header cannot be sent: {0}")]
    Header(#[from] hyper::http::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
}

impl Error {
    /// The address that was connected to is known.
    fn at(self, remote: SocketAddr) -> Failure {
        Failure { error: self, remote: Some(remote) }
    }
}

/// An error, and how far the call came.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub remote: Option<SocketAddr>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, remote: None }
    }
}

pub struct Client {
    settings: Settings,
    resolver: OnceCell<TokioResolver>,
    /// Made when it is first needed; remembers sessions.
    tls: Mutex<Option<ClientTls>>,
    idle: Mutex<HashMap<String, Vec<Idle>>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    remote: SocketAddr,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Client {
    pub fn new(settings: Settings) -> Client {
        Client { settings, resolver: OnceCell::new(), tls: Mutex::default(), idle: Mutex::default() }
    }

    pub async fn post(&self, post: &Post<'_>) -> Result<Reply, Failure> {
        let deadline = Instant::now() + post.timeout;
        let key = format!("{} {}", post.pool, post.target.origin());
        while let Some(mut connection) = self.take_idle(&key) {
            let remote = connection.remote;
            match timeout_at(deadline, send(&mut connection, post)).await {
                Err(_) => return Err(Error::Timeout(post.timeout).at(remote)),
                Ok(Ok(response)) => return Ok(self.finish(key, connection, response, post.started, deadline).await),
                // The peer had let go of it, as it may at any time. It may have read the call, which then comes again with its id.
                Ok(Err(Error::Http(_))) => {}
                Ok(Err(error)) => return Err(error.at(remote)),
            }
        }
        let mut connection = self.connect(post, deadline).await?;
        let remote = connection.remote;
        match timeout_at(deadline, send(&mut connection, post)).await {
            Err(_) => Err(Error::Timeout(post.timeout).at(remote)),
            Ok(Err(error)) => Err(error.at(remote)),
            Ok(Ok(response)) => Ok(self.finish(key, connection, response, post.started, deadline).await),
        }
    }

    /// Closes connections that nobody has used for long.
    pub fn tidy(&self) {
        lock(&self.idle).retain(|_, idle| {
            idle.retain(is_fresh);
            !idle.is_empty()
        });
    }

    fn take_idle(&self, key: &str) -> Option<Connection> {
        let mut all = lock(&self.idle);
        let idle = all.get_mut(key)?;
        while let Some(last) = idle.pop() {
            if is_fresh(&last) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Reads as much of the body as it may have. The status alone decides, so a body that breaks off or drips changes nothing.
    async fn finish(
        &self,
        key: String,
        connection: Connection,
        response: Response<Incoming>,
        started: Timestamp,
        deadline: Instant,
    ) -> Reply {
        let (status, remote) = (response.status().as_u16(), connection.remote);
        let asked = response.headers().get(header::RETRY_AFTER);
        let retry_after_s = asked.and_then(|value| retry_after(value.to_str().ok()?, started));
        let mut body = response.into_body();
        let (mut bytes, mut length, mut whole) = (Vec::new(), 0, false);
        while let Ok(frame) = timeout_at(deadline, body.frame()).await {
            let Some(frame) = frame else {
                whole = true;
                break;
            };
            let Ok(frame) = frame else { break };
            let Some(data) = frame.data_ref() else { continue };
            length += data.len();
            bytes.extend_from_slice(&data[..data.len().min(EXCERPT_BYTES_MAX - bytes.len())]);
            if length > RESPONSE_BYTES_MAX {
                break;
            }
        }
        if whole {
            self.keep(key, connection).await;
        }
        Reply { status, retry_after_s, excerpt: excerpt(&bytes), remote }
    }

    async fn keep(&self, key: String, mut connection: Connection) {
        if connection.sender.ready().await.is_err() {
            return;
        }
        let mut all = lock(&self.idle);
        let idle = all.entry(key).or_default();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    async fn connect(&self, post: &Post<'_>, deadline: Instant) -> Result<Connection, Failure> {
        let limit = deadline.min(Instant::now() + post.connect_timeout);
        let connected = timeout_at(limit, self.try_connect(post.target)).await;
        connected.unwrap_or_else(|_| Err(Error::ConnectTimeout(post.connect_timeout.min(post.timeout)).into()))
    }

    async fn try_connect(&self, target: &Target) -> Result<Connection, Failure> {
        let addresses = self.addresses(target).await?;
        let (stream, remote) = match &self.settings.proxy {
            None => dial(&addresses).await?,
            Some(proxy) => (self.tunnel(proxy, addresses[0]).await?, addresses[0]),
        };
        let stream: Box<dyn Stream> = if target.tls {
            Box::new(self.encrypt(target, stream).await.map_err(|e| e.at(remote))?)
        } else {
            Box::new(stream)
        };
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|e| Error::from(e).at(remote))?;
        // It ends with its sender; what breaks it is told there.
        tokio::spawn(connection);
        Ok(Connection { sender, remote })
    }

    /// IMPORTANT: what is checked here is what is connected to; nobody looks a name up again behind this.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let found = match &target.host {
            TargetHost::Literal(ip) => vec![*ip],
            TargetHost::Name(name) => self.resolve(name).await?,
        };
        // One that leads both ways leads nowhere: it is not left to chance which is taken.
        if let Some(ip) = found.iter().find(|ip| !self.settings.allowed.permits(**ip)) {
            return Err(Error::Forbidden(*ip));
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, target.port)).collect())
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let failed = |e: &dyn std::fmt::Display| Error::Resolve(name.to_owned(), e.to_string());
        let make = || async { TokioResolver::builder_tokio()?.build() };
        let resolver = self.resolver.get_or_try_init(make).await.map_err(|e| failed(&e))?;
        let found = resolver.lookup_ip(name).await.map_err(|e| failed(&e))?;
        let found: Vec<IpAddr> = found.iter().take(ADDRESSES_MAX).collect();
        if found.is_empty() { Err(Error::NoAddress(name.to_owned())) } else { Ok(found) }
    }

    /// RFC 9110 §9.3.6, with the checked address, so that the proxy looks nothing up.
    async fn tunnel(&self, proxy: &Target, to: SocketAddr) -> Result<TcpStream, Error> {
        let failed = |why: String| Error::Proxy(format!("{} {why}", proxy.authority));
        let ips = match &proxy.host {
            TargetHost::Literal(ip) => vec![*ip],
            TargetHost::Name(name) => self.resolve(name).await?,
        };
        let addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, proxy.port)).collect();
        let (mut stream, _) = dial(&addresses).await.map_err(|e| failed(e.error.to_string()))?;
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|e| failed(e.to_string()))?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head is the endpoint's.
        while !head.ends_with(b"\r\n\r\n") && head.len() < PROXY_HEAD_BYTES_MAX {
            head.push(stream.read_u8().await.map_err(|e| failed(e.to_string()))?);
        }
        let line = String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
        let status = line.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('2') { Ok(stream) } else { Err(failed(format!("answers {line:?}"))) }
    }

    async fn encrypt(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
        let name = match &target.host {
            TargetHost::Literal(ip) => ServerName::IpAddress((*ip).into()),
            TargetHost::Name(name) => ServerName::try_from(name.clone()).map_err(|e| Error::Tls(e.to_string()))?,
        };
        let connector = TlsConnector::from(self.tls()?.config());
        connector.connect(name, stream).await.map_err(|e| Error::Tls(e.to_string()))
    }

    fn tls(&self) -> Result<ClientTls, Error> {
        let mut made = lock(&self.tls);
        if let Some(tls) = &*made {
            return Ok(tls.clone());
        }
        let tls = ClientTls::platform().map_err(|e| Error::Tls(e.to_string()))?;
        *made = Some(tls.clone());
        Ok(tls)
    }
}

async fn dial(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Failure> {
    let mut last = None;
    for addr in addresses {
        match TcpStream::connect(addr).await {
            Ok(stream) => {
                // A call is one small write that somebody waits for.
                stream.set_nodelay(true).map_err(|e| Error::Connect(*addr, e).at(*addr))?;
                return Ok((stream, *addr));
            }
            Err(e) => last = Some(Error::Connect(*addr, e).at(*addr)),
        }
    }
    Err(last.unwrap_or_else(|| Error::NoAddress(String::new()).into()))
}

async fn send(connection: &mut Connection, post: &Post<'_>) -> Result<Response<Incoming>, Error> {
    let mut request = hyper::Request::post(&post.target.path_and_query).header(header::HOST, &post.target.authority);
    for (name, value) in &post.headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(post.body.clone()))?;
    connection.sender.ready().await?;
    Ok(connection.sender.send_request(request).await?)
}

/// RFC 9110 §10.2.3: seconds, or a date.
pub fn retry_after(value: &str, now: Timestamp) -> Option<u32> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    let date = Timestamp::EPOCH + date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(u32::try_from(date.since(now).as_secs()).unwrap_or(u32::MAX))
}

/// As text, without control characters that a terminal would obey.
pub fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| !c.is_control() || ['\n', '\t'].contains(c)).collect()
}

fn is_fresh(idle: &Idle) -> bool {
    !idle.connection.sender.is_closed() && idle.since.elapsed() < IDLE_MAX
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again() {
        let now = Timestamp::from_secs(784_111_717);
        let check = |value: &str, expect: Option<u32>| assert_eq!(retry_after(value, now), expect, "{value}");
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(u32::MAX));
        check("-1", None);
        check("soon", None);
    }

    #[test]
    fn excerpts_are_text() {
        assert_eq!(excerpt(b"ok\n\x1b[31m\xff\x00"), "ok\n[31m\u{fffd}");
    }
}
