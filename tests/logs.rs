//! Logs that no program of ours would write: no fold panics on them, and what the codec reads it writes again.

use postledger_events::Record;
use postledger_events::event::KINDS;
use postledger_events::id::{Seq, Sha256};
use postledger_events::time::Timestamp;
use postledger_projections::{Memory, PROJECTIONS, books, fold};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

const RECORDS_MAX: usize = 60;
const CHANGES_MAX: usize = 12;

/// A change of one place in a record, if the record can still be read afterwards.
#[derive(Clone, Debug)]
struct Change {
    place: Index,
    to: Value,
}

/// Values of all shapes that occur in records: few of each, so that records are about the same things.
fn value() -> impl Strategy<Value = Value> {
    let words = [
        "hold",
        "release",
        "cancel",
        "fail",
        "person",
        "permanent",
        "exhausted",
        "outcome-unknown",
        "operator",
        "account-removed",
        "forgotten",
        "plus",
        "mox",
        "none",
        "opportunistic",
        "starttls",
        "starttls-unverified",
        "rsa-sha256",
        "a",
        "Inbox",
        "Sent",
        "x@example.org",
        "\"a b\"@[IPv6:2001:db8::1]",
        "ö+y@xn--74h.example",
        "@d.example",
        "d.example",
        "127.0.0.1",
        "127.0.0.1:25",
        "5.1.1",
        "",
    ];
    prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(Value::from),
        2 => any::<String>().prop_map(Value::from),
        3 => (0u64..6).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => prop::sample::select(vec![u64::MAX, u64::MAX - 1, u64::from(u32::MAX), u64::from(u16::MAX)]).prop_map(Value::from),
        2 => any::<bool>().prop_map(Value::from),
        2 => Just(Value::Null),
        3 => (0u128..4).prop_map(|n| uuid::Uuid::from_u128(n).to_string().into()),
        2 => (0u8..3).prop_map(|n| format!("{n:02x}").repeat(16).into()),
        1 => (0u8..3).prop_map(|n| format!("{n:02x}").repeat(32).into()),
        3 => (0i64..5).prop_map(|s| Timestamp::from_secs(s).to_string().into()),
        1 => any::<i64>().prop_map(|n| Timestamp::from_nanos(n).to_string().into()),
        1 => Just(Value::Array(Vec::new())),
        1 => prop::sample::select(vec![
            r#"{"rule":1}"#, r#"{"failure":1}"#, r#"{"person":"admin"}"#, r#"{"reschedule":"1970-01-01T00:00:03Z"}"#,
            r#"{"schedule-at":"1970-01-01T00:00:03Z"}"#, r#"{"remove-account":"mox"}"#, r#"{"apply-hold-rule":[1,{}]}"#,
        ]).prop_map(|json| serde_json::from_str(json).expect("JSON")),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let change = (any::<Index>(), value()).prop_map(|(place, to)| Change { place, to });
    let at = prop_oneof![4 => (0i64..1000).prop_map(Timestamp::from_secs), 1 => any::<i64>().prop_map(Timestamp::from_nanos)];
    (0..KINDS.len(), prop::collection::vec(change, 0..CHANGES_MAX), at).prop_map(|(kind, changes, at)| {
        let mut line = golden(kind);
        changes.iter().for_each(|change| apply(change, &mut line));
        Record { at, ..read(&line).expect("changes that make it unreadable are undone") }
    })
}

fn golden(kind: usize) -> Value {
    let (kind, version) = KINDS[kind];
    let path = format!("{}/events/testdata/{kind}.{version}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).expect("there is one of each kind")).expect("JSON")
}

fn read(line: &Value) -> Option<Record> {
    Record::decode(line.to_string().as_bytes()).ok()
}

fn apply(change: &Change, line: &mut Value) {
    let before = line.clone();
    let mut places = Vec::new();
    for part in ["data", "personal"] {
        collect(&line[part], format!("/{part}"), &mut places);
    }
    if places.is_empty() {
        return;
    }
    let place = line.pointer_mut(&places[change.place.index(places.len())]).expect("it was found there");
    match place {
        // A list grows by what it has, or is emptied.
        Value::Array(values) if !change.to.is_array() => values.extend(values.clone()),
        _ => *place = change.to.clone(),
    }
    if read(line).is_none() {
        *line = before;
    }
}

/// The places of all values below, as JSON pointers (RFC 6901).
fn collect(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Array(values) => {
            for (n, value) in values.iter().enumerate() {
                collect(value, format!("{at}/{n}"), places);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(value, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), places);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    if at.matches('/').count() > 1 {
        places.push(at);
    }
}

/// Gives records places one behind the other.
fn log(records: &[Record]) -> Vec<Record> {
    let mut prev = Sha256::ZERO;
    let numbered = records.iter().enumerate().map(|(n, record)| {
        let record = Record { seq: Seq(n as u64 + 1), prev, ..record.clone() };
        prev = Sha256::of(&record.to_line());
        record
    });
    numbered.collect()
}

fn grow(records: &[Record], rows: &mut Memory) {
    for record in records {
        fold(record, rows).expect("a fold reads what folds wrote");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_record_says_it_is_read_as_it_was_written(record in record()) {
        let line = record.to_line();
        let read = Record::decode(&line);
        prop_assert_eq!(read.as_ref(), Ok(&record));
        prop_assert_eq!(read.unwrap().to_line(), line);
    }

    #[test]
    fn no_fold_panics_and_splitting_the_log_changes_nothing(
        records in prop::collection::vec(record(), 1..RECORDS_MAX),
        split in any::<Index>(),
    ) {
        let records = log(&records);
        let mut grown = Memory::default();
        grow(&records, &mut grown);

        let (before, after) = records.split_at(split.index(records.len()));
        let mut rows = Memory::default();
        grow(before, &mut rows);
        let read: Vec<_> = after.iter().map(|r| Record::decode(&r.to_line()).expect("a record")).collect();
        grow(&read, &mut rows);
        prop_assert!(rows == grown);

        for projection in PROJECTIONS {
            let mut alone = Memory::default();
            for record in &records {
                (projection.fold)(record, &mut alone).expect("a fold reads what folds wrote");
            }
            let all: Vec<_> = grown.table(projection.table).collect();
            prop_assert_eq!(alone.table(projection.table).collect::<Vec<_>>(), all, "{}", projection.name);
            prop_assert_eq!(alone.len(), alone.table(projection.table).count());
        }
        // The books find fault with such a log, or not; they do not panic.
        books::check(&grown).expect("rows can be read");
    }
}
