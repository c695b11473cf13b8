//! The power is cut under load: on a file system of its own, all that was not synced is gone. The control does the same to a
//! program whose syncs do nothing, and must be caught.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::account::{Account, Verdict, Work};
use super::dice::{Dice, seed};
use super::kill::await_moment;
use super::load::{Load, Sent};
use super::scale::Scale;
use super::subject::{RETRY_SCALE, drain, prepare, recover, spin_until};
use super::table::{Row, skip};
use super::tools::{Tools, run, tools};
use crate::server::{Server, new_ip, wait_until};
use crate::sink::Sink;

/// Rounds on one file system, before it is made anew.
const DISK_ROUNDS_MAX: u64 = 10;
const DISK_BYTES: u64 = 1 << 30;
/// Answers before the power of the control is cut.
const CONTROL_ANSWERS: u64 = 40;

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let campaign = "(b) power cut";
    let tools = match prerequisites() {
        Ok(tools) => tools,
        Err(why) => return skip(campaign, &why),
    };
    let (seed, sink, mut row) = (seed(), Sink::start(), Row::new(campaign));
    let (mut dice, ip) = (Dice::new(seed), new_ip());
    while row.rounds < Scale::of_this_run().power_cuts() {
        let rounds = DISK_ROUNDS_MAX.min(Scale::of_this_run().power_cuts() - row.rounds);
        let disk = Disk::make(tools).expect("a disk");
        let server = Server::on(&disk.data(), &disk.log(), ip, RETRY_SCALE);
        let name = format!("b{}x", row.rounds);
        let mut subject = Subject { server, disk, sink: &sink };
        prepare(&mut subject.server, &sink);
        let load = Load::start(subject.server.http(), &name, dice.roll());
        for _ in 0..rounds {
            let took = recover(&mut subject.server).unwrap_or_else(|e| panic!("seed {seed}: it does not start:\n{e}"));
            row.recovery.push(took);
            load.resume();
            subject.cut(&load, || await_moment(&load, &sink, &mut dice));
            row.rounds += 1;
        }
        row.add(subject.rest(load));
    }
    row.settle(seed);
}

#[test]
fn a_power_cut_without_syncing_is_caught() {
    let campaign = "(b) control, unsynced";
    let tools = match prerequisites() {
        Ok(tools) => tools,
        Err(why) => return skip(campaign, &why),
    };
    let (seed, sink, mut row) = (seed(), Sink::start(), Row::new(campaign));
    let (mut dice, ip) = (Dice::new(seed), new_ip());
    for _ in 0..Scale::of_this_run().unsynced_power_cuts() {
        let disk = Disk::make(tools).expect("a disk");
        let server = Server::on(&disk.data(), &disk.log(), ip, RETRY_SCALE);
        let name = format!("u{}x", row.rounds);
        let mut subject = Subject { server, disk, sink: &sink };
        prepare(&mut subject.server, &sink);
        let shim = tools.shim(&subject.disk.data(), "unsynced", 0);
        subject.server.set_environment(&shim.each_ref().map(|(name, value)| (*name, value.as_str())));
        recover(&mut subject.server).expect("it starts");
        let load = Load::start(subject.server.http(), &name, dice.roll());
        subject.cut(&load, || spin_until("there were answers", || load.answers() >= CONTROL_ANSWERS));
        let sent = load.finish();
        subject.server.set_environment(&[]);
        let (verdict, note) = subject.examine(&sent);
        row.add(verdict);
        row.notes.extend(note);
        row.rounds += 1;
    }
    row.settle_control();
}

fn prerequisites() -> Result<&'static Tools, String> {
    let tools = tools()?;
    Disk::make(tools).map(|_| tools)
}

/// A server on a disk; it goes before its disk does.
struct Subject<'a> {
    server: Server,
    disk: Disk,
    sink: &'a Sink,
}

impl Subject<'_> {
    /// After some moment that was waited for.
    fn cut(&mut self, load: &Load, moment: impl FnOnce()) {
        let switch = Switch::at(&self.disk);
        moment();
        self.sink.cut(|| load.cut(|| switch.off()));
        self.server.kill();
        self.sink.resume();
        self.disk.unmount();
        self.disk.mount().expect("it can be mounted again");
    }

    fn rest(&mut self, load: Load) -> Verdict {
        self.server.restart();
        load.resume();
        let sent = load.finish();
        assert_eq!(sent.surprises, Default::default());
        let drained = drain(&self.server);
        self.server.stop();
        let mut verdict = Account::read(self.server.dir()).compare(&sent, Some(self.sink), drained.work());
        verdict.lost.extend(drained.stuck());
        verdict
    }

    /// What a ledger that need not even start any more has lost.
    fn examine(&mut self, sent: &Sent) -> (Verdict, Option<String>) {
        let why = match recover(&mut self.server) {
            Ok(_) => {
                self.server.stop();
                return (Account::read(self.server.dir()).compare(sent, Some(self.sink), Work::MayBeOpen), None);
            }
            Err(why) => why,
        };
        let verdict = Verdict { acknowledged: sent.acknowledged(), lost: vec!["all".to_owned()], ..Verdict::default() };
        (verdict, Some(format!("it does not start: {}", why.lines().last().unwrap_or_default())))
    }
}

/// A file system in a file, mounted over a loop device; unmounted and gone when dropped.
struct Disk {
    home: tempfile::TempDir,
    device: String,
    godown: PathBuf,
}

impl Disk {
    fn make(tools: &Tools) -> Result<Disk, String> {
        let home = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = home.path().join("image");
        let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(DISK_BYTES).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        std::fs::create_dir(home.path().join("mount")).map_err(|e| e.to_string())?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&image))?;
        let disk = Disk { home, device, godown: tools.godown.clone() };
        disk.mount()?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    /// Not on the disk whose power is cut.
    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", &self.device]).arg(self.root())).map(drop)
    }

    fn unmount(&self) {
        wait_until("it is unmounted", || run(Command::new("umount").arg(self.root())).is_ok());
        // The kernel may still be at it, and a mount before it is done would see what it holds in memory.
        let name = Path::new(&self.device).file_name().expect("a device has a name");
        let trace = Path::new("/proc/fs/ext4").join(name);
        wait_until("the kernel has let go of it", || !trace.exists());
    }
}

/// Of the power of a disk: ready, so that it is off at once. Goes without a cut if the test fails before.
struct Switch(Child);

impl Switch {
    fn at(disk: &Disk) -> Switch {
        let mut command = Command::new(&disk.godown);
        Switch(command.arg(disk.root()).stdin(Stdio::piped()).spawn().expect("the power can be cut"))
    }

    fn off(mut self) {
        self.0.stdin.take().expect("it is piped").write_all(b"\n").expect("it waits");
        assert!(self.0.wait().expect("its end").success(), "the power cannot be cut");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A lazy unmount, too, gives the device free when its last user goes.
        let unmounted = run(Command::new("umount").arg(self.root()));
        if unmounted.is_err() {
            let _ = run(Command::new("umount").arg("-l").arg(self.root()));
        }
        if let Err(e) = run(Command::new("losetup").args(["-d", &self.device])) {
            eprintln!("{}: {e}", self.device);
        }
    }
}
