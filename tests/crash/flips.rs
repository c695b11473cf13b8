//! The disk rots: one bit of one file turns over, or a file loses its end. Whoever reads a fact, a content or a row then gets it
//! as it was, or is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::id::{MessageUuid, SecretId, SecretRef, Sha256};
use postledger_events::{Event, Record};
use postledger_projections::{Order, Rows, Table, is_body_live};

use super::dice::{Dice, seed};
use super::faults::{copy, memory_dir};
use super::load::Load;
use super::scale::Scale;
use super::subject::{RETRY_SCALE, drain, prepare};
use super::table::{Damage, Row};
use crate::server::{Server, new_ip, wait_until};
use crate::sink::Sink;

const LANES: u64 = 2;
/// Answers of each of the loads that the ledgers are made with.
const ANSWERS: u64 = 60;
/// How long `verify --full` may take for these small ledgers.
const VERIFY_MAX: Duration = Duration::from_secs(60);
const BLINK: Duration = Duration::from_millis(2);

#[test]
fn rot_is_found_or_harmless() {
    let (seed, home) = (seed(), memory_dir());
    let ledgers = make_ledgers(home.path(), seed);
    let (next, end) = (AtomicU64::new(0), Scale::of_this_run().flips());
    let (damage, kinds) = (Mutex::new(Damage::default()), Mutex::new(BTreeMap::<Kind, [u64; 3]>::new()));
    let lane = |n: u64| {
        let copy_dir = home.path().join(format!("lane{n}"));
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= end {
                return;
            }
            let mut dice = Dice::new(seed ^ (round + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let ledger = dice.pick(&ledgers);
            let harm = Harm::choose(ledger, &mut dice);
            let effect = ledger.suffer(&harm, &copy_dir);
            let mut damage = damage.lock().expect("no lane failed");
            let column = match effect {
                Effect::Found => {
                    damage.found += 1;
                    0
                }
                Effect::Missed(what) => {
                    damage.missed.push(format!("round {round}, {} ledger, {harm:?}: {what}", ledger.name));
                    1
                }
                Effect::Harmless => {
                    damage.harmless += 1;
                    2
                }
            };
            kinds.lock().expect("no lane failed").entry(harm.kind).or_default()[column] += 1;
        }
    };
    let lane = &lane;
    std::thread::scope(|scope| (0..LANES).for_each(|n| drop(scope.spawn(move || lane(n)))));
    let damage = damage.into_inner().expect("no lane failed");
    let acknowledged = ledgers.iter().map(|ledger| ledger.truth.lines.len() as u64).sum();
    let mut row = Row { rounds: end, damage: Some(damage), ..Row::new("(d) flips and truncations") };
    row.verdict.acknowledged = acknowledged;
    let kinds = kinds.into_inner().expect("no lane failed");
    row.notes.extend(kinds.iter().map(|(kind, [f, m, h])| format!("{kind:?}: found {f}, missed {m}, harmless {h}")));
    row.settle(seed);
}

/// A directory, and all that can be read from it.
struct Damageable {
    name: &'static str,
    dir: PathBuf,
    files: BTreeMap<Kind, Vec<PathBuf>>,
    truth: Truth,
}

/// One that was closed, with tables and a journal behind them, and one that was killed.
fn make_ledgers(home: &Path, seed: u64) -> Vec<Damageable> {
    let (sink, dir) = (Sink::start(), home.join("grown"));
    let mut server = Server::on(&dir, &home.join("log"), new_ip(), RETRY_SCALE);
    prepare(&mut server, &sink);
    server.restart();
    put_under_load(&server, "d1x", seed);
    assert_eq!(drain(&server).stuck(), None);
    server.stop();
    write_tables(&dir);
    server.restart();
    put_under_load(&server, "d2x", seed ^ 2);
    server.stop();
    let closed = home.join("closed");
    copy(&dir, &closed);
    // One start more that follows a kill, so that journals lie aside.
    server.restart();
    server.kill();
    server.restart();
    put_under_load(&server, "d3x", seed ^ 3);
    server.kill();
    let killed = home.join("killed");
    copy(&dir, &killed);
    vec![Damageable::new("closed", closed, home), Damageable::new("killed", killed, home)]
}

fn put_under_load(server: &Server, name: &str, seed: u64) {
    let load = Load::start(server.http(), name, seed);
    wait_until("there was some load", || load.answers() >= ANSWERS);
    load.finish();
}

/// The engine writes tables only after many megabytes; here it is asked to.
fn write_tables(dir: &Path) {
    let engine = fjall::Database::builder(dir.join("ledger")).open().expect("the engine opens");
    for name in engine.list_keyspace_names() {
        let keyspace = engine.keyspace(&name, fjall::KeyspaceCreateOptions::default).expect("a keyspace");
        keyspace.rotate_memtable_and_wait().expect("it is written");
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Journal,
    Table,
    /// Which tables there are.
    Manifest,
    /// Which manifest counts, and the engine's format.
    Pointer,
    Watermark,
    Content,
    Aside,
    /// Not the ledger's: keys and settings of the server.
    Beside,
}

impl Kind {
    fn of(path: &Path) -> Kind {
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        let parts: Vec<&str> = path.iter().filter_map(|p| p.to_str()).collect();
        match parts[..] {
            ["ledger", ..] if name.ends_with(".jnl") => Kind::Journal,
            ["ledger", .., "tables", _] => Kind::Table,
            ["ledger", .., "current"] | ["ledger", "version" | "lock"] => Kind::Pointer,
            ["ledger", ..] => Kind::Manifest,
            ["watermark"] => Kind::Watermark,
            ["bodies", ..] => Kind::Content,
            ["journals-aside", ..] => Kind::Aside,
            _ => Kind::Beside,
        }
    }
}

impl Damageable {
    fn new(name: &'static str, dir: PathBuf, home: &Path) -> Damageable {
        let mut files = BTreeMap::<Kind, Vec<PathBuf>>::new();
        for path in files_below(&dir).into_iter().filter(|path| data_end(path) > 0) {
            let path = path.strip_prefix(&dir).expect("it is below").to_owned();
            files.entry(Kind::of(&path)).or_default().push(path);
        }
        let read = home.join("read");
        copy(&dir, &read);
        let truth = Truth::read(&open(&read).expect("it opens as it is")).expect("it can be read as it is");
        fs::remove_dir_all(&read).expect("it goes");
        Damageable { name, dir, files, truth }
    }

    fn suffer(&self, harm: &Harm, copy_dir: &Path) -> Effect {
        copy(&self.dir, copy_dir);
        harm.inflict(copy_dir);
        let effect = self.examine(copy_dir);
        fs::remove_dir_all(copy_dir).expect("it goes");
        match effect {
            Effect::Missed(what) => Effect::Missed(format!("{what}; kept in {}", self.keep(harm).display())),
            Effect::Found | Effect::Harmless => effect,
        }
    }

    /// The damaged directory as it was before anybody opened it: what the load made of it comes no second time.
    fn keep(&self, harm: &Harm) -> PathBuf {
        let kept = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory").keep().join(self.name);
        copy(&self.dir, &kept);
        harm.inflict(&kept);
        kept
    }

    fn examine(&self, dir: &Path) -> Effect {
        match verify(dir) {
            None => return Effect::Missed(format!("verify has not ended after {VERIFY_MAX:?}")),
            Some(status) if !status.success() => return Effect::Found,
            Some(_) => {}
        }
        // A start that dies says so, too; here it would take the test with it.
        let Ok(Ok(ledger)) = catch_unwind(|| open(dir)) else { return Effect::Found };
        // Here verify found nothing and the start went well, so nobody was told of what it dies of now.
        match catch_unwind(AssertUnwindSafe(move || Truth::read(&ledger))) {
            Err(_) => Effect::Missed("the program starts, and dies when it is read".to_owned()),
            Ok(Err(why)) => Effect::Missed(why),
            Ok(Ok(read)) => self.truth.difference(&read).map_or(Effect::Harmless, Effect::Missed),
        }
    }
}

fn open(dir: &Path) -> Result<Ledger, postledger::ledger::open::Error> {
    Ledger::open(Options::new(dir), Clock::system())
}

/// As an operator does it, in a process of its own: damaged lengths may ask for more memory than there is.
fn verify(dir: &Path) -> Option<ExitStatus> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postledger"));
    command
        .args(["verify", "--full", "--dir"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (mut child, end) = (command.spawn().expect("the program starts"), Instant::now() + VERIFY_MAX);
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("its state") {
            return Some(status);
        }
        std::thread::sleep(BLINK);
    }
    child.kill().and_then(|()| child.wait()).expect("it can be killed");
    None
}

enum Effect {
    Found,
    Missed(String),
    Harmless,
}

#[derive(Clone, Debug)]
struct Harm {
    kind: Kind,
    /// Below the ledger's directory.
    file: PathBuf,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Flip { byte: u64, bit: u8 },
    Truncate { to: u64 },
}

impl Harm {
    /// Every kind of file is hit as often as any other, however many and large they are.
    fn choose(ledger: &Damageable, dice: &mut Dice) -> Harm {
        let kinds: Vec<Kind> = ledger.files.keys().copied().collect();
        let kind = *dice.pick(&kinds);
        let file = dice.pick(&ledger.files[&kind]).clone();
        // A journal is mostly room that is reserved.
        let end = data_end(&ledger.dir.join(&file));
        let byte = dice.below(end);
        let what = if dice.one_in(4) { What::Truncate { to: byte } } else { flip(byte, dice) };
        Harm { kind, file, what }
    }

    fn inflict(&self, dir: &Path) {
        let path = dir.join(&self.file);
        let file = fs::File::options().read(true).write(true).open(path).expect("it opens");
        match self.what {
            What::Truncate { to } => file.set_len(to).expect("it is cut"),
            What::Flip { byte, bit } => {
                let mut read = [0];
                file.read_exact_at(&mut read, byte).expect("there is a byte");
                file.write_all_at(&[read[0] ^ (1 << bit)], byte).expect("it is written");
            }
        }
    }
}

fn flip(byte: u64, dice: &mut Dice) -> What {
    What::Flip { byte, bit: u8::try_from(dice.below(8)).expect("below eight") }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (dirs, mut files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    files.retain(|path| path.is_file());
    files.extend(dirs.iter().flat_map(|dir| files_below(dir)));
    files.sort();
    files
}

/// Behind the last byte that is not zero.
fn data_end(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("it can be read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// All that can be read from a ledger.
#[derive(PartialEq, Eq)]
struct Truth {
    lines: Vec<Vec<u8>>,
    rows: Vec<(Table, Vec<u8>, Vec<u8>)>,
    contents: BTreeMap<MessageUuid, Sha256>,
    secrets: BTreeMap<SecretId, Option<Vec<u8>>>,
}

impl Truth {
    fn read(ledger: &Ledger) -> Result<Truth, String> {
        let snapshot = ledger.snapshot();
        let mut truth =
            Truth { lines: Vec::new(), rows: Vec::new(), contents: BTreeMap::new(), secrets: BTreeMap::new() };
        for line in snapshot.records(snapshot.first()..=snapshot.position()) {
            let (_, line) = line.map_err(|e| e.to_string())?;
            truth.read_named(ledger, &line)?;
            truth.lines.push(line);
        }
        for table in Table::ALL {
            let rows =
                snapshot.scan(table, &[], &[0xff; 64], Order::Ascending, usize::MAX).map_err(|e| e.to_string())?;
            truth.rows.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
        }
        Ok(truth)
    }

    /// What a record names and does not hold itself.
    fn read_named(&mut self, ledger: &Ledger, line: &[u8]) -> Result<(), String> {
        let json: serde_json::Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        let mut secrets = Vec::new();
        collect_secrets(&json, &mut secrets);
        for secret in secrets {
            let value = ledger.secret(secret).map_err(|e| e.to_string())?;
            self.secrets.insert(secret, value.map(|value| value.to_vec()));
        }
        let body = match Record::decode(line).map_err(|e| e.to_string())?.event {
            Event::MessageSubmitted(fact) => fact.body,
            Event::MessageReceived(fact) => fact.body,
            _ => return Ok(()),
        };
        if is_body_live(&ledger.snapshot(), body.body).map_err(|e| e.to_string())? {
            let bytes = ledger.body(&body).map_err(|e| e.to_string())?;
            self.contents.insert(body.body, Sha256::of(&bytes));
        }
        Ok(())
    }

    fn difference(&self, read: &Truth) -> Option<String> {
        let differ = [
            ("the log", self.lines != read.lines),
            ("a row", self.rows != read.rows),
            ("a content", self.contents != read.contents),
            ("a secret", self.secrets != read.secrets),
        ];
        let differ: Vec<&str> = differ.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect();
        (!differ.is_empty()).then(|| format!("reads back different: {}", differ.join(", ")))
    }
}

fn collect_secrets(json: &serde_json::Value, found: &mut Vec<SecretId>) {
    if let Ok(secret) = serde_json::from_value::<SecretRef>(json.clone()) {
        found.push(secret.id);
    }
    match json {
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_secrets(item, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|field| collect_secrets(field, found)),
        _ => {}
    }
}
