//! Who may name whom: what docs/architecture.md says of the parts of the program, held against every path they write.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A part of the program and what it may name.
struct Part {
    /// A directory or file below `src/`.
    path: &'static str,
    /// What of it runs the rest over sockets.
    but: &'static [&'static str],
    /// Modules of the program besides itself.
    modules: &'static [&'static str],
    /// Crates that the program depends on.
    crates: &'static [&'static str],
    /// No files, sockets, threads, clocks or dice.
    is_pure: bool,
}

const PARTS: [Part; 6] = [
    Part {
        path: "decide",
        but: &[],
        modules: &[],
        crates: &["postledger_events", "postledger_projections", "aws_lc_rs"],
        is_pure: true,
    },
    Part {
        path: "mail",
        but: &[],
        modules: &[],
        crates: &["postledger_events", "aws_lc_rs", "base64", "mail_parser", "rustls_pki_types", "zeroize"],
        is_pure: true,
    },
    Part {
        path: "smtp",
        but: &["drive.rs", "drive", "tls.rs"],
        modules: &[],
        crates: &["postledger_events", "base64", "bytes", "zeroize"],
        is_pure: true,
    },
    Part {
        path: "ledger",
        but: &[],
        modules: &["clock", "decide"],
        crates: &[
            "postledger_events",
            "postledger_projections",
            "arc_swap",
            "aws_lc_rs",
            "bytes",
            "fjall",
            "hex",
            "libc",
            "serde",
            "serde_json",
            "sha2",
            "tempfile",
            "thiserror",
            "tokio",
            "tracing",
            "uuid",
            "zeroize",
        ],
        is_pure: false,
    },
    Part {
        path: "deliver",
        but: &[],
        modules: &["clock", "ledger", "smtp", "mail", "submit"],
        crates: &[
            "postledger_events",
            "postledger_projections",
            "bytes",
            "hickory_resolver",
            "rustls",
            "serde_json",
            "thiserror",
            "tokio",
            "tokio_util",
            "tracing",
            "zeroize",
        ],
        is_pure: false,
    },
    Part {
        path: "receive",
        but: &[],
        modules: &["clock", "ledger", "smtp", "mail", "submit"],
        crates: &["postledger_events", "postledger_projections", "bytes", "tokio", "tokio_util", "tracing"],
        is_pure: false,
    },
];

/// What nothing pure names.
const IMPURE: [&str; 9] = [
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime",
];

#[test]
fn every_part_names_only_what_it_may() {
    let crates = dependencies();
    assert!(crates.contains("fjall") && crates.contains("tokio"), "the dependencies are found: {crates:?}");
    let broken: Vec<String> = PARTS.iter().flat_map(|part| check(part, &crates)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn only_the_ledger_names_the_engine_and_only_the_clock_asks_the_time() {
    let source = root().join("src");
    let mut broken = Vec::new();
    for file in files(&source) {
        let name = file.strip_prefix(&source).expect("it is below").display().to_string();
        let text = code(&file);
        if names(&text, "fjall::") && !name.starts_with("ledger/") {
            broken.push(format!("{name} names the engine"));
        }
        if text.contains("SystemTime::now") && name != "clock.rs" {
            broken.push(format!("{name} asks the time"));
        }
        if names(&text, "rand::") && name != "clock.rs" {
            broken.push(format!("{name} rolls dice"));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_forbidden_name_is_seen() {
    let crates = BTreeSet::from(["tokio".to_owned(), "serde".to_owned()]);
    let part = Part { path: "x", but: &[], modules: &["clock"], crates: &["serde"], is_pure: true };
    let check = |text: &str, expect: &[&str]| assert_eq!(faults(&part, &crates, text), expect, "{text}");
    check("use crate::clock::Clock;\nuse crate::x::Y;\nuse serde::Serialize;", &[]);
    check("use crate::ledger::Ledger;", &["crate::ledger"]);
    check("let t = tokio::spawn(f);", &["tokio"]);
    check("my_tokio::spawn(f);", &[]);
    check("let now = std::time::Instant::now();", &["Instant::now"]);
}

fn check(part: &Part, crates: &BTreeSet<String>) -> Vec<String> {
    let path = root().join("src").join(part.path);
    let is_own = |file: &PathBuf| !part.but.iter().any(|but| file.starts_with(path.join(but)));
    let files: Vec<PathBuf> = files(&path).into_iter().filter(is_own).collect();
    assert!(!files.is_empty(), "there is a part {}", part.path);
    let told = |file: PathBuf| {
        let faults = faults(part, crates, &code(&file));
        let file = file.strip_prefix(root()).expect("it is below").display().to_string();
        faults.into_iter().map(move |fault| format!("{file} names {fault}"))
    };
    files.into_iter().flat_map(told).collect()
}

fn faults(part: &Part, crates: &BTreeSet<String>, text: &str) -> Vec<String> {
    let modules = text.split("crate::").skip(1).map(word).filter(|m| *m != part.path && !part.modules.contains(m));
    let modules: BTreeSet<String> = modules.map(|m| format!("crate::{m}")).collect();
    let foreign = crates.iter().filter(|c| !part.crates.contains(&c.as_str()) && names(text, &format!("{c}::")));
    let impure = IMPURE.iter().filter(|name| part.is_pure && text.contains(**name)).map(|name| (*name).to_owned());
    modules.into_iter().chain(foreign.cloned()).chain(impure).collect()
}

/// Whether a path begins with this.
fn names(text: &str, start: &str) -> bool {
    text.match_indices(start).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// A file without its comments and without the tests at its foot, which may name what they like.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("a source file");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a part is a directory");
    let below = entries.flat_map(|entry| files(&entry.expect("an entry").path()));
    below.filter(|file| file.extension().is_some_and(|e| e == "rs") && !is_test(file)).collect()
}

fn is_test(file: &Path) -> bool {
    file.file_stem().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with("tests"))
}

/// The crates that the program depends on, as paths write them.
fn dependencies() -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let section = manifest.split("\n[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    let names = section.expect("dependencies").lines().filter_map(|line| line.split(['.', ' ']).next());
    names.filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
