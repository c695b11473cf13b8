//! A next hop that takes everything and keeps nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::count::Count;

pub struct Sink {
    addr: SocketAddr,
    recipients: Count,
}

impl Sink {
    /// Listens until the process ends.
    pub fn start() -> Sink {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let (addr, recipients) = (socket.local_addr().expect("an address"), Count::default());
        let counter = recipients.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let counter = counter.clone();
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || session(stream, &counter).ok());
            }
        });
        Sink { addr, recipients }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Recipients of all messages that were taken.
    pub fn count(&self) -> u64 {
        self.recipients.get()
    }

    /// Waits until this many recipients have been served.
    pub fn wait_for(&self, recipients: u64, patience: Duration) {
        self.recipients.wait_for(recipients, patience);
    }
}

fn session(stream: TcpStream, recipients: &Count) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut replies, mut lines) = (stream.try_clone()?, BufReader::with_capacity(64 * 1024, stream));
    let (mut line, mut waiting) = (Vec::new(), b"220 sink.example ESMTP\r\n".to_vec());
    let (mut in_content, mut asked) = (false, 0);
    loop {
        // Replies to what came in one piece go out in one piece.
        if lines.buffer().is_empty() {
            replies.write_all(&waiting)?;
            waiting.clear();
        }
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if in_content {
            if line == b".\r\n" {
                in_content = false;
                recipients.add(std::mem::take(&mut asked));
                waiting.extend(b"250 2.0.0 taken\r\n");
            }
            continue;
        }
        waiting.extend_from_slice(match line.get(..4).unwrap_or_default() {
            b"EHLO" => b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            b"DATA" => {
                in_content = true;
                b"354 go on\r\n"
            }
            b"RCPT" => {
                asked += 1;
                b"250 2.1.5 ok\r\n"
            }
            b"QUIT" => b"221 2.0.0 bye\r\n",
            _ => b"250 2.0.0 ok\r\n",
        });
    }
}
