//! Accept loops for HTTP: clear text, TLS, and the control socket.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use postledger_web::peer::{LocalUser, Peer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Connections of one listener at once.
const CONNECTIONS_MAX: usize = 10_000;
const CONNECTIONS_MIN: usize = 16;
/// Connections that the system keeps while none is accepted, if it allows so many. Of what is more than that some are reset,
/// which their clients see as a failed request.
const BACKLOG: u32 = 4096;
/// Files that the ledger and everything but HTTP may have open.
const FILES_RESERVED: u64 = 512;
/// Listeners that share what is left.
const LISTENERS: u64 = 8;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// How long a client may take for the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on after a stop was asked for.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`; returns when the last request was answered.
pub async fn serve(
    socket: TcpListener,
    router: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
) {
    let (places, mut connections) = (Arc::new(Semaphore::new(connections_max())), JoinSet::new());
    while let Some((place, accepted)) = next(&places, socket.accept(), &mut connections, &stop).await {
        let Ok((stream, addr)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Small answers must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let (router, peer) = (router.clone(), Peer { addr, tls: tls.is_some() });
        let (tls, stop) = (tls.clone().map(TlsAcceptor::from), stop.clone());
        connections.spawn(async move {
            match tls {
                None => connection(stream, Version::Http1, router, peer, stop).await,
                Some(tls) => match timeout(TLS_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let agreed = stream.get_ref().1.alpn_protocol();
                        let version = if agreed == Some(b"h2") { Version::Http2 } else { Version::Http1 };
                        connection(stream, version, router, peer, stop).await;
                    }
                    Ok(Err(e)) => tracing::debug!("a TLS handshake failed: {e}"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

/// Serves the control socket: who may open it may do all, under the name of their user.
pub async fn serve_unix(socket: UnixListener, router: Router, stop: CancellationToken) {
    let (places, mut connections) = (Arc::new(Semaphore::new(connections_max())), JoinSet::new());
    while let Some((place, accepted)) = next(&places, socket.accept(), &mut connections, &stop).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let user = stream.peer_cred().map(|c| user_name(c.uid())).unwrap_or_else(|_| "unknown".to_owned());
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            connection(stream, Version::Http1, router, LocalUser(user), stop).await;
            drop(place);
        });
    }
    while connections.join_next().await.is_some() {}
}

/// Opens the control socket, for its owner only.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    // Whoever holds the ledger's lock owns the socket; one that is left over belongs to nobody.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

/// The name of a user, or their number.
pub fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()));
    let name = entry.and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("uid-{uid}"), str::to_owned)
}

async fn next<T>(
    places: &Arc<Semaphore>,
    accept: impl Future<Output = io::Result<T>>,
    connections: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Option<(OwnedSemaphorePermit, io::Result<T>)> {
    while connections.try_join_next().is_some() {}
    let accept = async {
        let place = Arc::clone(places).acquire_owned().await.expect("the places are never closed");
        (place, accept.await)
    };
    tokio::select! {
        () = stop.cancelled() => None,
        accepted = accept => Some(accepted),
    }
}

/// Which protocol a connection speaks: in clear text it is HTTP/1.1, over TLS what was agreed on (RFC 7301).
#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    router: Router,
    peer: impl Clone + Send + Sync + 'static,
    stop: CancellationToken,
) {
    // Who is at the other end goes with each request. As a layer it would cost a copy of all routes for each connection.
    let service = TowerToHyperService::new(router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.map(Body::new)
    }));
    let io = TokioIo::new(stream);
    // Each version has a limit of its own on a client that says nothing; one that looks which it is would have none.
    let served = match version {
        Version::Http1 => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            let mut connection = pin!(http.serve_connection(io, service));
            tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    timeout(STOP_WAIT, connection).await.unwrap_or(Ok(()))
                }
            }
        }
        Version::Http2 => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT).max_concurrent_streams(STREAMS_MAX);
            let mut connection = pin!(http.serve_connection(io, service));
            tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    timeout(STOP_WAIT, connection).await.unwrap_or(Ok(()))
                }
            }
        }
    };
    if let Err(e) = served {
        tracing::debug!("an HTTP connection broke: {e}");
    }
}

/// Lets this process have as many files and connections open as the system allows.
pub fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!("{limit} files and connections can be open at once"),
        Err(e) => tracing::warn!("the limit of open files cannot be raised: {e}"),
    }
}

/// Connections of one listener, so that all listeners together leave files for the ledger.
fn connections_max() -> usize {
    let limit = rlimit::Resource::NOFILE.get_soft().unwrap_or(FILES_RESERVED);
    let share = limit.saturating_sub(FILES_RESERVED) / LISTENERS;
    usize::try_from(share).unwrap_or(CONNECTIONS_MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Opens a listening socket, with an error that says what it is for.
pub fn bind(addr: SocketAddr, what: &str) -> io::Result<TcpListener> {
    listen(addr).map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr} for {what}: {e}")))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of a server that ran before do not hold up the next one.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clients_that_come_at_once_wait_to_be_accepted() {
        let socket = bind(([127, 0, 0, 1], 0).into(), "a test").unwrap();
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let at_once = allowed.trim().parse::<usize>().unwrap().min(512);
        let addr = socket.local_addr().unwrap();
        let connect = |_| std::net::TcpStream::connect_timeout(&addr, TLS_TIMEOUT).unwrap();
        let clients: Vec<_> = (0..at_once).map(connect).collect();
        for client in clients {
            assert_eq!(socket.accept().await.unwrap().1, client.local_addr().unwrap());
        }
    }
}
