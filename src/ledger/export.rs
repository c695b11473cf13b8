//! The log with its contents as JSON Lines: one format for exports, the parts of a backup, and imports.
//!
//! A header; then each record's exact line, and behind a record that brought contents their lines, in chunks; then a trailer,
//! without which the rest is worth nothing. A fault is a last line of its own, so that whoever reads learns of it.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use postledger_events::event::Event;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{LedgerId, MessageUuid, Seq, Sha256};
use postledger_events::time::Timestamp;

use super::bodies;
use super::chain::{self, Chain, Damage};
use super::snapshot::{Lines, Snapshot};
use super::store::{self, Head};
use super::verify::bodies_of;
use super::{Program, Shared};

/// Version of the format, said in the header.
pub(super) const FORMAT: u32 = 1;
/// Bytes of a content in one line.
pub(super) const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// What is put together before it is handed on; the last line may bring more.
const PIECE_BYTES: usize = 256 * 1024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// What the file is: `export`.
    pub(super) postledger: String,
    pub(super) format: u32,
    pub(super) ledger: LedgerId,
    pub(super) number: u16,
    /// The record before the first one here; 0 if record 1 is here.
    pub(super) after: Seq,
    pub(super) after_hash: Sha256,
}

/// What [`Header::postledger`] says.
pub(super) const KIND: &str = "export";

/// A part of a content.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BodyLine {
    pub(super) body: MessageUuid,
    /// Of this part in the content.
    pub(super) offset: u64,
    /// Of the whole content.
    pub(super) size: u64,
    /// Of the whole content.
    pub(super) sha256: Sha256,
    /// Base64 (RFC 4648 §4).
    pub(super) data: String,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// The last record.
    pub end: Seq,
    /// Of its line.
    pub hash: Sha256,
    pub records: u64,
    pub bodies: u64,
    /// Of all lines before this one, with their line ends.
    pub lines_sha256: Sha256,
}

/// The last line instead of the trailer, if something cannot be read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) error: String,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record to go on from is not one of this branch of the ledger.
    #[error(
        "record {after} is not in this ledger as it was backed up: the ledger was restored or repaired since and goes on from \
         record {last_common}, or it is another ledger"
    )]
    CutOff { after: Seq, last_common: Seq },
    #[error("record 1, which names the ledger, is not here")]
    NoFirstRecord,
    #[error("{0}")]
    Store(#[from] store::Error),
}

/// What a moment of the ledger has after a record, in pieces of some lines. Blocks while it reads.
pub struct Export {
    snapshot: Snapshot,
    shared: Arc<Shared>,
    program: Program,
    lines: Lines,
    chain: Chain,
    /// Of what was handed on.
    hash: sha2::Sha256,
    /// What the last record brought, still to be written.
    contents: VecDeque<Content>,
    header: Option<Header>,
    records: u64,
    bodies: u64,
    ended: bool,
}

struct Content {
    body: BodyRef,
    source: Box<dyn Read + Send>,
    offset: u64,
    hash: sha2::Sha256,
}

impl Export {
    /// Begins behind record `after`, which has this hash, if one is given.
    pub(super) fn new(
        shared: Arc<Shared>,
        snapshot: Snapshot,
        program: Program,
        after: Seq,
        hash: Option<Sha256>,
    ) -> Result<Export, Error> {
        let created = snapshot.created()?.ok_or(Error::NoFirstRecord)?;
        let before = head(&snapshot, after, hash)?;
        let header = Header {
            postledger: KIND.to_owned(),
            format: FORMAT,
            ledger: created.ledger,
            number: created.number,
            after,
            after_hash: before.hash,
        };
        Ok(Export {
            lines: snapshot.records(after.next()..=snapshot.position()),
            snapshot,
            shared,
            program,
            chain: Chain::after(before),
            hash: sha2::Sha256::default(),
            contents: VecDeque::new(),
            header: Some(header),
            records: 0,
            bodies: 0,
            ended: false,
        })
    }

    /// Writes what comes next; `false`: there is nothing more.
    fn step(&mut self, piece: &mut Vec<u8>) -> Result<bool, Fault> {
        if let Some(header) = self.header.take() {
            write_line(piece, &header);
            return Ok(true);
        }
        if let Some(content) = self.contents.front_mut() {
            if content.write_chunk(piece)? {
                self.contents.pop_front();
                self.bodies += 1;
            }
            return Ok(true);
        }
        match self.lines.next() {
            None => Ok(false),
            Some(Err(e)) => Err(Damage::Unreadable { seq: self.chain.next(), why: e.to_string() }.into()),
            Some(Ok((seq, line))) => self.record(seq, &line, piece).map(|()| true),
        }
    }

    /// The chain is checked on the way: what is damaged is no backup.
    fn record(&mut self, seq: Seq, line: &[u8], piece: &mut Vec<u8>) -> Result<(), Fault> {
        let (_, record) = self.chain.read(seq, line)?;
        piece.extend_from_slice(line);
        piece.push(b'\n');
        self.records += 1;
        for body in bodies_of(&record.event) {
            if let Some(source) = self.open(&body).map_err(|e| fault(format!("record {seq}: {e}")))? {
                self.contents.push_back(Content { body, source, offset: 0, hash: sha2::Sha256::default() });
            }
        }
        Ok(())
    }

    /// `None`: it was forgotten.
    fn open(&self, body: &BodyRef) -> Result<Option<Box<dyn Read + Send>>, bodies::Error> {
        let is_live = |rows: &Snapshot| (self.program.is_body_live)(rows, body.body).map_err(store::Error::from);
        if !is_live(&self.snapshot)? {
            return Ok(None);
        }
        match self.shared.bodies.open_content(body, &self.snapshot.0.engine) {
            // A large one may have been forgotten after this moment.
            Err(bodies::Error::Missing(_)) if !is_live(&self.shared.snapshot())? => Ok(None),
            opened => opened.map(Some),
        }
    }

    fn end(&mut self, piece: &mut Vec<u8>) {
        self.hash.update(&*piece);
        let end = self.chain.end().unwrap_or(Head::NONE);
        let trailer = Trailer {
            end: end.seq,
            hash: end.hash,
            records: self.records,
            bodies: self.bodies,
            lines_sha256: Sha256(std::mem::take(&mut self.hash).finalize().into()),
        };
        write_line(piece, &trailer);
    }
}

/// The record to go on from, which must be on this branch.
fn head(snapshot: &Snapshot, after: Seq, hash: Option<Sha256>) -> Result<Head, Error> {
    let found = match after {
        Seq(0) => Some(Sha256::ZERO),
        after => snapshot.record_line(after)?.map(|line| Sha256::of(&line)),
    };
    match found.filter(|found| hash.is_none_or(|hash| hash == *found)) {
        Some(hash) => Ok(Head { seq: after, hash, at: Timestamp::EPOCH }),
        None => Err(Error::CutOff { after, last_common: last_common(snapshot, after)? }),
    }
}

/// The last record before `after` that every branch has which has `after`.
fn last_common(snapshot: &Snapshot, after: Seq) -> Result<Seq, Error> {
    let Some(next) = snapshot.records(after..=snapshot.position()).next() else { return Ok(snapshot.position()) };
    let (seq, line) = next?;
    let Event::LedgerBranched(branched) = chain::decode(seq, &line).map_err(to_store_error)?.event else {
        // It has another record in this place, so the two share nothing that is known of.
        return Ok(Seq(0));
    };
    Ok(branched.from_seq)
}

impl Iterator for Export {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        while piece.len() < PIECE_BYTES && !self.ended {
            match self.step(&mut piece) {
                Ok(true) => {}
                Ok(false) => {
                    self.end(&mut piece);
                    self.ended = true;
                }
                Err(fault) => {
                    write_line(&mut piece, &fault);
                    self.ended = true;
                }
            }
        }
        if !self.ended {
            self.hash.update(&piece);
        }
        Some(piece.into())
    }
}

impl Content {
    /// Whether it was the last chunk.
    fn write_chunk(&mut self, piece: &mut Vec<u8>) -> Result<bool, Fault> {
        let BodyRef { body, size, sha256 } = self.body;
        let left = usize::try_from(size - self.offset).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(CHUNK_BYTES_MAX)];
        self.source.read_exact(&mut data).map_err(|e| fault(format!("body {body} cannot be read: {e}")))?;
        self.hash.update(&data);
        write_line(piece, &BodyLine { body, offset: self.offset, size, sha256, data: BASE64_STANDARD.encode(&data) });
        self.offset += data.len() as u64;
        if self.offset < size {
            return Ok(false);
        }
        let found = Sha256(std::mem::take(&mut self.hash).finalize().into());
        if found != sha256 {
            return Err(fault(format!("body {body} has the hash {found} instead of {sha256}")));
        }
        Ok(true)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Fault {
        fault(damage.to_string())
    }
}

fn fault(error: String) -> Fault {
    Fault { error: format!("{error}. Run `postledger verify`") }
}

fn to_store_error(damage: Damage) -> store::Error {
    store::Error::Notes(damage.to_string())
}

fn write_line(piece: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *piece, line).expect("lines hold only what JSON can say, and a Vec takes all");
    piece.push(b'\n');
}
