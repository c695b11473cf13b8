//! What reads bytes from outside keeps its promises for every input that is kept in fuzz/seeds; `make fuzz` looks for others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use targets::{address, http_request, import, message, record, smtp_client, smtp_server};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Of one seed.
const BEGINNINGS_MAX: usize = 200;

const TARGETS: [(&str, fn(&[u8])); 7] = [
    ("address", address::check),
    ("http_request", http_request::check),
    ("import", import::check),
    ("message", message::check),
    ("record", record::check),
    ("smtp_client", smtp_client::check),
    ("smtp_server", smtp_server::check),
];

#[test]
fn seeds() {
    for (target, check) in TARGETS {
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
    for (target, check) in TARGETS {
        for (name, seed) in files(&Path::new("fuzz/seeds").join(target)) {
            println!("{target}: {name}");
            let step = 1 + seed.len() / BEGINNINGS_MAX;
            (0..seed.len()).step_by(step).for_each(|end| check(&seed[..end]));
        }
    }
}

#[test]
fn every_target_is_here() {
    let here: BTreeSet<String> = TARGETS.iter().map(|(target, _)| format!("{target}.rs")).collect();
    assert_eq!(files(Path::new("fuzz/fuzz_targets")).into_keys().collect::<BTreeSet<_>>(), here);
}

/// By name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.map(|path| (name(&path), std::fs::read(&path).expect("a file"))).collect()
}
