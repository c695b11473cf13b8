//! Request bodies as they come in: bounded in size, in time, and together in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Between two pieces of a body.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);
/// For a whole body.
const BODY_WAIT_MAX: Duration = Duration::from_secs(600);
/// For memory that others hold.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Memory is taken in steps of this many bytes where the size is not known before.
const STEP_BYTES: u64 = 64 * 1024;

/// A body that is being read, and the memory that it may take. Keep it as long as what was read from it is in memory.
pub struct Intake {
    body: BodyDataStream,
    pool: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    held_bytes: u64,
    read_bytes: u64,
    bytes_max: u64,
    announced_bytes: Option<u64>,
    deadline: Instant,
}

/// The memory that a request takes; given back when dropped.
pub struct Held(#[expect(dead_code, reason = "held for what its drop does")] Option<OwnedSemaphorePermit>);

impl Intake {
    pub fn new(body: Body, headers: &HeaderMap, pool: &Arc<Semaphore>, bytes_max: u64) -> Intake {
        let length = headers.get(header::CONTENT_LENGTH);
        Intake {
            body: body.into_data_stream(),
            pool: Arc::clone(pool),
            held: None,
            held_bytes: 0,
            read_bytes: 0,
            bytes_max,
            announced_bytes: length.and_then(|v| v.to_str().ok()?.parse().ok()),
            deadline: Instant::now() + BODY_WAIT_MAX,
        }
    }

    /// The next piece; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        if self.read_bytes == 0 {
            self.reserve(self.announced_bytes.unwrap_or(0)).await?;
        }
        let until = self.deadline.min(Instant::now() + PIECE_WAIT_MAX);
        match timeout_at(until, self.body.next()).await {
            Err(_) => Err(Error::TooSlow),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(Error::Broken),
            Ok(Some(Ok(piece))) => {
                self.read_bytes += piece.len() as u64;
                self.reserve(self.read_bytes).await?;
                Ok(Some(piece))
            }
        }
    }

    /// All of it, without a copy if it came in one piece.
    pub async fn whole(&mut self) -> Result<Bytes, Error> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece().await? else { return Ok(first) };
        let announced = usize::try_from(self.announced_bytes.unwrap_or(0)).unwrap_or(0);
        let mut whole = BytesMut::with_capacity(announced.max(first.len() + second.len()));
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// The body was read; its memory stays taken.
    pub fn into_held(self) -> Held {
        Held(self.held)
    }

    /// Takes memory for `bytes` in all.
    async fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes > self.bytes_max {
            return Err(Error::TooLarge { bytes_max: self.bytes_max });
        }
        if bytes <= self.held_bytes {
            return Ok(());
        }
        let unit = if self.announced_bytes.is_some() { 1024 } else { STEP_BYTES };
        let step = (bytes - self.held_bytes).next_multiple_of(unit);
        let step_kib = u32::try_from(step / 1024).unwrap_or(u32::MAX);
        let acquire = Arc::clone(&self.pool).acquire_many_owned(step_kib);
        let permit = timeout_at(Instant::now() + MEMORY_WAIT_MAX, acquire).await;
        let permit = permit.map_err(|_| Error::Busy)?.map_err(|_| Error::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        self.held_bytes += step;
        Ok(())
    }
}

/// The body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    TooLarge {
        bytes_max: u64,
    },
    TooSlow,
    /// The client went away or broke the protocol.
    Broken,
    /// Others hold too much memory.
    Busy,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::TooLarge { bytes_max } => write!(f, "http: request body too large (more than {bytes_max} bytes)"),
            Error::TooSlow => f.write_str("request body did not come in time"),
            Error::Broken => f.write_str("request body broke off"),
            Error::Busy => f.write_str("too many large requests at once"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn intake(pieces: &[&'static str], announced: Option<&str>, pool_kib: usize, bytes_max: u64) -> Intake {
        let body = Body::from_stream(stream::iter(pieces.to_vec()).map(Ok::<_, std::io::Error>));
        let mut headers = HeaderMap::new();
        if let Some(length) = announced {
            headers.insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        Intake::new(body, &headers, &Arc::new(Semaphore::new(pool_kib)), bytes_max)
    }

    #[tokio::test]
    async fn pieces_become_one() {
        for pieces in [&[][..], &["abc"], &["a", "bc"], &["a", "b", "c"]] {
            let whole = intake(pieces, None, 1024, 10).whole().await;
            assert_eq!(whole, Ok(Bytes::from(pieces.concat())));
        }
    }

    #[tokio::test]
    async fn sizes_are_bounded() {
        let too_large = Err(Error::TooLarge { bytes_max: 3 });
        assert_eq!(intake(&["abc"], Some("3"), 1024, 3).whole().await, Ok(Bytes::from("abc")));
        assert_eq!(intake(&["ab", "cd"], None, 1024, 3).whole().await, too_large);
        assert_eq!(intake(&[], Some("4"), 1024, 3).whole().await, too_large);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_over_all() {
        let mut first = intake(&["abc"], None, 64, 1 << 20);
        let pool = Arc::clone(&first.pool);
        first.whole().await.unwrap();
        let held = first.into_held();
        let mut second = intake(&["abc"], None, 0, 1 << 20);
        second.pool = Arc::clone(&pool);
        assert_eq!(second.whole().await, Err(Error::Busy));
        drop(held);
        assert_eq!(pool.available_permits(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_not_waited_for() {
        let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let mut intake = Intake::new(body, &HeaderMap::new(), &Arc::new(Semaphore::new(64)), 10);
        assert_eq!(intake.whole().await, Err(Error::TooSlow));
    }
}
