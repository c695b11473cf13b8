//! Those who follow the log: what they get, when, and what it costs the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, Response};
use futures_util::{FutureExt, StreamExt};
use postledger_events::fact::access::CursorSet;
use postledger_events::id::{Author, CursorName, Seq};
use serde_json::Value;

use super::problem::Details;
use super::tail::{STREAMS_MAX, STREAMS_OF_ACCOUNT_MAX};
use super::tests::{As, Program, name, request, send, submitted, suppressed, text};

async fn open(program: &Arc<Program>, by: As, path: &str, last: Option<&str>) -> Response<Body> {
    let mut request = request(by, Method::GET, path, "");
    if let Some(last) = last {
        request.headers_mut().insert("last-event-id", last.parse().unwrap());
    }
    send(program, request).await
}

/// A stream that was opened, behind its first sign of life.
async fn stream(program: &Arc<Program>, by: As, query: &str, begins: u64) -> BodyDataStream {
    let response = open(program, by, &format!("/events/stream{query}"), None).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let first = piece(&mut stream).await;
    assert_eq!(first, format!(": at record {begins}\nretry: 3000\nid: {begins}\n\n"));
    stream
}

async fn piece(stream: &mut BodyDataStream) -> String {
    String::from_utf8(stream.next().await.expect("no end").unwrap().to_vec()).unwrap()
}

/// The numbers of the events in a piece, each of which must be whole.
fn numbers(piece: &str) -> Vec<u64> {
    let blocks = piece.strip_suffix("\n\n").expect("whole events").split("\n\n");
    let number = |block: &str| {
        let fields: Vec<&str> = block.lines().collect();
        let [id, event, data] = fields.as_slice() else { panic!("{block}") };
        let record: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event.strip_prefix("event: "), record["kind"].as_str());
        let seq = record["seq"].as_u64().unwrap();
        assert_eq!(id.strip_prefix("id: "), Some(seq.to_string().as_str()));
        seq
    };
    blocks.map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_streamed_to_those_it_is_for() {
    let program = Arc::new(Program::new());
    let mut all = stream(&program, As::Admin, "", 9).await;
    let mut own = stream(&program, As::A, "", 9).await;
    let mut kinds = stream(&program, As::Admin, "?kind=AddressSuppressed", 9).await;
    program.append(10, submitted("b", 20));
    assert_eq!(numbers(&piece(&mut all).await), [10]);
    program.append(11, submitted("a", 21));
    program.append(12, suppressed("b", 22));
    assert_eq!(numbers(&piece(&mut own).await), [11]);
    assert_eq!(numbers(&piece(&mut kinds).await), [12]);
    let rest = [piece(&mut all).await].map(|piece| numbers(&piece)).concat();
    assert!(rest.starts_with(&[11]), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_the_client_was() {
    let program = Arc::new(Program::new());
    let check = async |by: As, query: &str, last: Option<&str>, expect: &[u64]| {
        let response = open(&program, by, &format!("/events/stream{query}"), last).await;
        assert_eq!(response.status(), 200, "{query} {last:?}");
        let mut stream = response.into_body().into_data_stream();
        piece(&mut stream).await;
        let got = if expect.is_empty() { Vec::new() } else { numbers(&piece(&mut stream).await) };
        assert_eq!(got, expect, "{query} {last:?}");
    };
    check(As::Admin, "?after=6", None, &[7, 8, 9]).await;
    check(As::A, "?after=0", None, &[1, 3, 5, 7]).await;
    check(As::A, "?after=0", Some("5"), &[7]).await;
    check(As::A, "?after=0", Some(""), &[1, 3, 5, 7]).await;
    check(As::A, "", Some("9"), &[]).await;
    let cursor = CursorName::new("x").unwrap();
    program.append(10, CursorSet { account: Some(name("a")), cursor, seq: Seq(3), by: Author::program() }.into());
    check(As::A, "?cursor=x", None, &[5, 7]).await;
    check(As::A, "?cursor=x&kind=CursorSet", None, &[10]).await;
    check(As::A, "?cursor=x", Some("6"), &[7]).await;
    for (query, last, status) in [
        ("?cursor=y", None, 404),
        ("?cursor=x&after=1", None, 422),
        ("?limit=1", None, 422),
        ("", Some("seven"), 422),
        ("?account=b", None, 403),
        ("?after=99", None, 409),
        ("", Some("99"), 409),
    ] {
        let response = open(&program, As::A, &format!("/events/stream{query}"), last).await;
        assert_eq!(response.status().as_u16(), status, "{query} {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_a_cut_is_told_where_to_go_on() {
    let program = Arc::new(Program::branched());
    let response = open(&program, As::Admin, "/events/stream", Some("7")).await;
    assert_eq!(response.status(), 409);
    let problem: Details = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem.last_common, Some(Seq(3)));
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_tell_how_far_it_is_although_nothing_is_for_it() {
    let program = Arc::new(Program::new());
    let mut own = stream(&program, As::A, "", 9).await;
    let mut other = stream(&program, As::Admin, "", 9).await;
    for n in 10..3_000 {
        program.append(n, submitted("b", n));
    }
    assert_eq!(numbers(&piece(&mut other).await)[0], 10);
    let reads = program.reads.load(Ordering::Relaxed);
    let told = piece(&mut own).await;
    assert!(told.starts_with(": at record ") && !told.contains("retry"), "{told}");
    let told = piece(&mut own).await;
    assert_eq!(told, ": at record 2999\nid: 2999\n\n");
    // What the feeder read; the ring does not go back to where the stream was, and yet it did not look.
    let feeding = 3_000 / 256 + 1;
    assert!(program.reads.load(Ordering::Relaxed) - reads <= feeding, "a record for others made a stream read the log");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_all_and_nothing_is_kept_for_it() {
    let program = Arc::new(Program::new());
    let mut slow = stream(&program, As::Admin, "", 9).await;
    let mut fast = stream(&program, As::Admin, "", 9).await;
    let (mut seen, mut last) = (Vec::new(), 9);
    for n in 10..5_000 {
        program.append(n, submitted("a", n));
        if n % 100 == 0 {
            while last < n {
                let piece = piece(&mut fast).await;
                last = *numbers(&piece).last().unwrap();
            }
        }
    }
    while seen.last() != Some(&4_999) {
        let piece = piece(&mut slow).await;
        assert!(piece.len() < 128 * 1024, "{}", piece.len());
        if !piece.starts_with(':') {
            seen.extend(numbers(&piece));
        }
    }
    assert_eq!(seen, (10..5_000).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_program_stops() {
    let program = Arc::new(Program::new());
    let mut waiting = stream(&program, As::A, "", 9).await;
    let mut reading = stream(&program, As::Admin, "?after=0", 0).await;
    program.stop.send_replace(true);
    assert!(waiting.next().await.is_none() && reading.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_caller_may_not_see_it_any_more() {
    let program = Arc::new(Program::new());
    let mut own = stream(&program, As::A, "", 9).await;
    let removed = postledger_events::fact::account::AccountRemoved { account: name("a"), by: Author::program() };
    program.append(10, removed.into());
    assert_eq!(numbers(&piece(&mut own).await), [10]);
    assert!(own.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_streams_and_no_more() {
    let program = Arc::new(Program::new());
    let mut open_streams = Vec::new();
    for _ in 0..STREAMS_OF_ACCOUNT_MAX {
        open_streams.push(open(&program, As::A, "/events/stream", None).await);
    }
    let refused = async |by: As| {
        let response = open(&program, by, "/events/stream", None).await;
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    };
    assert_eq!(refused(As::A).await, (429, true));
    for _ in STREAMS_OF_ACCOUNT_MAX..STREAMS_MAX {
        open_streams.push(open(&program, As::Local, "/events/stream", None).await);
    }
    assert_eq!(refused(As::Local).await, (429, true));
    open_streams.pop();
    assert_eq!(refused(As::Local).await, (200, false));
    open_streams.clear();
    assert_eq!(refused(As::A).await, (200, false));
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_waits_for_what_it_is_about() {
    let program = Arc::new(Program::new());
    let poll = |wait_s: u64| {
        let program = Arc::clone(&program);
        async move {
            let path = format!("/events?after=9&wait_s={wait_s}");
            let response = open(&program, As::A, &path, None).await;
            let part: Value = serde_json::from_str(&text(response).await).unwrap();
            let items = part["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap());
            (items.collect::<Vec<u64>>(), part["next"].as_u64().unwrap(), part["position"].as_u64().unwrap())
        }
    };
    let mut waiting = Box::pin(poll(20));
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    program.append(10, submitted("b", 20));
    tokio::select! {
        got = &mut waiting => panic!("{got:?}"),
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    program.append(11, submitted("a", 21));
    assert_eq!(waiting.await, (vec![11], 11, 11));
    program.append(12, submitted("b", 22));
    let started = tokio::time::Instant::now();
    let (items, next, position) = {
        let path = "/events?after=11&wait_s=20";
        let part: Value = serde_json::from_str(&text(open(&program, As::A, path, None).await).await).unwrap();
        (part["items"].clone(), part["next"].as_u64(), part["position"].as_u64())
    };
    assert_eq!((items, next, position), (Value::Array(Vec::new()), Some(12), Some(12)));
    assert_eq!(started.elapsed().as_secs(), 20);
    program.stop.send_replace(true);
    assert_eq!(poll(20).await.0, [11], "what is there is answered also by a program that stops");
}
