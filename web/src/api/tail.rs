//! The end of the log, decoded once for all who follow it: a ring of the last records, and who is woken by which.
//!
//! One task feeds it as long as somebody follows. Whoever waits is woken by records that are about what they wait for, and then
//! finds them in the ring; only who falls behind the ring, or begins in the past, reads the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use postledger_events::Record;
use postledger_events::id::{AccountName, Seq};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::about::About;
use super::problem::Problem;
use crate::Port;
use crate::port::View;

/// Streams of the whole server at once, and those about one account.
pub const STREAMS_MAX: usize = 2_000;
pub const STREAMS_OF_ACCOUNT_MAX: usize = 100;
/// Records in the ring, and bytes of their lines.
const RING_RECORDS_MAX: usize = 1_024;
const RING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Records that are fed at once, and that one follower takes at once.
const CHUNK: usize = 256;
/// Followers that read the log at the same time; each may hold some MiB of lines for a moment.
const READERS_MAX: usize = 4;

/// See above.
#[derive(Debug)]
pub struct Tail {
    state: Mutex<State>,
    readers: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    ring: VecDeque<Arc<Entry>>,
    ring_bytes: usize,
    /// The ring has every record behind this one.
    floor: Seq,
    /// Every record up to this one was told of.
    position: Seq,
    fed: bool,
    /// By the account that records must be about; `None`: all records.
    followers: HashMap<Option<AccountName>, Followers>,
    streams: usize,
}

#[derive(Debug)]
struct Followers {
    /// The last record that was about what they wait for.
    wake: watch::Sender<Seq>,
    count: usize,
    streams: usize,
}

/// A record with its line.
#[derive(Debug)]
pub struct Entry {
    pub line: Bytes,
    pub record: Record,
}

/// One who follows, and how far they have come. Followers that are dropped are forgotten.
pub struct Follower<P: Port> {
    port: Arc<P>,
    account: Option<AccountName>,
    is_stream: bool,
    wake: watch::Receiver<Seq>,
    /// From this record on they are woken by all that they wait for.
    joined: Seq,
    at: Seq,
}

/// Where a follower finds what comes next.
#[derive(Debug)]
pub enum Next {
    /// There is nothing for them yet.
    Nothing,
    /// The next records, of which some may be for them.
    Recent(Vec<Arc<Entry>>),
    /// The ring does not go back so far: the log has it.
    Older,
}

/// The log cannot be followed any more; why is in the program's log.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Default for Tail {
    fn default() -> Tail {
        Tail { state: Mutex::default(), readers: Semaphore::new(READERS_MAX) }
    }
}

impl Tail {
    /// Follows the records that are about an account, or all, behind the record `at`.
    pub fn follow<P: Port>(port: &Arc<P>, account: Option<AccountName>, at: Seq) -> Follower<P> {
        let position = port.view().position();
        let mut state = port.tail().state();
        state.join(port, position, account, at, false)
    }

    /// The same for a stream, of which there may be so many.
    pub fn stream<P: Port>(port: &Arc<P>, account: Option<AccountName>, at: Seq) -> Result<Follower<P>, Problem> {
        let position = port.view().position();
        let mut state = port.tail().state();
        state.check_room(account.as_ref())?;
        Ok(state.join(port, position, account, at, true))
    }

    /// Leave to read the log.
    pub async fn reader(&self) -> SemaphorePermit<'_> {
        self.readers.acquire().await.expect("it is never closed")
    }

    /// The last record that was fed; `None` ends the feeding, since nobody follows.
    fn fed_to(&self) -> Option<Seq> {
        let mut state = self.state();
        if state.followers.is_empty() {
            state.empty();
            return None;
        }
        Some(state.position)
    }

    fn push(&self, entries: Vec<Arc<Entry>>) {
        self.state().push(entries);
    }

    /// Whoever follows is told that it is over.
    fn end(&self) {
        let mut state = self.state();
        state.followers.clear();
        state.empty();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_room(&self, account: Option<&AccountName>) -> Result<(), Problem> {
        let of_account = account.and_then(|_| self.followers.get(&account.cloned())).map_or(0, |f| f.streams);
        let max = match (of_account >= STREAMS_OF_ACCOUNT_MAX, self.streams >= STREAMS_MAX) {
            (true, _) => STREAMS_OF_ACCOUNT_MAX,
            (_, true) => STREAMS_MAX,
            (false, false) => return Ok(()),
        };
        Err(Problem::too_many(format!("{max} streams are open already; close some, or ask for events in parts")))
    }

    fn join<P: Port>(
        &mut self,
        port: &Arc<P>,
        position: Seq,
        account: Option<AccountName>,
        at: Seq,
        is_stream: bool,
    ) -> Follower<P> {
        if !self.fed {
            (self.fed, self.floor, self.position) = (true, position, position);
            tokio::spawn(feed(Arc::clone(port)));
        }
        let joined = self.position;
        let new = || Followers { wake: watch::Sender::new(joined), count: 0, streams: 0 };
        let followers = self.followers.entry(account.clone()).or_insert_with(new);
        followers.count += 1;
        followers.streams += usize::from(is_stream);
        self.streams += usize::from(is_stream);
        let wake = followers.wake.subscribe();
        Follower { port: Arc::clone(port), account, is_stream, wake, joined, at }
    }

    fn push(&mut self, entries: Vec<Arc<Entry>>) {
        let mut woken: HashMap<Option<AccountName>, Seq> = HashMap::new();
        for entry in entries {
            let seq = entry.record.seq;
            woken.insert(None, seq);
            for account in About::of(&entry.record.event).accounts {
                woken.insert(Some(account.clone()), seq);
            }
            self.position = seq;
            self.ring_bytes += entry.line.len();
            self.ring.push_back(entry);
        }
        while self.ring.len() > RING_RECORDS_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.line.len();
            self.floor = oldest.record.seq;
        }
        for (account, seq) in woken {
            if let Some(followers) = self.followers.get(&account) {
                followers.wake.send_replace(seq);
            }
        }
    }

    fn empty(&mut self) {
        (self.fed, self.ring_bytes) = (false, 0);
        self.ring = VecDeque::new();
    }

    fn after(&self, at: Seq) -> Vec<Arc<Entry>> {
        let first = self.ring.partition_point(|entry| entry.record.seq <= at);
        self.ring.range(first..).take(CHUNK).cloned().collect()
    }
}

impl<P: Port> Follower<P> {
    /// The last record that was looked at, or needed no look.
    pub fn at(&self) -> Seq {
        self.at
    }

    pub fn seen(&mut self, seq: Seq) {
        self.at = self.at.max(seq);
    }

    pub fn look(&mut self) -> Next {
        let state = self.port.tail().state();
        let told = *self.wake.borrow_and_update();
        if self.at >= self.joined && told <= self.at {
            self.at = self.at.max(state.position);
            return Next::Nothing;
        }
        if self.at < state.floor {
            return Next::Older;
        }
        let entries = state.after(self.at);
        if entries.is_empty() {
            self.at = self.at.max(state.position);
            return Next::Nothing;
        }
        Next::Recent(entries)
    }

    /// Returns when there may be something new.
    pub async fn woken(&mut self) -> Result<(), Gone> {
        self.wake.changed().await.map_err(|_| Gone)
    }
}

impl<P: Port> Drop for Follower<P> {
    fn drop(&mut self) {
        let mut state = self.port.tail().state();
        state.streams -= usize::from(self.is_stream);
        let Some(followers) = state.followers.get_mut(&self.account) else { return };
        followers.count = followers.count.saturating_sub(1);
        followers.streams = followers.streams.saturating_sub(usize::from(self.is_stream));
        if followers.count == 0 {
            state.followers.remove(&self.account);
        }
    }
}

/// Feeds the tail until nobody follows, the program stops, or the log cannot be read.
async fn feed<P: Port>(port: Arc<P>) {
    while let Some(from) = port.tail().fed_to() {
        tokio::select! {
            () = port.stopping() => return port.tail().end(),
            () = port.wait_past(from) => {}
        }
        let view = port.view();
        let read = tokio::task::spawn_blocking(move || read(&view, from)).await;
        match read.map_err(|e| e.to_string()).and_then(|entries| entries) {
            Ok(entries) => port.tail().push(entries),
            Err(why) => {
                tracing::error!("the log cannot be followed behind record {from}: {why}");
                return port.tail().end();
            }
        }
    }
}

fn read<V: View>(view: &V, from: Seq) -> Result<Vec<Arc<Entry>>, String> {
    let lines = view.lines_after(from, CHUNK).map_err(|e| e.to_string())?;
    if lines.is_empty() {
        return Err("nothing is there".to_owned());
    }
    let decode = |(_, line): (Seq, Vec<u8>)| {
        let record = Record::decode(&line).map_err(|e| e.to_string())?;
        Ok(Arc::new(Entry { line: line.into(), record }))
    };
    lines.into_iter().map(decode).collect()
}
