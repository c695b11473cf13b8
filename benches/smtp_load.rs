//! SMTP clients that send one message after the other, each over a connection that stays open, with PIPELINING.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::load::{SMALL_BYTES, address};

const LINE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n";

pub struct SmtpLoad {
    pub smtp: SocketAddr,
    pub clients: usize,
    /// Of each message.
    pub recipients: u64,
}

impl SmtpLoad {
    /// Sends for this long; answers how many messages were taken.
    pub fn run(&self, time: Duration) -> u64 {
        let (end, taken) = (Instant::now() + time, AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..self.clients {
                scope.spawn(|| self.client(end, &taken));
            }
        });
        taken.into_inner()
    }

    fn client(&self, end: Instant, taken: &AtomicU64) {
        let mut stream = TcpStream::connect(self.smtp).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let mut replies = BufReader::new(stream.try_clone().expect("a second handle"));
        expect(&mut replies, "220");
        stream.write_all(b"EHLO bench.example\r\n").expect("a command");
        expect(&mut replies, "250");
        let body = LINE.repeat(SMALL_BYTES / LINE.len());
        let message = format!("From: <mox@localhost>\r\nSubject: A measured message\r\n\r\n{body}.\r\n");
        while Instant::now() < end {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            stream.write_all(self.envelope(number).as_bytes()).expect("the envelope");
            for _ in 0..=self.recipients {
                expect(&mut replies, "250");
            }
            expect(&mut replies, "354");
            stream.write_all(message.as_bytes()).expect("the content");
            expect(&mut replies, "250");
        }
        stream.write_all(b"QUIT\r\n").expect("a command");
    }

    fn envelope(&self, number: u64) -> String {
        let first = number * self.recipients;
        let recipients: String =
            (first..first + self.recipients).map(|n| format!("RCPT TO:<{}>\r\n", address(n))).collect();
        format!("MAIL FROM:<mox@localhost>\r\n{recipients}DATA\r\n")
    }
}

/// Reads one reply, which must have this code.
fn expect(replies: &mut impl BufRead, code: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        replies.read_line(&mut line).expect("a reply");
        assert!(line.starts_with(code), "{line}");
        if line.as_bytes().get(3) != Some(&b'-') {
            return;
        }
    }
}
