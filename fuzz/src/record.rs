//! A line that is taken for a record is written again as the same fact.

use postledger_events::Record;
use postledger_events::record::Envelope;

pub fn check(bytes: &[u8]) {
    let Ok(record) = Record::decode(bytes) else { return };
    let envelope = Envelope::decode(bytes).expect("a record has a place and a kind");
    assert_eq!((envelope.seq, envelope.at, envelope.prev), (record.seq, record.at, record.prev));
    assert_eq!((&*envelope.kind, envelope.v), (record.event.kind(), record.event.version()));
    let line = record.to_line();
    assert!(!line.contains(&b'\n'), "a record is one line: {}", String::from_utf8_lossy(&line));
    assert_eq!(Record::decode(&line).as_ref(), Ok(&record), "what is written is read again");
}
