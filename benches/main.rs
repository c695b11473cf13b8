//! How fast it is: the real server over real sockets, beside what disk, engine, processor and Postfix do in the same run.
//!
//! Rates vary between machines and hours, so only ratios decide. Parts can be chosen by name; `scale=0.01` makes the large
//! ledgers of `history` smaller.

mod accept;
mod count;
mod deliver;
mod generate;
mod history;
mod hooks;
mod load;
mod postfix;
mod probe;
mod receiver;
mod server;
mod sink;
mod smtp_load;
mod table;

use std::process::ExitCode;

use probe::Probes;
use table::Table;

/// A part of the bench, by name.
type Part = (&'static str, fn(f64, &Probes, &mut Table));

const PARTS: [Part; 9] = [
    ("accept", |_, probes, table| accept::measure(probes, table)),
    ("one", |_, _, table| deliver::one_recipient(table)),
    ("many", |_, _, table| deliver::many_recipients(table)),
    ("due", |_, probes, table| deliver::due_at_once(probes, table)),
    ("wait", |_, probes, table| deliver::first_attempt(probes, table)),
    ("calls", |_, probes, table| hooks::calls(probes, table)),
    ("replay", hooks::replay),
    ("streams", |_, _, table| hooks::streams(table)),
    ("history", history::measure),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test --benches` asks for a test, which this is not.
    if args.iter().any(|arg| arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let Some((parts, scale)) = asked(&args) else {
        eprintln!("parts are {}, and scale=N makes large ledgers smaller", PARTS.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    };
    let (probes, mut table) = (probe::all(), Table::default());
    for (_, part) in parts {
        part(scale, &probes, &mut table);
    }
    print(&probes, &table);
    if table.missed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The parts to measure, without any all of them, and the scale.
fn asked(args: &[String]) -> Option<(Vec<Part>, f64)> {
    let (mut parts, mut scale) = (Vec::new(), 1.0);
    for arg in args {
        match arg.strip_prefix("scale=") {
            Some(text) => scale = text.parse().ok()?,
            None => parts.push(*PARTS.iter().find(|(name, _)| name == arg)?),
        }
    }
    Some((if parts.is_empty() { PARTS.to_vec() } else { parts }, scale))
}

fn print(probes: &Probes, table: &Table) {
    let Probes { sync_ms, batch_ms, batch_share_ms, ed25519_ms, rsa_ms } = probes;
    println!(
        "Probes: append 4 KB and fdatasync {sync_ms:.3} ms; a bare batch of the engine as large as one message \
         {batch_ms:.3} ms, its part in a batch of 16 {batch_share_ms:.3} ms; a signature with Ed25519 {ed25519_ms:.3} ms, \
         with RSA-2048 {rsa_ms:.3} ms.\n"
    );
    table.print();
    for case in table.missed() {
        println!("\nMissed: {case}");
    }
}
