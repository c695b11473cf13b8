//! What a client says to the SMTP server: however the network cuts it up it means the same, and what is accepted can be sent on
//! without being read as anything but itself.

use std::net::{Ipv4Addr, SocketAddr};

use postledger::smtp::data::{DataReader, Stuffer, is_canonical};
use postledger::smtp::reply::{ReplyReader, reply};
use postledger::smtp::server::{Action, RECIPIENTS_MAX, Session, Settings};
use postledger_events::address::{Address, Domain};
use postledger_events::reply::Reply;

const SIZE_MAX: usize = 8 * 1024;
/// A server that has read over twice the size leaves, and may do so in the middle or at the end.
const INPUT_BYTES_MAX: usize = 2 * SIZE_MAX;

/// The first byte says into which pieces the rest is cut.
pub fn check(bytes: &[u8]) {
    let Some((cut, input)) = bytes.split_first() else { return };
    let input = &input[..input.len().min(INPUT_BYTES_MAX)];
    let whole = converse(input.chunks(INPUT_BYTES_MAX));
    let pieces = converse(input.chunks(1 + usize::from(*cut)));
    assert_eq!(whole, pieces, "how bytes are cut up changes what they mean");
}

/// All that came of a connection.
#[derive(Debug, PartialEq)]
struct Heard {
    replies: Vec<Reply>,
    messages: Vec<Message>,
}

#[derive(Debug, PartialEq)]
struct Message {
    from: Option<Address>,
    to: Vec<Address>,
    data: Vec<u8>,
}

fn converse<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 25));
    let hostname = Domain::new("mx.example.org").expect("a name");
    let settings = Settings { hostname, size_max: SIZE_MAX, starttls: true, peer: any, local: any };
    let mut session = Session::new(settings);
    let mut messages = Vec::new();
    loop {
        match session.next_action() {
            Action::Read => match pieces.next() {
                Some(piece) => session.receive(piece),
                None => break,
            },
            Action::Mail { .. } | Action::Room { .. } => session.answer(Ok(())),
            Action::Rcpt { to } => session.answer(known(&to)),
            Action::Reset => {}
            Action::Message { envelope, data } => {
                let message = Message { from: envelope.reverse_path, to: envelope.recipients, data };
                check_message(&message);
                messages.push(message);
                session.answer_message(&reply(250, (2, 0), "stored"));
            }
            // What follows is TLS, or nothing.
            Action::StartTls | Action::Close => break,
        }
    }
    Heard { replies: replies(&session.take_output()), messages }
}

fn known(to: &Address) -> Result<(), Reply> {
    if to.localpart.as_str() == "nobody" { Err(reply(550, (1, 1), "no such user")) } else { Ok(()) }
}

fn check_message(Message { to, data, .. }: &Message) {
    assert!((1..=RECIPIENTS_MAX).contains(&to.len()), "{} recipients", to.len());
    assert!(data.len() <= SIZE_MAX, "{} bytes", data.len());
    assert!(is_canonical(data), "CR or LF stand alone: {}", data.escape_ascii());
    assert_eq!(&sent_on(data), data, "another server reads it as it was accepted");
}

/// As the next server reads it, which must not find anything behind its end.
fn sent_on(data: &[u8]) -> Vec<u8> {
    let (mut stuffer, mut block, mut wire) = (Stuffer::new(data), Vec::new(), Vec::new());
    while stuffer.next_block(&mut block) {
        wire.extend_from_slice(&block);
    }
    let (mut reader, mut rest) = (DataReader::new(data.len()), &wire[..]);
    assert!(reader.read(&mut rest) && rest.is_empty(), "it ends at its end: {}", wire.escape_ascii());
    reader.finish().expect("it is as it was accepted")
}

/// All that the server said, which must be whole replies.
fn replies(mut output: &[u8]) -> Vec<Reply> {
    assert!(is_canonical(output), "a client cannot read {}", output.escape_ascii());
    let mut replies = Vec::new();
    while !output.is_empty() {
        let reply = ReplyReader::default().read(&mut output).expect("it is a reply");
        replies.push(reply.expect("it is a whole reply"));
    }
    replies
}
