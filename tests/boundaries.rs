//! Who may name whom: the architecture's table, read off the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A part of the program, what it may name of the program, and what of other crates.
struct Part {
    /// Its file or folder below `src`, without ending.
    path: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
}

/// Crates that only tell of mistakes or carry bytes.
const PLAIN: &[&str] =
    &["bytes", "thiserror", "tracing", "serde", "serde_json", "zeroize", "base64", "hex", "sha2", "uuid"];
const ASYNC: &[&str] = &["tokio", "tokio_util", "futures_util"];
const OURS: &[&str] = &["postledger_events", "postledger_projections"];

const PARTS: &[Part] = &[
    // The keyed hash of pseudonyms is arithmetic, not dice.
    Part {
        path: "decide",
        modules: &["decide"],
        crates: &["aws_lc_rs::hmac", "postledger_events", "postledger_projections"],
    },
    Part { path: "smtp", modules: &["smtp"], crates: &["postledger_events", "smtp_proto"] },
    Part {
        path: "mail",
        modules: &["mail"],
        crates: &[
            "postledger_events",
            "mail_auth",
            "mail_parser",
            "memchr",
            "smtp_proto",
            "aws_lc_rs::digest",
            "aws_lc_rs::encoding",
            "aws_lc_rs::rsa",
            "aws_lc_rs::signature",
            "rustls_pki_types",
        ],
    },
    Part {
        path: "ledger",
        modules: &["ledger", "decide", "clock", "files"],
        crates: &["fjall", "arc_swap", "rustix", "aws_lc_rs::hmac"],
    },
    Part {
        path: "deliver",
        modules: &["deliver", "clock", "ledger", "submit", "smtp", "mail"],
        crates: &["hickory_resolver", "rustls"],
    },
    Part { path: "receive", modules: &["receive", "clock", "ledger", "submit", "smtp", "mail"], crates: &[] },
    Part {
        path: "webhook/payload",
        modules: &["webhook", "mail"],
        crates: &["postledger_events", "postledger_projections"],
    },
    Part { path: "webhook/sign", modules: &["webhook"], crates: &["postledger_events", "aws_lc_rs::hmac"] },
    Part { path: "webhook/target", modules: &["webhook"], crates: &["ipnet", "url"] },
    Part { path: "webhook/due", modules: &["webhook"], crates: &["postledger_events", "postledger_projections"] },
    Part {
        path: "webhook/replay/course",
        modules: &["webhook"],
        crates: &["postledger_events", "postledger_projections"],
    },
    Part {
        path: "webhook",
        modules: &["webhook", "clock", "ledger", "submit", "smtp", "mail"],
        crates: &[
            "hickory_resolver",
            "http_body_util",
            "httpdate",
            "hyper",
            "hyper_util",
            "memchr",
            "rustls",
            "tokio_rustls",
        ],
    },
];

/// Parts that act on nothing: bytes and time come in, bytes and decisions go out.
const PURE: &[&str] = &[
    "decide",
    "smtp",
    "mail",
    "webhook/payload",
    "webhook/sign",
    "webhook/target",
    "webhook/due",
    "webhook/replay/course",
];
/// Runs the protocol over sockets; all else below `smtp` is sans-io.
const DRIVE: &str = "smtp/drive";
/// May name everything, and nobody may name them.
const WIRING: &[&str] = &["main", "run", "cli"];
/// May ask what time it is: the clock, and who measures how long a peer takes.
const TIMED: &[&str] = &["clock", DRIVE, "deliver/pool", "webhook/client"];

#[test]
fn parts_name_what_they_may() {
    let mut found = Vec::new();
    for file in sources("src") {
        let Some(part) = PARTS.iter().find(|part| is_in(&file.name, part.path)) else { continue };
        if is_in(&file.name, DRIVE) {
            continue;
        }
        let pure = PURE.contains(&part.path);
        for named in paths(&file.text, &["crate"]) {
            let module = named.split("::").nth(1).unwrap_or_default();
            if !part.modules.contains(&module) || is_in(&named.replace("crate::", "").replace("::", "/"), DRIVE) && pure
            {
                found.push(format!("src/{}.rs names {named}", file.name));
            }
        }
        for named in paths(&file.text, &dependencies("Cargo.toml").iter().map(String::as_str).collect::<Vec<_>>()) {
            let name = named.split("::").next().unwrap_or_default();
            let everyones = PLAIN.contains(&name) || !pure && (ASYNC.contains(&name) || OURS.contains(&name));
            if !everyones && !part.crates.contains(&name) && !part.crates.contains(&named.as_str()) {
                found.push(format!("src/{}.rs names {named}", file.name));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn pure_parts_touch_no_machine() {
    let machine =
        ["std::fs", "std::env", "std::process", "std::thread", "TcpStream", "TcpListener", "UdpSocket", "RowsMut"];
    let pure = |file: &Source| PURE.iter().any(|part| is_in(&file.name, part)) && !is_in(&file.name, DRIVE);
    assert_eq!(naming(&machine, sources("src").into_iter().filter(pure)), Vec::<String>::new());
}

#[test]
fn only_the_ledger_knows_the_engine() {
    let others = |file: &Source| !is_in(&file.name, "ledger");
    assert_eq!(naming(&["fjall::"], sources("src").into_iter().filter(others)), Vec::<String>::new());
}

#[test]
fn nobody_names_what_wires_all() {
    let others = |file: &Source| !WIRING.iter().any(|part| is_in(&file.name, part));
    assert_eq!(naming(&["crate::run", "crate::cli"], sources("src").into_iter().filter(others)), Vec::<String>::new());
}

#[test]
fn only_the_clock_asks_the_time_and_rolls_dice() {
    let asking = ["::now()", "UNIX_EPOCH", "rand::fill", "SystemRandom", "Uuid::new_v4", "Uuid::now_v7"];
    let src = sources("src").into_iter().filter(|file| !TIMED.iter().any(|part| is_in(&file.name, part)));
    // How long a request takes to come in is measured where it comes in, and how long it may wait where it waits.
    let timed = ["webapi/intake", "request_log", "api/events", "api/events_stream"];
    let web = sources("web/src").into_iter().filter(|file| !timed.contains(&file.name.as_str()));
    let pure = sources("events/src").into_iter().chain(sources("projections/src"));
    assert_eq!(naming(&asking, src.chain(web).chain(pure)), Vec::<String>::new());
}

#[test]
fn only_the_table_adds_routes_to_the_native_api() {
    let api = sources("web/src").into_iter().filter(|file| is_in(&file.name, "api"));
    assert_eq!(naming(&["axum::routing", ".route("], api), Vec::<String>::new());
}

#[test]
fn crates_depend_on_what_they_may() {
    let check = |crate_dir: &str, may: &[&str]| {
        let may: BTreeSet<_> = may.iter().map(|name| (*name).to_owned()).collect();
        let more: Vec<_> = dependencies(&format!("{crate_dir}/Cargo.toml")).difference(&may).cloned().collect();
        assert_eq!(more, Vec::<String>::new(), "{crate_dir} depends on more than it may");
    };
    check("describe", &["proc_macro2", "quote", "syn"]);
    check("events", &["idna", "jiff", "serde", "serde_json", "sha2", "unicode_normalization", "uuid"]);
    check("projections", &["postcard", "postledger_events", "serde"]);
    let http = ["axum", "http_body_util", "tokio", "tower", "tower_http", "futures_util", "tracing", "bytes", "memchr"];
    let data = ["base64", "jiff", "serde", "serde_json", "sha2", "uuid"];
    let ours = ["postledger_describe", "postledger_events", "postledger_projections"];
    check("web", &[http.as_slice(), &data, &ours].concat());
}

struct Source {
    /// Its path below the folder, without ending; `x/mod.rs` is `x`.
    name: String,
    /// Without comments and unit tests.
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let folder = root().join(folder);
    let mut files = Vec::new();
    walk(&folder, &mut files);
    assert!(!files.is_empty(), "there is something in {}", folder.display());
    let sources = files.iter().map(|path| {
        let name = path.strip_prefix(&folder).expect("it was found below").with_extension("");
        let name = name.to_string_lossy().trim_end_matches("/mod").to_owned();
        Source { name, text: product(&std::fs::read_to_string(path).expect("it can be read")) }
    });
    sources.filter(|file| !file.name.split('/').any(|part| part.ends_with("tests"))).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("it can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// What a program is made of: the source without comments and unit tests.
fn product(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

fn is_in(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn naming(words: &[&str], files: impl Iterator<Item = Source>) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        found.extend(
            words.iter().filter(|word| file.text.contains(**word)).map(|word| format!("{} names {word}", file.name)),
        );
    }
    found
}

/// The paths that begin with one of the roots, to their second name; each one of `root::{a, b}`.
fn paths(text: &str, roots: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("::") {
        let root = text[..at].rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
        let inner = text[..at - root.len()].ends_with("::");
        if !inner && roots.contains(&root) {
            found.extend(seconds(&text[at + 2..]).into_iter().map(|second| format!("{root}::{second}")));
        }
    }
    found
}

fn seconds(after: &str) -> Vec<String> {
    let word = |s: &str| s.trim_start().chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = after.strip_prefix('{') else { return vec![word(after)] };
    let (mut depth, mut names) = (0, vec![word(group)]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names, as source has them, of what a crate depends on outside of its tests.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(manifest)).expect("it can be read");
    let (_, after) = text.split_once("\n[dependencies]\n").expect("it has dependencies");
    let section = after.split("\n[").next().unwrap_or_default();
    section
        .lines()
        .filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.replace('-', "_")))
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn paths_are_read_from_groups_and_from_the_middle_of_code() {
    let text = "use crate::{a, b::{c, d},\n e};\nlet x = crate::f::g(std::crate::h);";
    let found: Vec<_> = paths(text, &["crate"]).into_iter().collect();
    assert_eq!(found, ["crate::a", "crate::b", "crate::e", "crate::f"]);
}
