//! Accepting: everything is on hold, so nothing else takes place.

use std::time::{Duration, Instant};

use super::load::{Load, SMALL_BYTES, Sent};
use super::probe::Probes;
use super::server::{Keys, Next, Server, Usage, scratch, set_up};
use super::table::{Asked, Line, Table};

const MEASURE: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);
const LARGE_BYTES: usize = 100 * 1024;
const CLIENTS: [usize; 4] = [1, 8, 64, 512];
/// The number of clients that CPU and syncs are asked for with.
const CLIENTS_ASKED: usize = 64;
/// Milliseconds that an accept may take beside its sync, and how often both.
const BESIDE_SYNC_MS: f64 = 0.3;
const LATENCY_MAX: f64 = 1.3;
const SYNCS_PER_MESSAGE_MAX: f64 = 1.0 / 8.0;
const STALL_MAX_MS: f64 = 250.0;

pub fn measure(probes: &Probes, table: &mut Table) {
    with_keys(Keys::Ed25519, &[SMALL_BYTES, LARGE_BYTES], &CLIENTS, probes, table);
    with_keys(Keys::Both, &[SMALL_BYTES], &[CLIENTS_ASKED], probes, table);
}

fn with_keys(keys: Keys, sizes: &[usize], clients: &[usize], probes: &Probes, table: &mut Table) {
    let home = scratch();
    set_up(home.path(), Next::Hold);
    let server = Server::start(home.path());
    server.sign_with(keys);
    for &text_bytes in sizes {
        for &clients in clients {
            let load = Load { text_bytes, ..Load::small(server.http(), clients) };
            let case = Case { keys, text_bytes, clients };
            case.lines(&Measured::of(&server, &load), probes, table);
        }
    }
    let stall = server.stall_ms();
    let signed = signed(keys);
    let case = format!("slowest batch of all of these, {signed}");
    let figures = format!("{stall:.0} ms (asked: ≤ {STALL_MAX_MS} ms)");
    table.add(Line { case, ratio: stall / probes.sync_ms, of: "a sync", asked: Asked::Nothing, figures });
}

struct Measured {
    sent: Sent,
    took: Duration,
    used: Usage,
}

impl Measured {
    fn of(server: &Server, load: &Load) -> Measured {
        load.run(WARM_UP);
        let (from, began) = (server.usage(), Instant::now());
        let sent = load.run(MEASURE);
        let took = began.elapsed();
        Measured { sent, took, used: server.usage().since(&from) }
    }
}

struct Case {
    keys: Keys,
    text_bytes: usize,
    clients: usize,
}

impl Case {
    fn lines(&self, measured: &Measured, probes: &Probes, table: &mut Table) {
        let Measured { sent, took, used } = measured;
        let (messages, name) = (sent.count() as f64, self.name());
        let (rate, cpu, syncs) = (messages / took.as_secs_f64(), used.cpu_ms / messages, used.syncs / messages);
        let (p50, p99) = (sent.percentile_ms(50), sent.percentile_ms(99));
        let figures =
            format!("{rate:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {cpu:.3} ms of CPU and {syncs:.3} syncs each");
        let ratio = rate * probes.sync_ms / 1000.0;
        table.add(Line { case: name.clone(), ratio, of: "syncs/s", asked: Asked::Nothing, figures });
        if self.text_bytes != SMALL_BYTES {
            return;
        }
        if self.clients == 1 {
            let (case, at_least) = (format!("{name}: p50"), probes.sync_ms + BESIDE_SYNC_MS);
            let figures = format!("{p50:.2} ms");
            let asked = Asked::AtMost(LATENCY_MAX);
            table.add(Line { case, ratio: p50 / at_least, of: "a sync and 0.3 ms", asked, figures });
        }
        if self.clients == CLIENTS_ASKED {
            let (probe, of, cpu_asked_ms) = self.cpu_asked(probes);
            let figures = format!("{cpu:.3} ms (asked: ≤ {cpu_asked_ms} ms)");
            table.add(Line { case: format!("{name}: CPU"), ratio: cpu / probe, of, asked: Asked::Nothing, figures });
            let (case, asked) = (format!("{name}: syncs"), Asked::AtMost(SYNCS_PER_MESSAGE_MAX));
            table.add(Line { case, ratio: syncs, of: "messages", asked, figures: String::new() });
        }
    }

    fn name(&self) -> String {
        format!("accept {} KB, {} clients, {}", self.text_bytes / 1024, self.clients, signed(self.keys))
    }

    /// The work that no server can do without, and what is asked for on the machine that the figures were set for.
    fn cpu_asked(&self, probes: &Probes) -> (f64, &'static str, f64) {
        match self.keys {
            Keys::Ed25519 => (probes.ed25519_ms, "an Ed25519 signature", 0.3),
            Keys::Both => (probes.ed25519_ms + probes.rsa_ms, "both signatures", 0.7),
        }
    }
}

fn signed(keys: Keys) -> &'static str {
    match keys {
        Keys::Ed25519 => "Ed25519",
        Keys::Both => "Ed25519 and RSA-2048",
    }
}
