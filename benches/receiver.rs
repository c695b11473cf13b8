//! A receiver of calls that answers 200 to everything, and one that never answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::count::Count;

pub struct Receiver {
    addr: SocketAddr,
    calls: Count,
}

impl Receiver {
    /// Listens until the process ends.
    pub fn start() -> Receiver {
        let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let (addr, calls) = (socket.local_addr().expect("an address"), Count::default());
        let counter = calls.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let counter = counter.clone();
                // A client that goes away in the middle is its own affair.
                std::thread::spawn(move || serve(stream, &counter).ok());
            }
        });
        Receiver { addr, calls }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    pub fn count(&self) -> u64 {
        self.calls.get()
    }

    /// Waits until this many calls have been answered.
    pub fn wait_for(&self, calls: u64, patience: Duration) {
        self.calls.wait_for(calls, patience);
    }
}

fn serve(stream: TcpStream, calls: &Count) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut answers, mut lines) = (stream.try_clone()?, BufReader::with_capacity(16 * 1024, stream));
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or_default();
                }
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        body.resize(length, 0);
        lines.read_exact(&mut body)?;
        calls.add(1);
        answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// The URL of somebody who takes connections and says nothing, until the process ends.
pub fn hanging() -> String {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let url = format!("http://{}/", socket.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let taken: Vec<TcpStream> = socket.incoming().flatten().collect();
        drop(taken);
    });
    url
}
