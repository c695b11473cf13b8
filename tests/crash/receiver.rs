//! A program that is called, and fails in every way until it heals. What it heard is written down, whatever it says to it.

use std::collections::BTreeSet;
use std::io::{BufReader, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustls::ServerConfig;

use super::dice::Dice;
use crate::server::new_ip;
use crate::tls::{Authority, accept};
use crate::webhooks::{Got, is_signed, read_request};

const PORT: u16 = 9000;
/// How long nobody listens at a closed door.
const CLOSED: Duration = Duration::from_millis(150);
/// Between two octets that drip.
const DRIP: Duration = Duration::from_millis(50);
/// Between two looks at a peer that waits in vain.
const GLANCE: Duration = Duration::from_millis(50);
/// More than a caller may take in.
const HUGE_BYTES: usize = 4 * 1024 * 1024;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    Open,
    /// It is closed at once, and for a while so is the port.
    Refuse,
    /// What answers speaks another protocol.
    Garbage,
    /// Where there is TLS, the certificate is of an authority that nobody trusts; otherwise like [`Door::Open`].
    WrongCertificate,
}

const DOORS: [Door; 8] =
    [Door::Open, Door::Open, Door::Open, Door::Open, Door::Open, Door::Refuse, Door::Garbage, Door::WrongCertificate];

/// What is said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    Well,
    /// It says nothing until the caller goes.
    Hang,
    /// A good answer, an octet at a time, the head too.
    DripHead,
    /// A good answer whose body drips.
    DripBody,
    /// It goes without a word.
    Silence,
    /// It goes in the middle of a good answer's head.
    BreakHead,
    /// It goes in the middle of a good answer's body.
    BreakBody,
    Status500,
    Status429,
    Redirect,
    HugeHead,
    HugeBody,
}

const MOODS: [Mood; 16] = [
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Well,
    Mood::Hang,
    Mood::DripHead,
    Mood::DripBody,
    Mood::Silence,
    Mood::BreakHead,
    Mood::BreakBody,
    Mood::Status500,
    Mood::Status429,
    Mood::Redirect,
    Mood::HugeHead,
    Mood::HugeBody,
];

impl Mood {
    /// Whether its answer says that the call was taken.
    fn takes(self) -> bool {
        match self {
            Mood::Well | Mood::DripHead | Mood::DripBody | Mood::BreakBody | Mood::HugeBody => true,
            Mood::Hang | Mood::Silence | Mood::BreakHead | Mood::HugeHead => false,
            Mood::Status500 | Mood::Status429 | Mood::Redirect => false,
        }
    }
}

/// What one asks for by `Retry-After`; the last two ask for nothing.
const RETRY_AFTER: [&str; 4] = ["0", "1", "Sun, 06 Nov 1994 08:49:37 GMT", "soon"];

/// The event of calls about messages that came in, which name none.
pub const ARRIVED: &str = "arrived";

/// A call that was heard to its end.
#[derive(Clone, Debug)]
pub struct Heard {
    pub id: String,
    pub fact: u64,
    /// The number of the delivery, or of the message that arrived.
    pub about: u64,
    /// `delivered`, `delayed`, …
    pub event: String,
    pub body: Vec<u8>,
    pub signed: bool,
    /// It was answered with a status of 2xx, or the caller did not wait for it.
    pub taken: bool,
}

/// Cards: each comes once before any comes again, so that none is left to chance.
struct Deck<T: 'static> {
    all: &'static [T],
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    fn new(all: &'static [T]) -> Deck<T> {
        Deck { all, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut Dice) -> T {
        if self.left.is_empty() {
            self.left = self.all.to_vec();
        }
        let n = dice.below(self.left.len() as u64);
        self.left.swap_remove(usize::try_from(n).expect("below the length of a list"))
    }
}

struct Chance {
    dice: Dice,
    doors: Deck<Door>,
    moods: Deck<Mood>,
    retry_after: Deck<&'static str>,
    shown: BTreeSet<String>,
}

struct Tls {
    right: Arc<ServerConfig>,
    wrong: Arc<ServerConfig>,
}

#[derive(Clone)]
pub struct Receiver(Arc<Shared>);

struct Shared {
    addr: SocketAddr,
    tls: Option<Tls>,
    chance: Mutex<Chance>,
    healed: AtomicBool,
    secret: OnceLock<String>,
    heard: Mutex<Vec<Heard>>,
    /// Calls that were heard; beside the list, so that it can be looked at without a pause.
    count: AtomicU64,
}

impl Receiver {
    /// Serves until the test's process ends; over TLS if there is an authority.
    pub fn start(authority: Option<&Authority>, seed: u64) -> Receiver {
        let listener = TcpListener::bind((new_ip(), PORT)).expect("the address is free");
        let addr = listener.local_addr().expect("its address");
        let name = addr.ip().to_string();
        let tls =
            authority.map(|authority| Tls { right: authority.certify(&name), wrong: Authority::new().certify(&name) });
        let (doors, moods, retry_after) = (Deck::new(&DOORS), Deck::new(&MOODS), Deck::new(&RETRY_AFTER));
        let chance = Chance { dice: Dice::new(seed), doors, moods, retry_after, shown: BTreeSet::new() };
        let receiver = Receiver(Arc::new(Shared {
            addr,
            tls,
            chance: Mutex::new(chance),
            healed: AtomicBool::new(false),
            secret: OnceLock::new(),
            heard: Mutex::default(),
            count: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&receiver.0);
        std::thread::spawn(move || shared.listen(listener));
        receiver
    }

    pub fn url(&self) -> String {
        let scheme = if self.0.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/", self.0.addr)
    }

    /// What calls are to be signed with.
    pub fn expect(&self, secret: String) {
        self.0.secret.set(secret).expect("it has no secret yet");
    }

    /// From now on all is well.
    pub fn heal(&self) {
        self.0.healed.store(true, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.0.heard.lock().expect("no connection failed").clone()
    }

    /// The ways in which it behaved.
    pub fn shown(&self) -> BTreeSet<String> {
        self.0.chance().shown.clone()
    }

    /// All ways in which it behaves if there is time.
    pub fn all() -> BTreeSet<String> {
        let doors = DOORS.iter().map(|door| format!("{door:?}"));
        doors.chain(MOODS.iter().map(|mood| format!("{mood:?}"))).collect()
    }
}

impl Shared {
    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().expect("no connection failed")
    }

    fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }

    fn door(&self) -> Door {
        if self.is_healed() {
            return Door::Open;
        }
        let Chance { dice, doors, shown, .. } = &mut *self.chance();
        let door = doors.draw(dice);
        shown.insert(format!("{door:?}"));
        door
    }

    fn mood(&self) -> Mood {
        if self.is_healed() {
            return Mood::Well;
        }
        let Chance { dice, moods, shown, .. } = &mut *self.chance();
        let mood = moods.draw(dice);
        shown.insert(format!("{mood:?}"));
        mood
    }

    fn listen(self: Arc<Self>, mut listener: TcpListener) {
        loop {
            self.receive(listener);
            std::thread::sleep(CLOSED);
            listener = TcpListener::bind(self.addr).expect("nobody else has the address");
        }
    }

    /// Until it refuses; then the listener is gone.
    fn receive(self: &Arc<Self>, listener: TcpListener) {
        for stream in listener.incoming() {
            // The caller may be gone already.
            let Ok(stream) = stream else { continue };
            let door = self.door();
            if door == Door::Refuse {
                return;
            }
            let shared = Arc::clone(self);
            // A caller that is killed in the middle ends its conversation, not the test.
            std::thread::spawn(move || shared.converse(stream, door));
        }
    }

    fn converse(&self, mut stream: TcpStream, door: Door) -> Result<()> {
        stream.set_nodelay(true)?;
        let socket = stream.try_clone()?;
        match (door, &self.tls) {
            (Door::Garbage, _) => stream.write_all(b"220 here is no web server\r\n"),
            (Door::WrongCertificate, Some(tls)) => self.serve(accept(&tls.wrong, stream), &socket),
            (_, Some(tls)) => self.serve(accept(&tls.right, stream), &socket),
            (_, None) => self.serve(stream, &socket),
        }
    }

    /// One request after the other on the same connection.
    fn serve(&self, stream: impl Read + Write, socket: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(got) = read_request(&mut reader) {
            let mood = self.mood();
            self.hear(&got, mood.takes());
            if !self.answer(mood, reader.get_mut(), socket)? {
                break;
            }
        }
        Ok(())
    }

    fn hear(&self, got: &Got, taken: bool) {
        let json = got.json();
        // In an envelope, or plain.
        let told = if json["data"].is_null() { &json } else { &json["data"] };
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        let (about, event) = match told["Event"].as_str() {
            Some(event) => (number(&told["QueueMsgID"]), event),
            None => (number(&told["Meta"]["MsgID"]), ARRIVED),
        };
        let heard = Heard {
            id: got.header("webhook-id").to_owned(),
            fact: number(&told["EventID"]),
            about,
            event: event.to_owned(),
            body: got.body.clone(),
            signed: self.secret.get().is_some_and(|secret| is_signed(secret, got)),
            taken,
        };
        self.heard.lock().expect("no connection failed").push(heard);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there can be another request.
    fn answer(&self, mood: Mood, to: &mut impl Write, socket: &TcpStream) -> Result<bool> {
        match mood {
            Mood::Well => say(to, "200 OK", "", b"thanks").map(|()| true),
            Mood::Hang => self.hang(socket).map(|()| false),
            Mood::DripHead => self.drip(to, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").map(|()| true),
            Mood::DripBody => {
                to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")?;
                self.drip(to, &[b'x'; 40]).map(|()| true)
            }
            Mood::Silence => Ok(false),
            Mood::BreakHead => to.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").map(|()| false),
            Mood::BreakBody => to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nthank").map(|()| false),
            Mood::Status500 => say(to, "500 Oops", "", b"a defect").map(|()| true),
            Mood::Status429 => {
                say(to, "429 Slowly", &format!("Retry-After: {}\r\n", self.retry_after()), b"").map(|()| true)
            }
            Mood::Redirect => {
                say(to, "307 There", &format!("Location: http://{}/there\r\n", self.addr), b"").map(|()| true)
            }
            Mood::HugeHead => say(to, "200 OK", &format!("X-Huge: {}\r\n", "x".repeat(HUGE_BYTES)), b"").map(|()| true),
            Mood::HugeBody => say(to, "200 OK", "", &vec![b'x'; HUGE_BYTES]).map(|()| true),
        }
    }

    fn retry_after(&self) -> &'static str {
        let Chance { dice, retry_after, .. } = &mut *self.chance();
        retry_after.draw(dice)
    }

    fn hang(&self, socket: &TcpStream) -> Result<()> {
        socket.set_read_timeout(Some(GLANCE))?;
        while !self.is_healed() {
            match socket.peek(&mut [0]) {
                Err(e) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&e.kind()) => {}
                // Whatever it is, it is no patience.
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    fn drip(&self, to: &mut impl Write, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            to.write_all(&[*byte])?;
            to.flush()?;
            if !self.is_healed() {
                std::thread::sleep(DRIP);
            }
        }
        Ok(())
    }
}

fn say(to: &mut impl Write, status: &str, fields: &str, body: &[u8]) -> Result<()> {
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    to.write_all(&[head.as_bytes(), body].concat())?;
    to.flush()
}
