//! The doors of a running server, and its reactors: opened together, closed together.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use postledger_events::address::Domain;
use postledger_web::{Config, Mount};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Error, SOCKET};
use crate::certificate::Certificate;
use crate::program::Program;
use crate::receive::Listener;
use crate::{deliver, expiry, http, jobs, metrics, notify, receive, webhook};

/// How long running attempts may take to end after a stop was asked for.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// A socket that serves HTTP.
pub struct HttpDoor {
    pub socket: TcpListener,
    pub config: Config,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// All sockets of a server, open already.
pub struct Doors {
    pub http: Vec<HttpDoor>,
    pub smtp: Vec<(TcpListener, Arc<Listener>)>,
    pub metrics: Vec<TcpListener>,
    pub control: UnixListener,
    pub certificate: Option<Arc<Certificate>>,
}

/// What a request on the control socket, or in the command line's own process, is answered by.
pub fn local_router(program: Arc<Program>) -> Router {
    postledger_web::router(program, Config::default())
}

/// Opens the control socket in the directory of the server.
pub fn control(dir: &Path) -> Result<UnixListener, Error> {
    let path = dir.join(SOCKET);
    http::bind_unix(&path).map_err(|e| Error::File(path, e))
}

/// Opens a socket for HTTP.
pub fn http_door(
    addr: SocketAddr,
    webapi: Mount,
    forwarded: bool,
    message_bytes_max: u64,
    tls: Option<Arc<rustls::ServerConfig>>,
    intake: &Arc<Semaphore>,
) -> Result<HttpDoor, Error> {
    let socket = http::bind(addr, "HTTP")?;
    let config = Config { webapi, forwarded, message_bytes_max, intake: Arc::clone(intake) };
    Ok(HttpDoor { socket, config, tls })
}

/// Runs all until SIGTERM or SIGINT, and then to an end that leaves nothing in doubt.
pub async fn run(program: Arc<Program>, doors: Doors, hostname: Domain, roots: deliver::TlsRoots) -> Result<(), Error> {
    http::raise_file_limit();
    let stop = program.stop.clone();
    let mut tasks = JoinSet::new();
    for door in doors.http {
        let router = postledger_web::router(Arc::clone(&program), door.config);
        tasks.spawn(http::serve(door.socket, router, door.tls, stop.clone()));
    }
    for (socket, listener) in doors.smtp {
        tasks.spawn(receive::run(socket, listener, stop.clone()));
    }
    for socket in doors.metrics {
        tasks.spawn(http::serve(socket, metrics::router(Arc::clone(&program.caller)), None, stop.clone()));
    }
    tasks.spawn(http::serve_unix(doors.control, local_router(Arc::clone(&program)), stop.clone()));
    if let Some(certificate) = doors.certificate {
        tasks.spawn(certificate.reload(stop.clone()));
    }
    tasks.spawn(notify::run(Arc::clone(&program), hostname.to_string(), stop.clone()));
    let settings = deliver::Settings { hostname, timeouts: Default::default(), roots, stop_wait: STOP_WAIT };
    tasks.spawn(deliver::run(program.ledger.clone(), program.clock.clone(), settings, stop.clone()));
    tasks.spawn(webhook::run(Arc::clone(&program.caller), STOP_WAIT, stop.clone()));
    tasks.spawn(jobs::run(program.ledger.clone(), stop.clone()));
    tasks.spawn(expiry::run(program.ledger.clone(), program.clock.clone(), stop.clone()));

    let died = tokio::select! {
        signal = stopping() => {
            tracing::info!("{}: no more is taken in; what runs may end", signal?);
            None
        }
        // None of them ends by itself. Without one of them mail would be taken in and go nowhere.
        Some(ended) = tasks.join_next() => Some(ended.map_or_else(|e| e.to_string(), |()| "it ended".to_owned())),
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Err(e) = ended {
            tracing::error!("a part of the program died: {e}");
        }
    }
    program.ledger.close().await?;
    tracing::info!("stopped");
    died.map_or(Ok(()), |why| Err(Error::Setup(format!("a part of the program died, so all was stopped: {why}"))))
}

async fn stopping() -> Result<&'static str, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    })
}
