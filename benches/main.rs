//! How fast it is: the real server over real sockets, beside what the disk can do in the same run.
//!
//! Rates vary between machines and hours; what can be compared is a rate's ratio to the disk's own rate of syncs.

mod load;
mod probe;
mod server;
mod sink;

use std::time::{Duration, Instant};

use load::Load;
use server::{Server, Usage};
use sink::Sink;

/// How long each case of accepting is measured, after the warm-up.
const MEASURE: Duration = Duration::from_secs(6);
const WARM_UP: Duration = Duration::from_secs(1);
const CLIENTS: [usize; 3] = [1, 8, 64];
const TEXT_BYTES: [usize; 2] = [4 * 1024, 100 * 1024];
/// Clients that send while it delivers.
const DELIVER_CLIENTS: usize = 8;
/// Messages that are due at one moment, with nothing else to do than to deliver them.
const DRAIN_MESSAGES: u64 = 5_000;
/// How long before that moment they are sent.
const DRAIN_AHEAD: Duration = Duration::from_secs(20);
/// How long any part may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One line of the table.
struct Line {
    case: String,
    rate: f64,
    cpu_ms: f64,
    syncs: f64,
    latency_ms: Option<(f64, f64)>,
}

fn main() {
    // `cargo test --benches` asks for a test, which this is not.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let before = probe::syncs_per_second();
    let mut lines = accepting();
    lines.extend(delivering());
    print(&lines, (before + probe::syncs_per_second()) / 2.0);
}

/// All that is accepted is on hold, so nothing else takes place.
fn accepting() -> Vec<Line> {
    let server = Server::start(None);
    let mut lines = Vec::new();
    for text_bytes in TEXT_BYTES {
        for clients in CLIENTS {
            let load = Load { http: server.http(), clients, text_bytes, due: None, messages_max: u64::MAX };
            load.run(WARM_UP);
            let (from, began) = (server.usage(), Instant::now());
            let sent = load.run(MEASURE);
            let used = server.usage().since(&from);
            let case = format!("accept {} KB, {clients} clients", text_bytes / 1024);
            let latency_ms = Some((sent.percentile_ms(50), sent.percentile_ms(99)));
            lines.push(line(case, sent.count(), began.elapsed(), &used, latency_ms));
        }
    }
    lines
}

/// To a next hop that takes everything, over 20 recipient domains.
fn delivering() -> [Line; 2] {
    let sink = Sink::start();
    let server = Server::start(Some(sink.addr()));
    let text_bytes = TEXT_BYTES[0];
    let mut load =
        Load { http: server.http(), clients: DELIVER_CLIENTS, text_bytes, due: None, messages_max: u64::MAX };
    let warm = load.run(WARM_UP).count();
    sink.wait_for(warm, PATIENCE);

    let (from, began) = (server.usage(), Instant::now());
    let sent = load.run(MEASURE).count();
    sink.wait_for(warm + sent, PATIENCE);
    let (took, used) = (began.elapsed(), server.usage().since(&from));
    let both = line(format!("accept and deliver 4 KB, {DELIVER_CLIENTS} clients"), sent, took, &used, None);

    let due = server::now() + DRAIN_AHEAD;
    load = Load { due: Some(due), messages_max: DRAIN_MESSAGES, ..load };
    let waiting = load.run(DRAIN_AHEAD).count();
    assert!(server::now() < due, "the messages were not accepted before they were due");
    let from = server.usage();
    server::sleep_until(due);
    let began = Instant::now();
    sink.wait_for(warm + sent + waiting, PATIENCE);
    let (took, used) = (began.elapsed(), server.usage().since(&from));
    [both, line("deliver 4 KB that is due at once".to_owned(), waiting, took, &used, None)]
}

fn line(case: String, messages: u64, took: Duration, used: &Usage, latency_ms: Option<(f64, f64)>) -> Line {
    let each = |total: f64| total / messages as f64;
    let rate = messages as f64 / took.as_secs_f64();
    Line { case, rate, cpu_ms: each(used.cpu_ms), syncs: each(used.syncs), latency_ms }
}

fn print(lines: &[Line], syncs_per_second: f64) {
    println!("append 600 B + fdatasync: {syncs_per_second:.0}/s; `ratio` is messages per such sync\n");
    println!("| case | ratio | messages/s | CPU ms/message | syncs/message | p50 ms | p99 ms |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for Line { case, rate, cpu_ms, syncs, latency_ms } in lines {
        let (p50, p99) = match latency_ms {
            Some((p50, p99)) => (format!("{p50:.2}"), format!("{p99:.2}")),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let ratio = rate / syncs_per_second;
        println!("| {case} | {ratio:.3} | {rate:.0} | {cpu_ms:.3} | {syncs:.3} | {p50} | {p99} |");
    }
}
