//! What a server says to the SMTP client: nothing makes it write another line than it means to, show a password, or take a
//! recipient for delivered without being told so.

use bytes::Bytes;
use postledger::smtp::client::{
    Action, Capabilities, Credentials, Delivery, Encryption, Handshake, Phase, Plan, RecipientResult, Security,
    Session, Step, Transaction,
};
use postledger::smtp::data::is_canonical;
use postledger::smtp::reply::{ReplyReader, write};
use postledger_events::address::{Address, Domain};
use postledger_events::reply::{REPLY_BYTES_MAX, REPLY_LINES_MAX, Reply};

const ENCRYPTIONS: [Encryption; 4] =
    [Encryption::Never, Encryption::IfOffered, Encryption::StartTls, Encryption::Implicit];
const RECIPIENTS: [&str; 4] = ["a@example.org", "b@example.org", "c@example.net", "\"d>\"@example.com"];
/// Transactions over one connection.
const TRANSACTIONS: usize = 3;

/// The first byte says what is wanted of the session, the rest is what the server says.
pub fn check(bytes: &[u8]) {
    let Some((wanted, said)) = bytes.split_first() else { return };
    let mut peer = Peer { said };
    let Some((capabilities, security)) = shake_hands(plan(*wanted), &mut peer) else { return };
    let transaction = transaction(*wanted);
    let mut session = Session::new(capabilities, security);
    for _ in 0..TRANSACTIONS {
        deliver(&mut session, &transaction, &mut peer);
    }
}

fn plan(wanted: u8) -> Plan {
    let auth = Credentials { username: "user".to_owned(), password: "secret".to_owned().into() };
    Plan {
        ehlo_name: Domain::new("mail.example.org").expect("a name"),
        encryption: ENCRYPTIONS[usize::from(wanted & 3)],
        verified: wanted & 4 != 0,
        auth: (wanted & 8 != 0).then_some(auth),
    }
}

fn transaction(wanted: u8) -> Transaction {
    let address = |text| Address::parse_path(text).expect("an address");
    Transaction {
        reverse_path: (wanted & 16 != 0).then(|| address("me@example.org")),
        recipients: RECIPIENTS.map(address).to_vec(),
        message: Bytes::from_static(b"Subject: hi\r\n\r\n.\r\n.hello\r\n"),
        eight_bit: wanted & 32 != 0,
        smtputf8: wanted & 64 != 0,
        require_tls: wanted & 128 != 0,
    }
}

/// `None`: there is no session.
fn shake_hands(plan: Plan, peer: &mut Peer) -> Option<(Capabilities, Security)> {
    let verified = plan.verified;
    let (mut handshake, mut step) = Handshake::start(plan);
    let mut secure = false;
    loop {
        step = match step {
            Step::Tls => {
                assert!(!secure, "TLS begins once");
                secure = true;
                handshake.secured()
            }
            Step::Send(line, _) => {
                check_lines(&line, 1);
                assert!(!line.starts_with(b"AUTH") || secure && verified, "a password goes over verified TLS only");
                handshake.reply(peer.hear()?, !peer.said.is_empty()).ok()?
            }
            Step::Read(_) => handshake.reply(peer.hear()?, !peer.said.is_empty()).ok()?,
            Step::Ready => break,
        };
    }
    let security = match (secure, verified) {
        (false, _) => Security::Clear,
        (true, false) => Security::Unverified,
        (true, true) => Security::Verified,
    };
    Some((handshake.finish().2, security))
}

fn deliver(session: &mut Session, transaction: &Transaction, peer: &mut Peer) {
    let (was_usable, rcpt_max) = (session.is_usable(), session.capabilities.limits.rcpt_max);
    let mut delivery = Delivery::begin(session, transaction);
    let (mut written, mut recipients, mut last) = (false, 0, None);
    loop {
        match delivery.next_action() {
            Action::Write(lines, _) => {
                assert!(was_usable, "nothing is written to a connection that is over");
                recipients += check_lines(&lines, transaction.recipients.len() + 3);
            }
            Action::Read(_) => match peer.hear() {
                Some(reply) => {
                    last = Some(reply.clone());
                    delivery.reply(reply);
                }
                None => delivery.broke("the connection broke".to_owned()),
            },
            Action::WriteMessage => {
                assert!(!written, "the message is written once");
                written = true;
                delivery.message_written();
            }
            Action::Done => break,
        }
    }
    let results = delivery.finish();
    assert_eq!(results.len(), transaction.recipients.len(), "each recipient has its result");
    assert!(rcpt_max.is_none_or(|max| recipients <= max as usize), "{recipients} recipients of {rcpt_max:?}");
    for result in results {
        match &result {
            RecipientResult::Accepted { reply } => {
                assert!(written && reply.is_positive() && last.as_ref() == Some(reply), "{result:?} is made up");
            }
            RecipientResult::Rejected { reply } => assert!(!reply.is_positive(), "{result:?} is none"),
            RecipientResult::Lost { at: Phase::Final, .. } => assert!(written, "{result:?}, but nothing was sent"),
            RecipientResult::Lost { .. } | RecipientResult::Local { .. } | RecipientResult::Again { .. } => {}
        }
    }
}

/// Whole command lines, of those that the client knows. Answers how many of them name a recipient.
fn check_lines(lines: &[u8], lines_max: usize) -> usize {
    assert!(is_canonical(lines), "{}", lines.escape_ascii());
    let commands: Vec<&[u8]> = lines.split_inclusive(|b| *b == b'\n').collect();
    assert!((1..=lines_max).contains(&commands.len()), "{}", lines.escape_ascii());
    let known = ["EHLO ", "HELO ", "STARTTLS\r", "AUTH PLAIN ", "RSET\r", "MAIL FROM:<", "RCPT TO:<", "DATA\r", ".\r"];
    for command in &commands {
        assert!(known.iter().any(|known| command.starts_with(known.as_bytes())), "{}", command.escape_ascii());
    }
    commands.iter().filter(|command| command.starts_with(b"RCPT")).count()
}

struct Peer<'a> {
    said: &'a [u8],
}

impl Peer<'_> {
    /// `None`: it said no more, or nonsense.
    fn hear(&mut self) -> Option<Reply> {
        let reply = ReplyReader::default().read(&mut self.said).ok()??;
        let bytes: usize = reply.lines.iter().map(String::len).sum();
        assert!(reply.lines.len() <= REPLY_LINES_MAX && bytes <= REPLY_BYTES_MAX, "a reply is kept in bounds");
        let mut again = Vec::new();
        write(&reply, &mut again);
        let read = ReplyReader::default().read(&mut &again[..]).expect("what is written is a reply");
        assert_eq!(read.expect("it is whole").code, reply.code);
        Some(reply)
    }
}
