//! The next hop of a test: takes mail over SMTP, fails what its addresses ask for, and counts what it took.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::new_ip;

const PORT: u16 = 2525;

/// What was taken: how often, by Message-ID and recipient.
pub type Taken = BTreeMap<(String, String), u32>;

pub struct Sink {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Taken>,
    /// Changes when the power of those who send is cut, and when it is back; even if there is power.
    power: AtomicU64,
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Listens until the test's process ends.
    pub fn start() -> Sink {
        let listener = TcpListener::bind((new_ip(), PORT)).expect("the address is free");
        let sink = Sink { addr: listener.local_addr().expect("its address"), shared: Arc::default() };
        let shared = Arc::clone(&sink.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.expect("a connection"), Arc::clone(&shared));
                // A client that is killed in the middle ends its conversation, not the test.
                std::thread::spawn(move || Conversation::new(stream, shared).and_then(Conversation::hold));
            }
        });
        sink
    }

    pub fn taken(&self) -> MutexGuard<'_, Taken> {
        self.shared.taken()
    }

    /// Cuts the power of those who send: what was taken before counts, and nothing until [`Sink::resume`]. A process that runs on
    /// for a moment after the cut, and may be told by its dead disk that all is synced, sends nothing more.
    pub fn cut(&self, cut: impl FnOnce()) {
        // Nothing is taken while this is held.
        let _taken = self.taken();
        self.shared.power.fetch_add(1, Ordering::Relaxed);
        cut();
    }

    pub fn resume(&self) {
        self.shared.power.fetch_add(1, Ordering::Relaxed);
    }

    /// Transactions' recipients that were taken so far.
    pub fn count(&self) -> u64 {
        self.taken().values().map(|n| u64::from(*n)).sum()
    }
}

/// What an address asks for, by its end.
pub fn refusal(address: &str) -> Option<&'static str> {
    let localpart = address.split('@').next().unwrap_or_default();
    if localpart.ends_with("temperror") {
        Some("451 4.3.0 later")
    } else if localpart.ends_with("permerror") {
        Some("550 5.1.1 never")
    } else {
        None
    }
}

struct Conversation {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    shared: Arc<Shared>,
    /// When it began.
    power: u64,
    recipients: Vec<String>,
}

impl Conversation {
    fn new(stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<Conversation> {
        stream.set_nodelay(true)?;
        let (writer, power) = (stream.try_clone()?, shared.power.load(Ordering::Relaxed));
        Ok(Conversation { reader: BufReader::new(stream), writer, shared, power, recipients: Vec::new() })
    }

    fn hold(mut self) -> std::io::Result<()> {
        self.say("220 sink.example ESMTP")?;
        while let Some(line) = self.line()? {
            match line.get(..4).unwrap_or(&line).to_ascii_uppercase().as_str() {
                "EHLO" => self.say("250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")?,
                "MAIL" | "RSET" => {
                    self.recipients.clear();
                    self.say("250 2.0.0 ok")?;
                }
                "RCPT" => self.rcpt(&line)?,
                "DATA" if self.recipients.is_empty() => self.say("554 5.5.1 no recipients")?,
                "DATA" => self.data()?,
                "QUIT" => return self.say("221 2.0.0 bye"),
                _ => self.say("500 5.5.1 what?")?,
            }
        }
        Ok(())
    }

    fn rcpt(&mut self, line: &str) -> std::io::Result<()> {
        let address =
            line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(address, _)| address);
        match refusal(address) {
            Some(reply) => self.say(reply),
            None => {
                self.recipients.push(address.to_owned());
                self.say("250 2.1.5 ok")
            }
        }
    }

    fn data(&mut self) -> std::io::Result<()> {
        self.say("354 go on")?;
        let mut message_id = None;
        loop {
            // The end of the stream before the final dot: nothing was taken.
            let Some(line) = self.line()? else { return Ok(()) };
            match line.split_once(':') {
                _ if line == "." => break,
                Some((name, value)) if message_id.is_none() && name.eq_ignore_ascii_case("message-id") => {
                    message_id = Some(value.trim().to_owned());
                }
                _ => {}
            }
        }
        let message_id = message_id.unwrap_or_default();
        let mut taken = self.shared.taken();
        if !self.power.is_multiple_of(2) || self.shared.power.load(Ordering::Relaxed) != self.power {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        for recipient in self.recipients.drain(..) {
            *taken.entry((message_id.clone(), recipient)).or_default() += 1;
        }
        drop(taken);
        self.say("250 2.0.0 taken")
    }

    /// `None`: the client is gone.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut bytes = Vec::new();
        self.reader.read_until(b'\n', &mut bytes)?;
        let line = bytes.strip_suffix(b"\r\n");
        Ok(line.map(|line| String::from_utf8_lossy(line).into_owned()))
    }

    fn say(&mut self, reply: &str) -> std::io::Result<()> {
        self.writer.write_all(format!("{reply}\r\n").as_bytes())
    }
}
