//! A connection, clear or under TLS; and one that replies are read from.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use postledger_events::reply::Reply;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use crate::smtp::reply::{self, ReplyReader};

/// Bytes of unread replies that are held while we write.
const INBOX_BYTES_MAX: usize = 1024 * 1024;
const READ_BYTES: usize = 4096;

#[derive(Debug)]
pub enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A client's end: commands out, replies in.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    inbox: BytesMut,
    reader: ReplyReader,
    at_end: bool,
}

impl Wire {
    pub fn new(stream: Stream) -> Wire {
        Wire { stream, inbox: BytesMut::new(), reader: ReplyReader::default(), at_end: false }
    }

    /// What is unread is dropped; the caller has made sure that there is nothing.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether bytes came that no one asked for yet.
    pub fn has_unread(&self) -> bool {
        !self.inbox.is_empty() || !self.reader.is_idle()
    }

    /// The next reply.
    pub async fn reply(&mut self, limit: Duration) -> Result<Reply, Error> {
        timeout(limit, self.read_reply()).await.map_err(|_| Error::TimedOut(limit))?
    }

    /// Writes all of it, taking in what the peer sends meanwhile.
    pub async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Error> {
        let mut rest = bytes;
        let written = poll_fn(|cx| self.poll_write_all(cx, &mut rest));
        timeout(limit, written).await.map_err(|_| Error::TimedOut(limit))?.map_err(Error::Io)
    }

    /// What is wrong with a connection that should be silent, if anything is: it ended, or the peer spoke.
    pub async fn wrong_while_idle(&mut self) -> Option<String> {
        poll_fn(|cx| {
            self.poll_inbox(cx);
            Poll::Ready(())
        })
        .await;
        if self.has_unread() {
            const SHOWN_CHARS_MAX: usize = 200;
            let said: String = String::from_utf8_lossy(&self.inbox).trim_end().chars().take(SHOWN_CHARS_MAX).collect();
            return Some(format!("the peer spoke out of turn: {said}"));
        }
        self.at_end.then(|| Error::Closed.to_string())
    }

    pub async fn shutdown(mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    async fn read_reply(&mut self) -> Result<Reply, Error> {
        loop {
            let mut rest = &self.inbox[..];
            let reply = self.reader.read(&mut rest).map_err(Error::Reply)?;
            let taken = self.inbox.len() - rest.len();
            self.inbox.advance(taken);
            if let Some(reply) = reply {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.inbox).await.map_err(Error::Io)? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        self.poll_inbox(cx);
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *rest = &rest[written..];
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Takes in what is there. An error shows again at the next read or write.
    fn poll_inbox(&mut self, cx: &mut Context<'_>) {
        let mut space = [0; READ_BYTES];
        while !self.at_end && self.inbox.len() < INBOX_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.inbox.extend_from_slice(buf.filled()),
                Poll::Ready(_) => self.at_end = true,
                Poll::Pending => return,
            }
        }
    }
}

/// Why no reply came or nothing could be written.
#[derive(Debug)]
pub enum Error {
    Closed,
    TimedOut(Duration),
    Io(io::Error),
    Reply(reply::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Closed => f.write_str("the peer closed the connection"),
            Error::TimedOut(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Error::Io(e) => write!(f, "connection failed: {e}"),
            Error::Reply(e) => e.fmt(f),
        }
    }
}
