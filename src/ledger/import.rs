//! Reading what `export` wrote: line by line, checking all that can be checked, so that whatever comes out of here
//! is as it was in its ledger.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use sha2::Digest;

use postledger_events::Record;
use postledger_events::event::Event;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{LedgerId, Seq, Sha256};
use postledger_events::time::Timestamp;

use super::chain::Chain;
use super::export::{BodyLine, CHUNK_BYTES_MAX, FORMAT, Fault, Header, KIND, Trailer};
use super::store::Head;
use super::verify::bodies_of;

/// Bytes of one line; a chunk of a content takes four thirds of its bytes, and records are smaller.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where the trailer is looked for.
const TRAILER_BYTES_MAX: u64 = 4096;
/// In place of a path: the standard input.
pub const STDIN: &str = "-";
/// A part of a backup that is being written.
pub const UNFINISHED: &str = "unfinished";

/// A file cannot be taken, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {why}", path.display(), at_line(*line))]
pub struct Error {
    path: PathBuf,
    /// 0: none in particular.
    line: u64,
    why: String,
}

fn at_line(line: u64) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Item {
    Record(Box<Found>),
    /// A part of a content of the last record; the last part comes only if the whole is right.
    Chunk {
        body: BodyRef,
        offset: u64,
        data: Vec<u8>,
    },
}

/// A record in its place in the chain.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) line: Vec<u8>,
    pub(super) event: Event,
}

/// Reads one file.
pub(super) struct Reader<R> {
    path: PathBuf,
    input: R,
    header: Header,
    chain: Chain,
    line: u64,
    hash: sha2::Sha256,
    /// Contents of the last record that may still come.
    expected: Vec<BodyRef>,
    content: Option<Content>,
    records: u64,
    bodies: u64,
    trailer: Option<Trailer>,
}

/// A content of which more is to come.
struct Content {
    body: BodyRef,
    offset: u64,
    hash: sha2::Sha256,
}

impl Reader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Reader<BufReader<File>>, Error> {
        let file = open(path).map_err(|e| failed(path, &e))?;
        Reader::new(path, BufReader::with_capacity(CHUNK_BYTES_MAX, file))
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Not through /dev/stdin, which cannot be opened if it is a socket or another user's.
    if path.as_os_str() == STDIN { Ok(io::stdin().as_fd().try_clone_to_owned()?.into()) } else { File::open(path) }
}

impl<R: BufRead> Reader<R> {
    /// `path` is for messages.
    pub(super) fn new(path: &Path, mut input: R) -> Result<Reader<R>, Error> {
        let first = read_line(&mut input).map_err(|e| failed(path, &e))?;
        let error = |why: String| Error { path: path.to_owned(), line: 1, why };
        let header = first.as_deref().and_then(|line| serde_json::from_slice::<Header>(line).ok());
        let header = header.filter(|h| h.postledger == KIND);
        let header = header.ok_or_else(|| error("this is no export of a ledger".to_owned()))?;
        if header.format != FORMAT {
            return Err(error(format!("format {}, which only a newer program knows", header.format)));
        }
        let before = Head { seq: header.after, hash: header.after_hash, at: Timestamp::EPOCH };
        let mut reader = Reader {
            path: path.to_owned(),
            input,
            header,
            chain: Chain::after(before),
            line: 1,
            hash: sha2::Sha256::default(),
            expected: Vec::new(),
            content: None,
            records: 0,
            bodies: 0,
            trailer: None,
        };
        reader.digest(&first.unwrap_or_default());
        Ok(reader)
    }

    /// Goes on from another file, whose end this one must name.
    pub(super) fn follow(&mut self, end: Head) -> Result<(), Error> {
        if (self.header.after, self.header.after_hash) == (end.seq, end.hash) {
            self.chain = Chain::after(end);
            return Ok(());
        }
        let (after, found) = (self.header.after, end.seq);
        Err(self
            .error(format!("it goes on from record {after} of its ledger, but what is there ends with record {found}")))
    }

    /// `None`: that was all, and it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        let line = read_line(&mut self.input).map_err(|e| failed(&self.path, &e))?;
        let line = line.ok_or_else(|| self.error("it is cut off: the last line is missing".to_owned()))?;
        self.line += 1;
        if line.starts_with(br#"{"seq":"#) {
            self.digest(&line);
            self.record(line).map(|found| Some(Item::Record(Box::new(found))))
        } else if line.starts_with(br#"{"body":"#) {
            self.digest(&line);
            self.chunk(&line).map(Some)
        } else if line.starts_with(br#"{"end":"#) {
            self.end(&line).map(|()| None)
        } else if line.starts_with(br#"{"error":"#) {
            let Fault { error } = self.parse(&line)?;
            Err(self.error(format!("it was broken off: {error}")))
        } else {
            Err(self.error("this is neither a record nor a content".to_owned()))
        }
    }

    fn record(&mut self, line: Vec<u8>) -> Result<Found, Error> {
        self.check_content_ended()?;
        let record = Record::decode(&line).map_err(|e| self.error(e.to_string()))?;
        let head = self.chain.step(record.seq, &record, &line).map_err(|e| self.error(e.to_string()))?;
        self.expected = bodies_of(&record.event).collect();
        self.records += 1;
        Ok(Found { head, line, event: record.event })
    }

    fn chunk(&mut self, line: &[u8]) -> Result<Item, Error> {
        let BodyLine { body, offset, size, sha256, data } = self.parse(line)?;
        let body = BodyRef { body, size, sha256 };
        let data = BASE64_STANDARD.decode(data).map_err(|e| self.error(format!("body {}: {e}", body.body)))?;
        let mut content = match self.content.take() {
            None if self.expected.contains(&body) => Content { body, offset: 0, hash: sha2::Sha256::default() },
            Some(content) if content.body == body => content,
            None | Some(_) => return Err(self.error(format!("body {} is none of the record before", body.body))),
        };
        let end = offset.saturating_add(data.len() as u64);
        if offset != content.offset || end > size || (data.is_empty() && size > 0) {
            return Err(self.error(format!("body {} does not go on where it must", body.body)));
        }
        content.hash.update(&data);
        content.offset = end;
        if end == size {
            self.check_hash(content)?;
        } else {
            self.content = Some(content);
        }
        Ok(Item::Chunk { body, offset, data })
    }

    fn check_hash(&mut self, content: Content) -> Result<(), Error> {
        let (found, BodyRef { body, sha256, .. }) = (Sha256(content.hash.finalize().into()), content.body);
        if found != sha256 {
            return Err(self.error(format!("body {body} has the hash {found} instead of {sha256}")));
        }
        self.expected.retain(|expected| *expected != content.body);
        self.bodies += 1;
        Ok(())
    }

    fn check_content_ended(&self) -> Result<(), Error> {
        match &self.content {
            None => Ok(()),
            Some(content) => Err(self.error(format!("body {} has no end", content.body.body))),
        }
    }

    fn end(&mut self, line: &[u8]) -> Result<(), Error> {
        self.check_content_ended()?;
        let trailer: Trailer = self.parse(line)?;
        let begin = Head { seq: self.header.after, hash: self.header.after_hash, at: Timestamp::EPOCH };
        let end = self.chain.end().unwrap_or(begin);
        let found = Trailer {
            end: end.seq,
            hash: end.hash,
            records: self.records,
            bodies: self.bodies,
            lines_sha256: Sha256(self.hash.clone().finalize().into()),
        };
        if trailer != found {
            return Err(self.error(difference(&trailer, &found)));
        }
        match read_line(&mut self.input).map_err(|e| failed(&self.path, &e))? {
            None => self.trailer = Some(trailer),
            Some(_) => return Err(self.error("it goes on behind its last line".to_owned())),
        }
        Ok(())
    }

    fn digest(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.hash.update(b"\n");
    }

    fn parse<T: DeserializeOwned>(&self, line: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(line).map_err(|e| self.error(e.to_string()))
    }

    /// About the line that was read last.
    pub(super) fn error(&self, why: String) -> Error {
        Error { path: self.path.clone(), line: self.line, why }
    }
}

fn difference(says: &Trailer, found: &Trailer) -> String {
    if (says.end, says.records, says.bodies) != (found.end, found.records, found.bodies) {
        let count = |t: &Trailer| format!("{} records up to {} and {} contents", t.records, t.end, t.bodies);
        return format!("there are {} instead of {}", count(found), count(says));
    }
    if says.hash != found.hash {
        return format!(
            "record {} is not what was written: its hash is {} instead of {}",
            says.end, found.hash, says.hash
        );
    }
    format!("its lines are not what was written: their hash is {} instead of {}", found.lines_sha256, says.lines_sha256)
}

/// Without its end; `None`: there is none. What has no line end is as if it were not there.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

fn failed(path: &Path, e: &io::Error) -> Error {
    Error { path: path.to_owned(), line: 0, why: e.to_string() }
}

/// What a file has, all of which was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub ledger: LedgerId,
    pub after: Seq,
    pub end: Seq,
    pub hash: Sha256,
    pub records: u64,
    pub bodies: u64,
}

/// Reads a file from end to end.
pub fn check(path: &Path) -> Result<Summary, Error> {
    to_end(Reader::open(path)?)
}

/// Reads from end to end what is not a file; `name` is for messages.
pub fn read_through(name: &Path, input: impl BufRead) -> Result<Summary, Error> {
    to_end(Reader::new(name, input)?)
}

fn to_end(mut reader: Reader<impl BufRead>) -> Result<Summary, Error> {
    while reader.next()?.is_some() {}
    Ok(summary(&reader.header, reader.trailer.expect("it was read to its end")))
}

fn summary(header: &Header, trailer: Trailer) -> Summary {
    let Trailer { end, hash, records, bodies, .. } = trailer;
    Summary { ledger: header.ledger, after: header.after, end, hash, records, bodies }
}

/// What a file says that it has, from its first and last line.
pub fn glance(path: &Path) -> Result<Summary, Error> {
    let reader = Reader::open(path)?;
    let mut file = File::open(path).map_err(|e| failed(path, &e))?;
    let size = file.seek(SeekFrom::End(0)).map_err(|e| failed(path, &e))?;
    file.seek(SeekFrom::Start(size.saturating_sub(TRAILER_BYTES_MAX))).map_err(|e| failed(path, &e))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(|e| failed(path, &e))?;
    Ok(summary(&reader.header, check_end(path, &tail)?))
}

/// Looks for the trailer at the end of these bytes.
pub fn check_end(path: &Path, tail: &[u8]) -> Result<Trailer, Error> {
    let error = |why: String| Error { path: path.to_owned(), line: 0, why };
    let cut_off = || error("it is cut off: the last line is missing".to_owned());
    let tail = tail.strip_suffix(b"\n").ok_or_else(cut_off)?;
    let last = tail.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    if let Ok(Fault { error: why }) = serde_json::from_slice(last) {
        return Err(error(format!("it was broken off: {why}")));
    }
    serde_json::from_slice(last).map_err(|_| cut_off())
}

/// The parts of a backup, in order; or the one file that `path` is.
pub fn parts(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    let entries: Vec<PathBuf> = entries.map_err(|e| failed(path, &e))?;
    let mut parts: Vec<(u64, PathBuf)> = entries.into_iter().filter_map(|p| Some((first_of(&p)?, p))).collect();
    parts.sort_unstable();
    Ok(parts.into_iter().map(|(_, path)| path).collect())
}

/// The name of the part after `after` up to `end`; it sorts as the part does.
pub fn part_name(after: Seq, end: Seq) -> String {
    format!("part-{:016}-{:016}.jsonl", after.0 + 1, end.0)
}

fn first_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_prefix("part-")?.strip_suffix(".jsonl")?;
    name.split_once('-')?.0.parse().ok()
}

/// Reads the parts of a backup one after the other.
pub(super) struct Parts {
    waiting: std::vec::IntoIter<PathBuf>,
    reader: Reader<BufReader<File>>,
    end: Head,
}

impl Parts {
    pub(super) fn open(path: &Path) -> Result<Parts, Error> {
        let mut waiting = parts(path)?.into_iter();
        let why = || Error { path: path.to_owned(), line: 0, why: "there is no part of a backup here".to_owned() };
        let mut reader = Reader::open(&waiting.next().ok_or_else(why)?)?;
        reader.follow(Head::NONE)?;
        Ok(Parts { waiting, reader, end: Head::NONE })
    }

    pub(super) fn ledger(&self) -> LedgerId {
        self.reader.header.ledger
    }

    /// `None`: that was all, and it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            match self.reader.next()? {
                Some(Item::Record(found)) => {
                    self.end = found.head;
                    return Ok(Some(Item::Record(found)));
                }
                Some(chunk) => return Ok(Some(chunk)),
                None => {
                    let Some(path) = self.waiting.next() else { return Ok(None) };
                    let ledger = self.ledger();
                    self.reader = Reader::open(&path)?;
                    self.reader.follow(self.end)?;
                    if self.ledger() != ledger {
                        return Err(self
                            .reader
                            .error(format!("it is of ledger {}, the others of {ledger}", self.ledger())));
                    }
                }
            }
        }
    }

    /// About the line that was read last.
    pub(super) fn error(&self, why: String) -> Error {
        self.reader.error(why)
    }
}
