//! A server session over a socket.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use postledger_events::address::{Address, Domain};
use postledger_events::reply::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

use super::tls;
use super::wire::Stream;
use crate::smtp::command::MailParameters;
use crate::smtp::server::{Action, Closing, Envelope, Session, Settings, no_room, shutting_down};
use crate::smtp::tls::Verification;

/// RFC 5321 §4.5.3.2.7.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(5 * 60);
pub const TLS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a message waits for room before it is told to come again.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer that we are done with may keep sending: closing on unread bytes would take our last reply with it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: u64 = 1024 * 1024;

const READ_BYTES: usize = 32 * 1024;
/// Room is taken in steps of this many KiB, so that small messages take one and large ones few.
const ROOM_STEP_KIB: usize = 64;

/// What decides about mail. One value serves one connection.
pub trait Handler: Send {
    /// Whether this reverse-path may send; a refusal is the reply to MAIL.
    fn mail(&mut self, from: Option<&Address>, parameters: &MailParameters) -> Result<(), Reply>;

    /// Whether this recipient may be sent to; a refusal is the reply to RCPT.
    fn rcpt(&mut self, to: &Address) -> impl Future<Output = Result<(), Reply>> + Send;

    /// Takes the message. IMPORTANT: a positive reply takes responsibility, so it is given after the message is on disk.
    fn message(&mut self, envelope: Envelope, data: Bytes) -> impl Future<Output = Reply> + Send;

    /// The transaction was given up.
    fn reset(&mut self);
}

/// What all sessions of a listener have in common.
#[derive(Debug)]
pub struct ServerConfig {
    pub hostname: Domain,
    /// Bytes of one message.
    pub size_max: usize,
    /// STARTTLS is offered with it. A resolver inside lets certificates change.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub timeouts: ServerTimeouts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTimeouts {
    pub command: Duration,
    pub tls: Duration,
    pub room: Duration,
}

impl Default for ServerTimeouts {
    fn default() -> ServerTimeouts {
        ServerTimeouts { command: COMMAND_TIMEOUT, tls: TLS_TIMEOUT, room: ROOM_TIMEOUT }
    }
}

/// Serves one connection to its end. `intake` has a permit for each KiB of message that all sessions together may hold. On
/// `shutdown`, a session that is reading or storing a message finishes that first; others end at once.
pub async fn serve<H: Handler>(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    handler: H,
    intake: Arc<Semaphore>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let session = Session::new(Settings {
        hostname: config.hostname.clone(),
        size_max: config.size_max,
        starttls: config.tls.is_some(),
        peer: stream.peer_addr()?,
        local: stream.local_addr()?,
    });
    let room = Room { intake, held: None };
    let buffer = vec![0; READ_BYTES];
    let connection = Connection { stream: Stream::Clear(stream), session, config, handler, room, shutdown, buffer };
    connection.run().await
}

struct Connection<H> {
    stream: Stream,
    session: Session,
    config: Arc<ServerConfig>,
    handler: H,
    room: Room,
    shutdown: CancellationToken,
    buffer: Vec<u8>,
}

enum Input {
    More,
    End,
}

impl<H: Handler> Connection<H> {
    async fn run(mut self) -> io::Result<()> {
        loop {
            match self.session.next_action() {
                Action::Read => match self.read().await? {
                    Input::More => {}
                    Input::End => return Ok(()),
                },
                Action::StartTls => self = self.secure().await?,
                Action::Mail { from, parameters } => {
                    let answer = self.handler.mail(from.as_ref(), &parameters);
                    self.session.answer(answer);
                }
                Action::Rcpt { to } => self.ask_rcpt(&to).await?,
                Action::Room { bytes } => self.ask_room(bytes).await?,
                Action::Message { envelope, data } => self.give(envelope, data).await,
                Action::Reset => {
                    self.handler.reset();
                    self.room.leave();
                }
                Action::Close => return self.close().await,
            }
        }
    }

    async fn read(&mut self) -> io::Result<Input> {
        self.flush().await?;
        let receiving = self.session.is_receiving();
        if let Some(held) = self.session.held_bytes() {
            self.make_room(held).await;
        }
        let limit = self.config.timeouts.command;
        let read = tokio::select! {
            biased;
            () = self.shutdown.cancelled(), if !receiving => {
                self.session.close(Closing::Shutdown);
                return Ok(Input::More);
            }
            read = timeout(limit, self.stream.read(&mut self.buffer)) => read,
        };
        match read {
            Ok(Ok(0)) => Ok(Input::End),
            Ok(Ok(count)) => {
                self.session.receive(&self.buffer[..count]);
                Ok(Input::More)
            }
            Ok(Err(e)) => Err(e),
            Err(_) => {
                self.session.close(Closing::Timeout);
                Ok(Input::More)
            }
        }
    }

    async fn ask_rcpt(&mut self, to: &Address) -> io::Result<()> {
        let mut asked = pin!(self.handler.rcpt(to));
        let answer = match asked.as_mut().now_or_never() {
            Some(answer) => answer,
            None => {
                // RFC 2920 §3.2: what is answered already does not wait for what takes long.
                flush(&mut self.stream, &mut self.session, self.config.timeouts.command).await?;
                tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => {
                        self.session.answer(Err(shutting_down()));
                        return Ok(());
                    }
                    answer = asked => answer,
                }
            }
        };
        self.session.answer(answer);
        Ok(())
    }

    /// Room for what is announced, or a first step; more is taken as content comes.
    async fn ask_room(&mut self, bytes: usize) -> io::Result<()> {
        self.flush().await?;
        let fits = self.room.hold(bytes.max(READ_BYTES), self.config.timeouts.room).await;
        self.session.answer(if fits { Ok(()) } else { Err(no_room()) });
        Ok(())
    }

    async fn make_room(&mut self, held: usize) {
        if !self.room.hold(held + READ_BYTES, self.config.timeouts.room).await {
            self.session.refuse_content();
            self.room.leave();
        }
    }

    async fn give(&mut self, envelope: Envelope, data: Vec<u8>) {
        let reply = self.handler.message(envelope, Bytes::from(data)).await;
        self.session.answer_message(&reply);
        self.room.leave();
    }

    async fn secure(mut self) -> io::Result<Connection<H>> {
        self.flush().await?;
        let config = self.config.tls.clone().expect("STARTTLS is offered with a configuration");
        let Stream::Clear(stream) = self.stream else { unreachable!("TLS begins once") };
        let stream = timeout(self.config.timeouts.tls, TlsAcceptor::from(config).accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.session.secured(tls::facts(stream.get_ref().1, Verification::None));
        self.stream = Stream::Tls(Box::new(TlsStream::Server(stream)));
        Ok(self)
    }

    async fn close(mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await?;
        let mut rest = self.stream.take(LINGER_BYTES_MAX);
        let drained = timeout(LINGER_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        tracing::trace!(drained = matches!(drained, Ok(Ok(_))), "session closed");
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.stream, &mut self.session, self.config.timeouts.command).await
    }
}

async fn flush(stream: &mut Stream, session: &mut Session, limit: Duration) -> io::Result<()> {
    let output = session.take_output();
    if output.is_empty() {
        return Ok(());
    }
    let write = async {
        stream.write_all(&output).await?;
        stream.flush().await
    };
    timeout(limit, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The part of the intake that a session holds.
struct Room {
    intake: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Whether at least `bytes` are held now.
    async fn hold(&mut self, bytes: usize, limit: Duration) -> bool {
        let held_kib = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing_kib = bytes.div_ceil(1024).saturating_sub(held_kib);
        if missing_kib == 0 {
            return true;
        }
        let wanted_kib = missing_kib.next_multiple_of(ROOM_STEP_KIB);
        let Ok(wanted_kib) = u32::try_from(wanted_kib) else { return false };
        let Ok(Ok(permit)) = timeout(limit, Arc::clone(&self.intake).acquire_many_owned(wanted_kib)).await else {
            return false;
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        true
    }

    fn leave(&mut self) {
        self.held = None;
    }
}
