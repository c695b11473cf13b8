//! Records: facts as they stand in the log, each one line of JSON that names the hash of the line before.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::event::{self, Event};
use crate::id::{Seq, Sha256};
use crate::time::Timestamp;

/// Version of the record format, said in record 1.
pub const FORMAT: u32 = 1;

/// A fact with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: Seq,
    pub at: Timestamp,
    /// Of the line of the record before, zeros for record 1.
    pub prev: Sha256,
    pub event: Event,
}

impl Record {
    /// Appends the record's line, without line end, to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, version) = (self.event.kind(), self.event.version());
        let Record { seq, at, prev, .. } = self;
        write!(out, r#"{{"seq":{seq},"at":"{at}","kind":"{kind}","v":{version},"prev":"{prev}","data":"#)
            .expect("a Vec takes all");
        self.event.write_data(out);
        match self.event.subject() {
            None => out.extend_from_slice(br#","personal":{}}"#),
            Some(subject) => {
                write!(out, r#","personal":{{"{subject}":"#).expect("a Vec takes all");
                self.event.write_personal(out);
                out.extend_from_slice(b"}}");
            }
        }
    }

    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(1024);
        self.encode(&mut line);
        line
    }

    /// Reads a line that [`Record::encode`] or an older version of it wrote. Unknown fields are passed over (they stay in the
    /// line); an unknown kind is an error.
    pub fn decode(line: &[u8]) -> Result<Record, Error> {
        // Checked once for the whole line, not for each text in it.
        let text = std::str::from_utf8(line).ok();
        text.and_then(|text| serde_json::from_str(text).ok())
            .map_or_else(|| Record::decode_in_parts(line), |AsWritten(r)| Ok(r))
    }

    /// Reads also what [`AsWritten`] does not, and says what is wrong.
    fn decode_in_parts(line: &[u8]) -> Result<Record, Error> {
        let Envelope { seq, at, kind, v, prev, data, personal } = Envelope::decode(line)?;
        let damaged = |e: serde_json::Error| Error::Damaged { seq: Some(seq), why: e.to_string() };
        let data = &mut serde_json::Deserializer::from_str(data.get());
        let mut event = event::Data { kind: &kind, version: v }
            .deserialize(data)
            .map_err(damaged)?
            .ok_or_else(|| Error::UnknownKind { seq, kind: kind.clone().into_owned(), version: v })?;
        if let Some(personal) = personal.values().next() {
            let personal = &mut serde_json::Deserializer::from_str(personal.get());
            event::Personal { event: &mut event }.deserialize(personal).map_err(damaged)?;
        }
        Ok(Record { seq, at, prev, event })
    }
}

/// A line with the members that [`Record::encode`] writes, in their order: the kind is known before the fact, so one pass does.
struct AsWritten(Record);

impl<'de> Deserialize<'de> for AsWritten {
    fn deserialize<D: Deserializer<'de>>(line: D) -> Result<AsWritten, D::Error> {
        line.deserialize_map(InOrder).map(AsWritten)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let seq = member(&mut map, "seq")?;
        let at = member(&mut map, "at")?;
        let Text(kind) = member(&mut map, "kind")?;
        let version = member(&mut map, "v")?;
        let prev = member(&mut map, "prev")?;
        name(&mut map, "data")?;
        let event = map.next_value_seed(event::Data { kind: &kind, version })?;
        let mut event = event.ok_or_else(|| A::Error::custom("no such kind"))?;
        name(&mut map, "personal")?;
        map.next_value_seed(event::BySubject(event::Personal { event: &mut event }))?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(Record { seq, at, prev, event }),
            Some(_) => Err(A::Error::custom("more members")),
        }
    }
}

fn member<'de, A: MapAccess<'de>, T: Deserialize<'de>>(map: &mut A, of: &str) -> Result<T, A::Error> {
    name(map, of)?;
    map.next_value()
}

/// The next member has this name.
fn name<'de, A: MapAccess<'de>>(map: &mut A, expected: &str) -> Result<(), A::Error> {
    match map.next_key()? {
        Some(Text(name)) if name == expected => Ok(()),
        Some(_) | None => Err(A::Error::custom("another order")),
    }
}

/// A text that is borrowed from the line where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where a line names its kind, behind its place and time.
const KIND_WITHIN: usize = 128;

/// The kind that a line names, found without reading the line. `None`: it is no record's.
pub fn kind_of(line: &[u8]) -> Option<&str> {
    const NAMED: &[u8] = br#","kind":""#;
    let head = &line[..line.len().min(KIND_WITHIN)];
    let name = &head[head.windows(NAMED.len()).position(|part| part == NAMED)? + NAMED.len()..];
    std::str::from_utf8(&name[..name.iter().position(|b| *b == b'"')?]).ok()
}

/// A record's place and kind, without its fact.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    pub seq: Seq,
    pub at: Timestamp,
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    pub v: u32,
    pub prev: Sha256,
    #[serde(borrow)]
    pub data: &'a RawValue,
    /// By subject; `null` where it was forgotten.
    #[serde(borrow)]
    pub personal: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

impl<'a> Envelope<'a> {
    pub fn decode(line: &'a [u8]) -> Result<Envelope<'a>, Error> {
        serde_json::from_slice(line).map_err(|e| Error::Damaged { seq: None, why: e.to_string() })
    }
}

/// Why a line is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The line is not what was written.
    Damaged { seq: Option<Seq>, why: String },
    /// A newer program wrote it; this one must not go on.
    UnknownKind { seq: Seq, kind: String, version: u32 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Damaged { seq: Some(seq), why } => write!(f, "record {seq} is damaged: {why}"),
            Error::Damaged { seq: None, why } => write!(f, "a record is damaged: {why}"),
            Error::UnknownKind { seq, kind, version } => {
                write!(f, "record {seq} is of kind {kind} version {version}, which only a newer program knows")
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::KINDS;
    use crate::fact::account::{AccountConfigured, AccountPersonal, AccountSettings};
    use crate::id::{AccountName, Author};

    fn record() -> Record {
        Record {
            seq: Seq(7),
            at: Timestamp::from_secs(1),
            prev: Sha256::ZERO,
            event: AccountConfigured {
                account: AccountName::new("mox").unwrap(),
                settings: AccountSettings::default(),
                by: Author::program(),
                personal: Some(AccountPersonal { full_name: "Mox \"☺\"".to_owned() }),
            }
            .into(),
        }
    }

    #[test]
    fn round_trip() {
        let line = record().to_line();
        assert!(
            line.starts_with(br#"{"seq":7,"at":"1970-01-01T00:00:01.000000000Z","kind":"AccountConfigured","v":1,"#)
        );
        assert!(line.ends_with(r#""personal":{"account:mox":{"full_name":"Mox \"☺\""}}}"#.as_bytes()));
        assert_eq!(Record::decode(&line), Ok(record()));
        assert_eq!(kind_of(&line), Some("AccountConfigured"));
        assert_eq!(kind_of(br#"{"seq":7,"at":"1970-01-01T00:00:01Z"}"#), None);
    }

    #[test]
    fn a_forgotten_personal_part_reads_as_none() {
        let line = String::from_utf8(record().to_line()).unwrap();
        let forgotten = line.replace(r#"{"full_name":"Mox \"☺\""}"#, "null");
        let Event::AccountConfigured(fact) = Record::decode(forgotten.as_bytes()).unwrap().event else { panic!() };
        assert_eq!(fact.personal, None);
        assert_eq!(fact.account.as_str(), "mox");
    }

    #[test]
    fn unknown_fields_pass_and_unknown_kinds_stop() {
        let line = String::from_utf8(record().to_line()).unwrap();
        let more = line.replace(r#""data":{"#, r#""data":{"later":1,"#);
        assert_eq!(Record::decode(more.as_bytes()), Ok(record()));
        let newer = line.replace(r#""v":1"#, r#""v":2"#);
        assert_eq!(
            Record::decode(newer.as_bytes()).unwrap_err().to_string(),
            "record 7 is of kind AccountConfigured version 2, which only a newer program knows"
        );
        assert!(matches!(Record::decode(&line.as_bytes()[..40]), Err(Error::Damaged { .. })));
    }

    #[test]
    fn the_order_of_the_members_does_not_matter() {
        let line = String::from_utf8(record().to_line()).unwrap();
        // By the alphabet: the fact stands before its kind.
        let sorted = serde_json::from_str::<serde_json::Value>(&line).unwrap().to_string();
        assert!(sorted.find("\"data\"").unwrap() < sorted.find("\"kind\"").unwrap());
        assert_eq!(Record::decode(sorted.as_bytes()), Ok(record()));
        let newer = sorted.replace(r#""v":1"#, r#""v":2"#);
        assert!(matches!(Record::decode(newer.as_bytes()), Err(Error::UnknownKind { version: 2, .. })));
        let wrong = sorted.replace(r#""account":"#, r#""accounts":"#);
        assert!(matches!(Record::decode(wrong.as_bytes()), Err(Error::Damaged { seq: Some(Seq(7)), .. })));
    }

    #[test]
    fn every_member_is_there_once() {
        let line = String::from_utf8(record().to_line()).unwrap();
        for member in ["seq", "at", "kind", "v", "prev", "data", "personal"] {
            let missing = line.replacen(&format!("\"{member}\":"), "\"other\":", 1);
            let twice = line.replacen('{', &format!("{{\"{member}\":7,"), 1);
            for damaged in [missing, twice] {
                assert!(matches!(Record::decode(damaged.as_bytes()), Err(Error::Damaged { .. })), "{damaged}");
                assert!(Envelope::decode(damaged.as_bytes()).is_err(), "{damaged}");
            }
        }
    }

    /// A record of every kind and version that was ever written, in the bytes it was written with.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the crate has no files; its golden records are")]
    fn golden_records_come_back_byte_for_byte() {
        for (kind, version) in KINDS {
            let path = format!("{}/testdata/{kind}.{version}.json", env!("CARGO_MANIFEST_DIR"));
            let line = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let record = Record::decode(line.trim_end().as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!((record.event.kind(), record.event.version()), (*kind, *version), "{path}");
            assert_eq!(String::from_utf8(record.to_line()).unwrap(), line.trim_end(), "{path}");
        }
    }
}
