//! Whether all is well can be asked of a running server, which also asks itself; and it says no before its disk is full.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::crash::skip;
use crate::server::{Server, arrives, get, new_ip, wait_until};

const MIB: f64 = 1024.0 * 1024.0;

fn message(subject: &str, bytes: usize) -> Value {
    json!({ "To": [{ "Address": "friend@localhost" }], "Subject": subject, "Text": "x".repeat(bytes) })
}

#[test]
fn a_running_server_is_verified_and_names_what_is_damaged() {
    let server = Server::start(&[]);
    for n in 0..20 {
        server.send(&message(&format!("number {n}"), if n % 5 == 0 { 50_000 } else { 50 }));
    }
    for args in [&["verify"][..], &["verify", "--full", "--fast"]] {
        let said = server.cli(args);
        assert!(said.ends_with("all is well\n"), "{said}");
    }
    let report = server.cli_json(&["verify", "--full", "--fast"]);
    assert_eq!(report["findings"], json!([]));
    assert!(report["tables"].as_array().is_some_and(|tables| !tables.is_empty()), "{report}");

    let shelves = std::fs::read_dir(server.dir().join("bodies")).expect("shelves");
    let bodies = shelves.flat_map(|shelf| std::fs::read_dir(shelf.expect("a shelf").path()).expect("its files"));
    let body = bodies.map(|file| file.expect("a file").path()).next().expect("a large content");
    let mut bytes = std::fs::read(&body).expect("its octets");
    bytes[100] ^= 1;
    std::fs::write(&body, bytes).expect("rot");
    let said = server.command(&["verify", "--full", "--fast"]).output().expect("the program runs");
    let printed = String::from_utf8_lossy(&said.stdout).into_owned();
    let name = body.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(said.status.code(), Some(1), "{printed}");
    assert!(printed.contains(&format!("DIFFERENCE: body {name} has the hash ")), "{printed}");
}

/// A small disk of its own; gone when the test ends.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(mib: u32) -> Option<Disk> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| Disk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The directory cannot go otherwise; nothing is to be said here.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn intake_ends_before_the_disk_is_full_and_begins_again_by_itself() {
    let Some(disk) = Disk::mount(400) else {
        return skip("intake ends before the disk is full", "no file system can be mounted here");
    };
    let log = tempfile::NamedTempFile::new().expect("a file");
    let dir = disk.path().join("data");
    std::fs::create_dir(&dir).expect("a directory");
    let mut server = Server::on(&dir, log.path(), new_ip(), &[]);
    server.restart();
    server.send(&message("first", 50));
    assert_eq!(server.metric("postledger_disk_short"), 0.0);
    let reserve = server.metric("postledger_disk_reserve_bytes");
    assert_eq!(reserve, 40.0 * MIB, "a tenth of the disk");

    // Somebody else fills the disk: there is no room for a large content any more that leaves the reserve alone.
    let ballast = disk.path().join("ballast");
    let above = MIB * 8.0;
    let fill = server.metric("postledger_disk_free_bytes") - reserve - above;
    std::fs::write(&ballast, vec![0; fill as usize]).expect("ballast");
    wait_until("the ballast is seen", || server.metric("postledger_disk_free_bytes") < reserve + above + MIB);
    let refused = server.webapi("Send", &message("large", above as usize + MIB as usize));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("make room there"), "{}", refused.text());
    server.send(&message("small", 50));

    // Half of the reserve is left.
    let more = server.metric("postledger_disk_free_bytes") - reserve / 2.0;
    std::fs::write(disk.path().join("more"), vec![0; more as usize]).expect("ballast");
    wait_until("intake has ended", || server.metric("postledger_disk_short") == 1.0);

    let refused = server.webapi("Send", &message("second", 50));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("make room there"), "{}", refused.text());
    let said = arrives(server.smtp(), ["a@x.example", "mox@localhost"], "Subject: x\r\n\r\nx\r\n").expect("a reply");
    assert!(said.starts_with("452 4.3.1 "), "{said}");
    let ready = get(server.http(), "/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("MiB free"), "{}", ready.text());
    // Operators still act.
    server.cli(&["account", "set", "mox", "--keep", "20d"]);
    server.api("POST", "/queue", &json!({ "action": "cancel", "all": true }));

    for ballast in [ballast, disk.path().join("more")] {
        std::fs::remove_file(ballast).expect("room is made");
    }
    wait_until("intake goes on", || get(server.http(), "/readyz").status == 200);
    server.send(&message("third", 50));
    server.stop();
    let said = server.cli(&["verify", "--full"]);
    assert!(said.ends_with("all is well\n"), "{said}");
}
