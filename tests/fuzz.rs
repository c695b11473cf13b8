//! What reads bytes from outside keeps its promises for every input that is kept in fuzz/seeds; `make fuzz` looks for others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use targets::{address, http_request, import, message, record, smtp_client, smtp_server, token, vault, webhook_answer};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Of one seed.
const BEGINNINGS_MAX: usize = 200;

struct Target {
    name: &'static str,
    check: fn(&[u8]),
}

const TARGETS: [Target; 10] = [
    Target { name: "address", check: address::check },
    Target { name: "http_request", check: http_request::check },
    Target { name: "import", check: import::check },
    Target { name: "message", check: message::check },
    Target { name: "record", check: record::check },
    Target { name: "smtp_client", check: smtp_client::check },
    Target { name: "smtp_server", check: smtp_server::check },
    Target { name: "token", check: token::check },
    Target { name: "vault", check: vault::check },
    Target { name: "webhook_answer", check: webhook_answer::check },
];

#[test]
fn seeds() {
    for Target { name: target, check } in TARGETS {
        let seeds = files(&Path::new("fuzz/seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for (name, seed) in seeds {
            println!("{target}: {name}");
            check(&seed);
        }
    }
}

/// A connection may end anywhere, and so may a file.
#[test]
fn beginnings_of_seeds() {
    for Target { name: target, check } in TARGETS {
        for (name, seed) in files(&Path::new("fuzz/seeds").join(target)) {
            println!("{target}: {name}");
            let step = 1 + seed.len() / BEGINNINGS_MAX;
            (0..seed.len()).step_by(step).for_each(|end| check(&seed[..end]));
        }
    }
}

#[test]
fn every_target_is_here() {
    let here: BTreeSet<String> = TARGETS.iter().map(|target| format!("{}.rs", target.name)).collect();
    assert_eq!(files(Path::new("fuzz/fuzz_targets")).into_keys().collect::<BTreeSet<_>>(), here);
}

/// By name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.map(|path| (name(&path), std::fs::read(&path).expect("a file"))).collect()
}
