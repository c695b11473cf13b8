//! A ledger comes back from its backup, to any moment; nothing is sent again unasked; and damage is repaired or named.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, new_ip, wait_until};
use crate::sink::Sink;
use crate::webhooks::{Answer, Receiver, add};

/// A server with a backup of its own, whose mail goes to a sink.
struct Site {
    home: tempfile::TempDir,
    server: Server,
    sink: Sink,
}

impl Site {
    fn start() -> Site {
        let (home, sink) = (tempfile::tempdir().expect("a directory"), Sink::start());
        let site = Site { server: served(&home.path().join("data"), &home), home, sink };
        site.direct();
        site
    }

    fn direct(&self) {
        let (host, port) = (self.sink.addr.ip().to_string(), self.sink.addr.port().to_string());
        self.server.cli(&["transport", "set", "default", "--host", &host, "--port", &port, "--tls", "none"]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Backs up the log and the vault.
    fn back_up(&self) -> String {
        self.server.cli(&["backup-vault", &text(&self.path("vault"))]);
        self.server.cli(&["backup", &text(&self.path("backup"))])
    }

    fn restore(&self, to: &str, args: &[&str]) -> std::process::Output {
        let (backup, vault) = (text(&self.path("backup")), text(&self.path("vault")));
        let mut command = program(&self.path(to));
        command.args(["restore", &backup, "--vault", &vault]).args(args);
        command.output().expect("the program runs")
    }

    /// Sends one message after the other, and waits until each is where it must go.
    fn deliver(&self, subjects: &[&str]) {
        for subject in subjects {
            let taken = self.sink.count();
            self.server.send(&message(subject, "friend", 50));
            wait_until("it has arrived", || self.sink.count() > taken);
        }
        wait_until("all is recorded", || self.server.metric("postledger_queue_open") == 0.0);
    }

    /// A message that goes out beside one that does not.
    fn deliver_and_leave(&self) {
        let taken = self.sink.count();
        self.server.send(&message("small", "friend", 50));
        wait_until("it has arrived", || self.sink.count() > taken);
        wait_until("the other was tried", || {
            !seqs(&self.server.records("AttemptDeferred"), "AttemptDeferred").is_empty()
        });
    }
}

/// Starts a server on a directory.
fn served(dir: &Path, home: &tempfile::TempDir) -> Server {
    let mut server = Server::on(dir, &home.path().join("server.log"), new_ip(), &["--retry-scale", "9000"]);
    server.restart();
    server
}

fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postledger"));
    command.arg("--dir").arg(dir);
    command
}

fn message(subject: &str, to: &str, bytes: usize) -> Value {
    json!({ "To": [{ "Address": format!("{to}@example.com") }], "Subject": subject, "Text": "x".repeat(bytes) })
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in ASCII").to_owned()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn check_whole(dir: &Path) {
    let output = program(dir).args(["verify", "--full"]).output().expect("the program runs");
    assert!(output.status.success() && said(&output).ends_with("all is well\n"), "{}", said(&output));
}

fn seqs(records: &[Value], kind: &str) -> Vec<u64> {
    let of_kind = records.iter().filter(|record| record["kind"] == kind);
    of_kind.map(|record| record["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn restored_to_the_middle_nothing_leaves_before_the_release() {
    let mut site = Site::start();
    site.deliver(&["one", "two"]);
    let first = site.back_up();
    assert!(first.contains("the backup ends with record"), "{first}");
    let before = site.server.events().len() as u64;
    let given_before = site.server.send(&message("three", "friend", 60_000));
    wait_until("it has arrived", || site.sink.count() == 3);
    site.deliver(&["four"]);
    let given_after = site.server.send(&message("five", "friend", 50));
    wait_until("all is recorded", || site.server.metric("postledger_queue_open") == 0.0);
    site.back_up();
    let nothing = site.server.cli(&["backup", &text(&site.path("backup"))]);
    assert!(nothing.contains("nothing came since") || nothing.contains(" records and "), "{nothing}");
    let old = site.server.events();
    // Three is submitted, and its attempt had not begun.
    let cut = *seqs(&old, "MessageSubmitted").get(2).expect("three");
    assert!(cut > before);
    site.server.stop();

    let output = site.restore("again", &["--to", &cut.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains(&format!("up to {cut} of ")), "{}", said(&output));
    check_whole(&site.path("again"));
    site.server = served(&site.path("again"), &site.home);

    // What the backup knew was on its way waits; what is new goes out, so the sender works.
    let open = site.server.items("/queue");
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!((open[0]["id"].as_u64(), &open[0]["restored"]), (Some(given_before[0]), &json!(true)), "{open:?}");
    let listed = site.server.cli(&["queue", "list"]);
    assert!(listed.contains("in doubt: the ledger was restored"), "{listed}");
    let taken = site.sink.count();
    let given = site.server.send(&message("six", "friend", 50));
    wait_until("it has arrived", || site.sink.count() == taken + 1);
    assert!(given[0] > given_after[0], "a number is never given twice: {given:?} after {given_after:?}");
    assert_eq!(site.sink.taken().values().copied().max(), Some(1), "nothing went out twice");

    // Numbers of the other branch are told where it goes on.
    let end = old.last().expect("records")["seq"].as_u64().expect("a number");
    for path in ["/events?after=", "/events/export?after=", "/ledger/export?after="] {
        let answer = site.server.try_api("GET", &format!("{path}{end}"), &Value::Null);
        assert_eq!((answer.status, &answer.json()["last_common"]), (409, &json!(cut)), "{path}: {}", answer.text());
    }
    let refused = site.server.command(&["backup", &text(&site.path("backup"))]).output().expect("the program runs");
    assert!(!refused.status.success() && said(&refused).contains("begin a new backup"), "{}", said(&refused));
    let branch = site.server.records("LedgerBranched");
    assert_eq!((branch.len(), &branch[0]["data"]["from_seq"]), (1, &json!(cut)), "{branch:?}");
    assert_eq!(branch[0]["data"]["next_seq"], branch[0]["seq"], "{branch:?}");

    site.server.cli(&["queue", "release", "--restored", "--account", "mox"]);
    wait_until("it has arrived again", || site.sink.count() == taken + 2);
    wait_until("all is recorded", || site.server.metric("postledger_queue_open") == 0.0);
    site.server.stop();
    check_whole(&site.path("again"));
}

#[test]
fn what_was_open_at_the_cut_is_on_hold_at_once_and_goes_when_it_is_released() {
    let mut site = Site::start();
    let receiver = Receiver::start(Answer::Status(500));
    let settings = json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": [604_800, 604_800]});
    add(&site.server, "crm", &settings);
    for subject in ["one", "two"] {
        site.server.send(&message(subject, "stays-temperror", 50));
    }
    let deferred = |server: &Server| seqs(&server.events(), "CallsAttempted").len();
    wait_until("calls have failed", || deferred(&site.server) >= 2);
    site.server.send(&message("three", "stays-temperror", 50));
    let started_after = |records: &[Value], seq: u64| {
        let mut starts = seqs(records, "AttemptStarted").into_iter();
        starts.find(|start| *start > seq)
    };
    let third = seqs(&site.server.events(), "MessageSubmitted")[2];
    wait_until("an attempt runs", || started_after(&site.server.events(), third).is_some());
    site.back_up();
    let old = site.server.events();
    site.server.stop();
    let cut = started_after(&old, third).expect("it was there");
    let output = site.restore("again", &["--to", &cut.to_string()]);
    assert!(output.status.success(), "{}", said(&output));

    // Before any server runs there, also what was being tried at the cut.
    let again = site.path("again");
    let queue = |args: &[&str]| {
        let output = program(&again).arg("queue").args(args).output().expect("the program runs");
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let waiting = || queue(&["list", "--restored"]).matches("in doubt: the ledger was restored").count();
    assert_eq!(waiting(), 3, "{}", queue(&["list"]));

    let submitted = old.iter().find(|record| record["kind"] == "MessageSubmitted").expect("a message");
    let data = &submitted["data"];
    receiver.set(Answer::Status(200));
    let told = receiver.got().len();
    site.server = served(&again, &site.home);
    let held = || {
        let calls = site.server.items("/endpoints/mox/crm/calls?phase=held");
        calls.iter().map(|call| call["message"].as_str().expect("a uuid").to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(held().len(), 2, "both messages have calls that may have been made");
    queue(&["release", "--restored", "--message", data["message"].as_str().expect("a uuid")]);
    let tried = || {
        let records = site.server.events();
        let branched = seqs(&records, "LedgerBranched")[0];
        let of = |record: &Value| record["data"]["deliveries"].as_array().expect("deliveries").clone();
        let starts = records.iter().filter(|r| r["kind"] == "AttemptStarted" && r["seq"].as_u64() > Some(branched));
        starts.flat_map(of).map(|delivery| delivery["id"].as_u64().expect("a number")).collect::<BTreeSet<_>>()
    };
    wait_until("what was released is tried", || !tried().is_empty());
    assert_eq!(tried(), BTreeSet::from([data["deliveries"][0]["id"].as_u64().expect("a number")]));
    assert_eq!(waiting(), 2);
    wait_until("its calls are made", || receiver.got().len() > told);
    assert_eq!(held().len(), 1);
    queue(&["release", "--restored"]);
    wait_until("all is tried", || tried().len() == 3);
    wait_until("all calls go", || held().is_empty());
}

#[test]
fn a_backup_that_was_changed_makes_no_ledger() {
    let mut site = Site::start();
    for subject in ["one", "two", "three"] {
        site.deliver(&[subject]);
        site.back_up();
    }
    site.server.stop();
    let mode = fs::metadata(site.path("vault")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut parts: Vec<PathBuf> =
        fs::read_dir(site.path("backup")).expect("parts").map(|part| part.expect("a part").path()).collect();
    parts.sort();
    assert_eq!(parts.len(), 3);
    let check = |what: &str, expected: &str, args: &[&str]| {
        let output = site.restore("again", args);
        let text = said(&output);
        assert!(!output.status.success() && text.contains(expected), "{what}: {text}");
        assert!(!site.path("again").join("ledger").exists(), "{what}: nothing was made");
    };
    let with = |part: &Path, change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let whole = fs::read(part).expect("a part");
        let mut changed = whole.clone();
        change(&mut changed);
        fs::write(part, changed).expect("it is changed");
        check(&text(part), expected, &[]);
        fs::write(part, whole).expect("it is put back");
    };
    with(&parts[2], &|bytes| bytes.truncate(bytes.len() - 10), "it is cut off");
    with(&parts[1], &|bytes| bytes.truncate(bytes.len() / 2), "it is cut off");
    let subject = |bytes: &mut Vec<u8>| {
        let at = bytes.windows(5).position(|w| w == b"\"two\"").expect("the subject");
        bytes[at + 1] = b'T';
    };
    with(&parts[1], &subject, "the chain breaks at record");
    let hidden = site.path("hidden");
    fs::rename(&parts[1], &hidden).expect("it is hidden");
    check("a part is missing", "it goes on from record", &[]);
    fs::rename(&hidden, &parts[1]).expect("it is back");
    check("beyond the end", "the backup ends with record", &["--to", "999999"]);
    check("before the beginning", "no record up to that time", &["--to", "2020-01-01T00:00:00Z"]);

    let other = Server::start(&[]);
    let vault = site.path("vault");
    let own = fs::read(&vault).expect("the vault's copy");
    other.cli(&["backup-vault", &text(&vault)]);
    check("another's vault", "vault is of", &[]);
    fs::write(&vault, &own[..own.len() / 2]).expect("half of it");
    check("half a vault", "no copy of a vault", &[]);
    fs::write(&vault, own).expect("it is put back");

    let output = site.restore("data", &[]);
    assert!(said(&output).contains("there is a ledger here already"), "{}", said(&output));
    assert!(site.restore("again", &[]).status.success(), "whole again, it is taken");
    check_whole(&site.path("again"));
}

#[test]
fn an_export_is_a_whole_ledger() {
    let mut site = Site::start();
    site.server.send(&message("large", "stays-temperror", 200_000));
    site.deliver_and_leave();
    let vault = text(&site.path("vault"));
    site.server.cli(&["backup-vault", &vault]);
    site.server.stop();
    // Without a server the command opens the directory itself, so that both exports are of one moment.
    let file = text(&site.path("ledger.jsonl"));
    site.server.cli(&["export", &file]);
    let printed = site.server.cli(&["export", "-"]);
    assert!(printed == fs::read_to_string(&file).expect("the export"), "both ways are one");
    let old = site.server.cli(&["events", "export"]);

    let import = |to: &str, from: &str, input: Stdio| {
        let mut command = program(&site.path(to));
        let output = command.args(["import", from, "--vault", &vault]).stdin(input).output().expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
        check_whole(&site.path(to));
    };
    import("new", &file, Stdio::null());
    import("read", "-", fs::File::open(&file).expect("the export").into());
    let new = program(&site.path("new")).args(["events", "export"]).output().expect("it runs");
    let new = String::from_utf8(new.stdout).expect("records are UTF-8");
    let more = new.strip_prefix(&old).expect("the same records, octet by octet");
    let kinds: Vec<Value> = more.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert!(!kinds.is_empty() && kinds[0]["kind"] == "LedgerBranched", "{more}");

    site.server = served(&site.path("new"), &site.home);
    let open = site.server.items("/queue");
    assert_eq!(open.len(), 1, "{open:?}");
    let reply = site.server.webapi("Send", &message("after", "friend", 10));
    assert_eq!(reply.status, 200, "logins came with the vault: {}", reply.text());
}

/// Changes every place where a file below a directory has these octets.
fn damage(dir: &Path, needle: &[u8]) -> usize {
    let mut places = 0;
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            places += damage(&entry, needle);
            continue;
        }
        let mut bytes = fs::read(&entry).expect("a file");
        let found: BTreeSet<usize> =
            (0..bytes.len().saturating_sub(needle.len())).filter(|at| bytes[*at..].starts_with(needle)).collect();
        if !found.is_empty() {
            found.iter().for_each(|at| bytes[*at] ^= 1);
            fs::write(&entry, bytes).expect("it is written");
            places += found.len();
        }
    }
    places
}

#[test]
fn a_backup_of_another_branch_or_ledger_repairs_nothing() {
    let mut site = Site::start();
    site.deliver(&["one", "two"]);
    site.back_up();
    let output = site.restore("sibling", &[]);
    assert!(output.status.success(), "{}", said(&output));
    let sibling = served(&site.path("sibling"), &site.home);
    sibling.send(&message("of the sibling", "friend", 50));
    sibling.cli(&["backup", &text(&site.path("backup"))]);
    site.deliver(&["three"]);
    site.server.stop();
    let whole = site.server.cli(&["events", "export"]);

    let other = Site::start();
    other.deliver(&["one", "two", "three", "four"]);
    other.back_up();
    let check = |from: &Path, vault: &Path, expect: &str| {
        let (from, vault) = (text(from), text(vault));
        let repair = ["repair", "--from", &from, "--vault", &vault, "--accept-loss", "--yes"];
        let output = program(&site.path("data")).args(repair).output().expect("the program runs");
        assert!(!output.status.success() && said(&output).contains(expect), "{}", said(&output));
        assert_eq!(site.server.cli(&["events", "export"]), whole);
        check_whole(&site.path("data"));
        let left =
            fs::read_dir(site.path("data")).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        assert!(!left.into_iter().any(|name| name == "salvaging"), "what it worked in is gone");
    };
    check(&site.path("backup"), &site.path("vault"), "the backup is of another branch of this ledger: record ");
    check(&other.path("backup"), &other.path("vault"), "the backup is of another ledger");

    // The sibling's log would be taken where the ledger's own cannot be read, but what is lost by that is told.
    let line = whole.lines().rev().find(|line| line.contains("three")).expect("its submission");
    assert!(damage(&site.path("data/ledger"), &line.as_bytes()[line.len() / 2..]) > 0);
    let from = text(&site.path("backup"));
    let output = program(&site.path("data")).args(["repair", "--from", &from]).output().expect("the program runs");
    assert!(!output.status.success() && said(&output).contains("nothing was changed yet"), "{}", said(&output));
}

#[test]
fn secrets_that_an_old_copy_of_the_vault_lacks_are_named() {
    let mut site = Site::start();
    site.back_up();
    let old = site.path("old");
    fs::rename(site.path("vault"), &old).expect("it is moved");
    site.server.api("PUT", "/accounts/mox/password", &json!({ "password": "another-password" }));
    site.server.cli(&["dkim", "generate", "localhost", "second"]);
    site.back_up();
    site.server.stop();
    check_whole(&site.path("data"));
    let new = site.path("vault");
    fs::rename(&new, site.path("new")).expect("it is moved");
    fs::copy(&old, &new).expect("it is copied");
    let repair = |dir: &str, vault: &Path| {
        let output =
            program(&site.path(dir)).args(["repair", "--vault", &text(vault)]).output().expect("the program runs");
        (output.status.success(), said(&output))
    };

    // A secret that was replaced does not come back.
    let (done, told) = repair("data", &old);
    assert!(done && told.contains("nothing was changed"), "{told}");
    let missing = ["the password of account mox", "the private key of DKIM selector second of localhost"];
    let output = site.restore("again", &[]);
    let told = said(&output);
    assert!(output.status.success() && told.contains("SECRETS ARE MISSING"), "{told}");
    assert!(missing.iter().all(|secret| told.contains(secret)), "{told}");
    let output = program(&site.path("again")).args(["verify"]).output().expect("the program runs");
    let told = said(&output);
    let found = missing.iter().all(|secret| told.contains(&format!("DIFFERENCE: {secret} is missing in the vault\n")));
    assert!(!output.status.success() && found && told.matches("DIFFERENCE").count() == 2, "{told}");
    let (done, told) = repair("again", &old);
    assert!(!done && told.contains(missing[0]), "{told}");
    let (done, told) = repair("again", &site.path("new"));
    assert!(done && told.contains("secrets came from the vault's copy"), "{told}");
    check_whole(&site.path("again"));
}

#[test]
fn damage_is_repaired_from_a_backup_or_given_up_by_name() {
    let mut site = Site::start();
    site.server.send(&message("large", "stays-temperror", 200_000));
    for subject in ["before", "in-the-needlestack", "behind"] {
        let taken = site.sink.count();
        site.server.send(&message(subject, "friend", 50));
        wait_until("it has arrived", || site.sink.count() > taken);
    }
    site.back_up();
    site.deliver_and_leave();
    site.server.stop();
    let whole = site.server.cli(&["events", "export"]);
    let backup = text(&site.path("backup"));
    let repair = |dir: &str, args: &[&str]| {
        let output = program(&site.path(dir)).arg("repair").args(args).output().expect("the program runs");
        (output.status.code(), said(&output))
    };
    let copy = |name: &str| {
        let status = Command::new("cp").arg("-a").arg(site.path("data")).arg(site.path(name)).status();
        assert!(status.is_ok_and(|status| status.success()));
        site.path(name)
    };
    let records = |dir: &Path| {
        let output = program(dir).args(["events", "export"]).output().expect("the program runs");
        String::from_utf8(output.stdout).expect("records are UTF-8")
    };

    // Nothing to repair.
    let (code, text) = repair("data", &["--accept-loss", "--yes"]);
    assert!(code == Some(0) && text.contains("nothing was changed"), "{code:?} {text}");
    assert_eq!(site.server.cli(&["events", "export"]), whole);

    // A content.
    let dir = copy("content");
    let shelf = fs::read_dir(dir.join("bodies")).expect("shelves").map(|shelf| shelf.expect("one").path());
    let file = shelf.flat_map(|shelf| fs::read_dir(shelf).expect("files")).next().expect("a file").expect("one").path();
    fs::remove_file(&file).expect("it is lost");
    let (code, text) = repair("content", &["--accept-loss"]);
    assert!(code == Some(1) && text.contains("1 contents of messages are lost"), "{code:?} {text}");
    assert_eq!(records(&dir), whole, "nothing was changed");
    let (code, text) = repair("content", &["--from", &backup]);
    assert!(code == Some(0) && text.contains("1 contents came from the backup"), "{code:?} {text}");
    assert!(file.exists() && records(&dir).starts_with(&whole));
    check_whole(&dir);

    // The same without a backup.
    let dir = copy("content-lost");
    fs::remove_file(dir.join(file.strip_prefix(site.path("content")).expect("below"))).expect("it is lost");
    let (code, text) = repair("content-lost", &["--accept-loss", "--yes"]);
    assert!(code == Some(0) && text.contains("1 contents of messages are lost"), "{code:?} {text}");
    assert!(records(&dir).contains("\"kind\":\"Expired\""), "the loss is a fact");
    check_whole(&dir);

    // Records in the middle of the log.
    let damaged = |name: &str| {
        let dir = copy(name);
        assert!(damage(&dir.join("ledger"), b"in-the-needlestack") > 0);
        let output = program(&dir).args(["verify", "--full"]).output().expect("the program runs");
        assert!(!output.status.success(), "{}", said(&output));
        dir
    };
    let dir = damaged("log");
    let (code, text) = repair("log", &["--from", &backup]);
    assert!(code == Some(0) && text.contains("came from the backup"), "{code:?} {text}");
    assert!(records(&dir).starts_with(&whole), "what came since the backup is there as well");
    assert!(dir.join("damaged-1/ledger").is_dir(), "what was there is kept");
    check_whole(&dir);

    let dir = damaged("log-lost");
    let (code, text) = repair("log-lost", &["--accept-loss"]);
    assert!(code == Some(1) && text.contains("so the log ends with record"), "{code:?} {text}");
    let (code, text) = repair("log-lost", &["--accept-loss", "--yes"]);
    assert!(code == Some(0) && text.contains("so the log ends with record"), "{code:?} {text}");
    check_whole(&dir);
    let left = records(&dir);
    let branch = left.lines().find(|line| line.contains("\"kind\":\"LedgerBranched\"")).expect("a branch");
    let branch: Value = serde_json::from_str(branch).expect("a record");
    let known = whole.lines().count() as u64;
    assert!(branch["seq"].as_u64().expect("a number") > known, "no number is given twice: {branch}");
    assert!(fs::metadata(dir.join("damaged-1/lost.jsonl")).is_ok_and(|file| file.len() > 0), "evidence is kept");
    // What says how far the log went.
    let dir = copy("end-unknown");
    fs::remove_file(dir.join("watermark")).expect("it is lost");
    let (code, text) = repair("end-unknown", &["--from", &backup]);
    assert!(code == Some(1) && text.contains("nothing says whether the log went on behind"), "{code:?} {text}");
    let (code, text) = repair("end-unknown", &["--accept-loss", "--yes"]);
    assert!(code == Some(0) && text.contains("nothing says whether the log went on behind"), "{code:?} {text}");
    assert!(records(&dir).strip_prefix(&whole).is_some_and(|rest| rest.contains("\"kind\":\"LedgerBranched\"")));
    check_whole(&dir);

    // A restored ledger has its records in tables instead of a journal.
    assert!(site.restore("tables", &[]).status.success());
    let dir = site.path("tables");
    let (mut server, taken) = (served(&dir, &site.home), site.sink.count());
    server.send(&message("on the new branch", "friend", 50));
    wait_until("it has arrived", || site.sink.count() > taken);
    server.stop();
    let whole = records(&dir);
    assert!(damage(&dir.join("ledger/keyspaces"), b"in-the-needlestack") > 0);
    let (code, text) = repair("tables", &["--from", &backup]);
    assert!(code == Some(0) && text.contains("came from the backup"), "{code:?} {text}");
    assert!(records(&dir).starts_with(&whole), "both branches are there");
    check_whole(&dir);
}
