//! The server, without input or output: bytes in, actions out.
//!
//! [`Session::next_action`] says what is to be done; whoever drives it does that and tells the result. Replies gather in
//! [`Session::take_output`] and go out before anything is waited for, so that pipelined commands get theirs in few packets.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use postledger_events::address::{Address, Domain, Localpart};
use postledger_events::reply::Reply;

use super::command::{self, Body, Command, ForwardPath, LINE_BYTES_MAX, MailParameters};
use super::data::{DataReader, Spoiled};
use super::reply::{
    ARGUMENT_SYNTAX_501, BAD_SEQUENCE_503, CANNOT_VERIFY_252, CLOSING_221, FAILED_554, LOCAL_ERROR_451,
    MAILBOX_NAME_553, NOT_IMPLEMENTED_502, OK_250, PARAMETERS_UNKNOWN_555, READY_220, REFUSED_550, SERVICE_CLOSING_421,
    START_INPUT_354, STORAGE_452, SYNTAX_500, TOO_LARGE_552, reply, write,
};
use super::tls::TlsFacts;

/// Recipients of one transaction, as announced by LIMITS (RFC 9422 §4.2; RFC 5321 §4.5.3.1.8 asks for 100).
pub const RECIPIENTS_MAX: usize = 1000;
/// Wrong commands after which a session ends.
pub const ERRORS_MAX: u32 = 20;

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub hostname: Domain,
    /// Bytes of one message, announced by SIZE.
    pub size_max: usize,
    /// STARTTLS can be had.
    pub starttls: bool,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// Who sent a message, and to whom.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// What the client called itself.
    pub helo: String,
    /// It said EHLO.
    pub extended: bool,
    pub tls: Option<TlsFacts>,
    /// None is the null reverse-path.
    pub reverse_path: Option<Address>,
    pub recipients: Vec<Address>,
    pub smtputf8: bool,
    pub eight_bit: bool,
    pub require_tls: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Action {
    /// Read from the peer, then call [`Session::receive`].
    Read,
    /// Begin TLS once the output is written, then call [`Session::secured`].
    StartTls,
    /// May this reverse-path send? Then [`Session::answer`].
    Mail { from: Option<Address>, parameters: MailParameters },
    /// May this recipient be sent to? Then [`Session::answer`].
    Rcpt { to: Address },
    /// Is there room for a message of (as far as known) this size? Then [`Session::answer`].
    Room { bytes: usize },
    /// Take the message, then [`Session::answer_message`].
    Message { envelope: Envelope, data: Vec<u8> },
    /// The transaction was given up.
    Reset,
    /// Write the output and close.
    Close,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    input: BytesMut,
    output: Vec<u8>,
    state: State,
    hello: Option<Hello>,
    tls: Option<TlsFacts>,
    transaction: Option<Open>,
    errors: u32,
}

/// What the session is waiting for, or about to ask of its driver.
#[derive(Debug)]
enum State {
    Command,
    /// The rest of a line that is too long.
    LineEnd,
    Data(DataReader),
    Answer(Question),
    Tls,
    Resetting,
    Closing,
}

#[derive(Debug)]
enum Question {
    Mail(Open),
    Rcpt(Address),
    Room,
    Message,
}

#[derive(Clone, Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// The transaction under way.
#[derive(Clone, Debug)]
struct Open {
    reverse_path: Option<Address>,
    recipients: Vec<Address>,
    parameters: MailParameters,
}

impl Session {
    /// The greeting is in the output at once.
    pub fn new(settings: Settings) -> Session {
        let greeting = Reply::new(READY_220, format!("{} ESMTP", settings.hostname));
        let mut session = Session {
            settings,
            input: BytesMut::new(),
            output: Vec::new(),
            state: State::Command,
            hello: None,
            tls: None,
            transaction: None,
            errors: 0,
        };
        session.say(&greeting);
        session
    }

    /// Bytes from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    pub fn next_action(&mut self) -> Action {
        loop {
            let action = match &mut self.state {
                State::Command => self.next_command(),
                State::LineEnd => self.skip_line(),
                State::Data(_) => self.next_data(),
                State::Answer(question) => unreachable!("an answer is due: {question:?}"),
                State::Tls => Some(Action::StartTls),
                State::Resetting => {
                    self.state = State::Command;
                    Some(Action::Reset)
                }
                State::Closing => Some(Action::Close),
            };
            if let Some(action) = action {
                return action;
            }
        }
    }

    /// The answer to [`Action::Mail`], [`Action::Rcpt`] or [`Action::Room`]; a refusal goes to the peer as it is.
    pub fn answer(&mut self, answer: Result<(), Reply>) {
        let question = match std::mem::replace(&mut self.state, State::Command) {
            State::Answer(question) => question,
            other => unreachable!("nothing was asked in {other:?}"),
        };
        match (question, answer) {
            (_, Err(refusal)) => self.say(&refusal),
            (Question::Mail(open), Ok(())) => {
                self.transaction = Some(open);
                self.say(&reply(OK_250, (1, 0), "sender ok"));
            }
            (Question::Rcpt(to), Ok(())) => {
                self.transaction.as_mut().expect("a transaction is open").recipients.push(to);
                self.say(&reply(OK_250, (1, 5), "recipient ok"));
            }
            (Question::Room, Ok(())) => {
                self.say(&Reply::new(START_INPUT_354, "end with <CRLF>.<CRLF>"));
                self.state = State::Data(DataReader::new(self.settings.size_max));
            }
            (Question::Message, Ok(())) => unreachable!("a message is answered with a reply"),
        }
    }

    /// The answer to [`Action::Message`].
    pub fn answer_message(&mut self, reply: &Reply) {
        assert!(matches!(self.state, State::Answer(Question::Message)), "no message was given");
        self.state = State::Command;
        self.say(reply);
    }

    /// TLS stands. RFC 3207 §4.2: the session begins anew.
    pub fn secured(&mut self, tls: TlsFacts) {
        assert!(matches!(self.state, State::Tls), "TLS was not asked for");
        self.tls = Some(tls);
        self.hello = None;
        self.reset();
    }

    /// Whether content is being read.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Data(_))
    }

    /// Bytes of content held now, unless there is none, or it is only read over.
    pub fn held_bytes(&self) -> Option<usize> {
        match &self.state {
            State::Data(reader) => reader.held_bytes(),
            _ => None,
        }
    }

    /// There is no room for the rest of the content: it is read over, and refused at its end.
    pub fn refuse_content(&mut self) {
        if let State::Data(reader) = &mut self.state {
            reader.spoil(Spoiled::NoRoom);
        }
    }

    /// Ends the session from our side (RFC 5321 §3.8).
    pub fn close(&mut self, why: Closing) {
        let goodbye = match why {
            Closing::Shutdown => shutting_down(),
            Closing::Timeout => reply(SERVICE_CLOSING_421, (4, 2), "timeout, closing the connection"),
        };
        self.say(&goodbye);
    }

    fn next_command(&mut self) -> Option<Action> {
        let Some(end) = self.input.iter().position(|&b| b == b'\n') else {
            if self.input.len() < LINE_BYTES_MAX {
                return Some(Action::Read);
            }
            return self.overlong();
        };
        if end >= LINE_BYTES_MAX {
            return self.overlong();
        }
        let line = self.input.split_to(end + 1);
        let Some(line) = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r')) else {
            // Whatever else this peer means by its line ends, the next command might be part of a message.
            self.say(&reply(SYNTAX_500, (5, 2), "lines end in CRLF, and CR and LF stand nowhere else"));
            self.state = State::Closing;
            return None;
        };
        let Ok(line) = std::str::from_utf8(line) else {
            return self.wrong(reply(SYNTAX_500, (5, 2), "not UTF-8"));
        };
        self.command(line)
    }

    fn overlong(&mut self) -> Option<Action> {
        self.state = State::LineEnd;
        self.wrong(reply(SYNTAX_500, (5, 2), "line too long"))
    }

    fn skip_line(&mut self) -> Option<Action> {
        match self.input.iter().position(|&b| b == b'\n') {
            Some(end) => {
                self.input.advance(end + 1);
                self.state = State::Command;
                None
            }
            None => {
                self.input.clear();
                Some(Action::Read)
            }
        }
    }

    fn command(&mut self, line: &str) -> Option<Action> {
        match Command::parse(line) {
            Ok(Command::Ehlo(name)) => self.hello(name, true),
            Ok(Command::Helo(name)) => self.hello(name, false),
            Ok(Command::Mail { from, parameters }) => self.mail(from, parameters, line.is_ascii()),
            Ok(Command::Rcpt { to }) => self.rcpt(to, line.is_ascii()),
            Ok(Command::Data) => self.data(),
            Ok(Command::Rset) => self.rset(),
            Ok(Command::Noop) => self.fine(reply(OK_250, (0, 0), "ok")),
            Ok(Command::Vrfy) => self.fine(reply(CANNOT_VERIFY_252, (5, 2), "cannot verify, send some mail")),
            Ok(Command::StartTls) => self.starttls(),
            Ok(Command::Quit) => self.quit(),
            Err(error) => self.wrong(complaint(&error)),
        }
    }

    fn hello(&mut self, name: String, extended: bool) -> Option<Action> {
        let mut lines = vec![self.settings.hostname.to_string()];
        if extended {
            lines.extend(self.extensions());
        }
        self.hello = Some(Hello { name, extended });
        self.say(&Reply { code: OK_250, lines });
        self.reset();
        None
    }

    fn extensions(&self) -> Vec<String> {
        let mut extensions: Vec<String> =
            ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"].map(str::to_owned).into();
        extensions.push(format!("SIZE {}", self.settings.size_max));
        extensions.push(format!("LIMITS RCPTMAX={RECIPIENTS_MAX}"));
        if self.tls.is_some() {
            // RFC 8689 §2: not offered in the clear.
            extensions.push("REQUIRETLS".to_owned());
        } else if self.settings.starttls {
            extensions.push("STARTTLS".to_owned());
        }
        extensions
    }

    fn mail(&mut self, from: Option<Address>, parameters: MailParameters, ascii: bool) -> Option<Action> {
        if self.hello.is_none() {
            return self.wrong(reply(BAD_SEQUENCE_503, (5, 1), "say EHLO first"));
        }
        if self.transaction.is_some() {
            return self.wrong(reply(BAD_SEQUENCE_503, (5, 1), "a transaction is under way"));
        }
        if parameters.require_tls && self.tls.is_none() {
            return self.wrong(reply(PARAMETERS_UNKNOWN_555, (5, 4), "REQUIRETLS is offered under TLS only"));
        }
        if !ascii && !parameters.smtputf8 {
            return self.fine(needs_smtputf8());
        }
        // RFC 1870 §6.1.
        if parameters.size.is_some_and(|size| size > self.settings.size_max as u64) {
            return self.fine(self.too_large());
        }
        let open = Open { reverse_path: from.clone(), recipients: Vec::new(), parameters: parameters.clone() };
        self.state = State::Answer(Question::Mail(open));
        Some(Action::Mail { from, parameters })
    }

    fn rcpt(&mut self, to: ForwardPath, ascii: bool) -> Option<Action> {
        let Some(open) = &self.transaction else {
            return self.wrong(reply(BAD_SEQUENCE_503, (5, 1), "say MAIL first"));
        };
        if !ascii && !open.parameters.smtputf8 {
            return self.fine(needs_smtputf8());
        }
        if open.recipients.len() >= RECIPIENTS_MAX {
            return self.fine(reply(STORAGE_452, (5, 3), "too many recipients"));
        }
        let to = match to {
            ForwardPath::Mailbox(address) => address,
            ForwardPath::Postmaster => self.postmaster(),
        };
        self.state = State::Answer(Question::Rcpt(to.clone()));
        Some(Action::Rcpt { to })
    }

    fn postmaster(&self) -> Address {
        let localpart = Localpart::new("postmaster").expect("a valid localpart");
        Address::new(localpart, self.settings.hostname.clone())
    }

    fn data(&mut self) -> Option<Action> {
        let Some(open) = &self.transaction else {
            return self.wrong(reply(BAD_SEQUENCE_503, (5, 1), "say MAIL first"));
        };
        if open.recipients.is_empty() {
            return self.fine(reply(FAILED_554, (5, 1), "no valid recipients"));
        }
        let bytes = usize::try_from(open.parameters.size.unwrap_or(0)).unwrap_or(usize::MAX);
        self.state = State::Answer(Question::Room);
        Some(Action::Room { bytes })
    }

    fn next_data(&mut self) -> Option<Action> {
        let State::Data(reader) = &mut self.state else { unreachable!("content is being read") };
        let mut rest = &self.input[..];
        let ended = reader.read(&mut rest);
        let taken = self.input.len() - rest.len();
        let discarded = reader.discarded_bytes();
        self.input.advance(taken);
        if ended {
            return self.content_ended();
        }
        if discarded > 2 * self.settings.size_max as u64 {
            // Reading over twice what could be taken is enough of courtesy.
            self.say(&self.too_large());
            self.state = State::Closing;
            return None;
        }
        Some(Action::Read)
    }

    fn content_ended(&mut self) -> Option<Action> {
        let State::Data(reader) = std::mem::replace(&mut self.state, State::Command) else {
            unreachable!("content was being read")
        };
        let spoiled = match reader.finish() {
            Ok(data) => {
                let open = self.transaction.take().expect("a transaction is open");
                self.state = State::Answer(Question::Message);
                return Some(Action::Message { envelope: self.envelope(open), data });
            }
            Err(spoiled) => spoiled,
        };
        self.reset();
        self.fine(match spoiled {
            Spoiled::TooLarge => self.too_large(),
            Spoiled::BareLineEnd => reply(REFUSED_550, (6, 0), "CR and LF only stand together, at the end of a line"),
            Spoiled::NoRoom => no_room(),
        })
    }

    fn envelope(&self, open: Open) -> Envelope {
        let hello = self.hello.clone().expect("said hello before MAIL");
        Envelope {
            peer: self.settings.peer,
            local: self.settings.local,
            helo: hello.name,
            extended: hello.extended,
            tls: self.tls.clone(),
            reverse_path: open.reverse_path,
            recipients: open.recipients,
            smtputf8: open.parameters.smtputf8,
            eight_bit: open.parameters.body == Some(Body::EightBitMime),
            require_tls: open.parameters.require_tls,
        }
    }

    fn rset(&mut self) -> Option<Action> {
        self.say(&reply(OK_250, (0, 0), "ok"));
        self.reset();
        None
    }

    fn starttls(&mut self) -> Option<Action> {
        if self.tls.is_some() {
            return self.wrong(reply(BAD_SEQUENCE_503, (5, 1), "TLS is on already"));
        }
        if !self.settings.starttls {
            return self.wrong(complaint(&command::Error::NotImplemented));
        }
        self.say(&reply(READY_220, (0, 0), "begin TLS"));
        // RFC 3207 §6 (CVE-2011-0411): what was pipelined behind it in the clear must not count as said under TLS.
        self.input.clear();
        self.state = State::Tls;
        None
    }

    fn quit(&mut self) -> Option<Action> {
        self.say(&reply(CLOSING_221, (0, 0), "bye"));
        self.state = State::Closing;
        None
    }

    fn reset(&mut self) {
        self.state = if self.transaction.take().is_some() { State::Resetting } else { State::Command };
    }

    fn fine(&mut self, reply: Reply) -> Option<Action> {
        self.say(&reply);
        None
    }

    /// A reply to what a correct client does not send.
    fn wrong(&mut self, complaint: Reply) -> Option<Action> {
        self.errors += 1;
        if self.errors < ERRORS_MAX {
            return self.fine(complaint);
        }
        self.fine(reply(SERVICE_CLOSING_421, (7, 0), "too many errors"))
    }

    fn say(&mut self, reply: &Reply) {
        write(reply, &mut self.output);
        if reply.code == SERVICE_CLOSING_421 {
            self.state = State::Closing;
        }
    }

    fn too_large(&self) -> Reply {
        reply(TOO_LARGE_552, (3, 4), &format!("a message may have {} bytes", self.settings.size_max))
    }
}

/// Why we end a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    Shutdown,
    Timeout,
}

/// The refusal for [`Action::Room`].
pub fn no_room() -> Reply {
    reply(LOCAL_ERROR_451, (3, 1), "no room for the message now, try again later")
}

/// What a client is told that comes, or waits, when we stop.
pub fn shutting_down() -> Reply {
    reply(SERVICE_CLOSING_421, (3, 2), "shutting down, try again later")
}

/// RFC 6531 §3.5.
fn needs_smtputf8() -> Reply {
    reply(MAILBOX_NAME_553, (6, 7), "an address beyond ASCII needs the SMTPUTF8 parameter")
}

fn complaint(error: &command::Error) -> Reply {
    let (code, detail) = match error {
        command::Error::Unknown => (SYNTAX_500, (5, 1)),
        command::Error::NotImplemented => (NOT_IMPLEMENTED_502, (5, 1)),
        command::Error::Argument(_) => (ARGUMENT_SYNTAX_501, (5, 4)),
        command::Error::ParameterUnknown(_) => (PARAMETERS_UNKNOWN_555, (5, 4)),
        command::Error::Address(_) => (ARGUMENT_SYNTAX_501, (1, 3)),
    };
    reply(code, detail, &error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::smtp::tls::Verification;

    const SIZE_MAX: usize = 1000;

    fn session() -> Session {
        let hostname = Domain::new("mx.example").unwrap();
        let (peer, local) = ("192.0.2.1:9".parse().unwrap(), "192.0.2.2:25".parse().unwrap());
        let mut session = Session::new(Settings { hostname, size_max: SIZE_MAX, starttls: true, peer, local });
        assert_eq!(session.take_output(), b"220 mx.example ESMTP\r\n");
        session
    }

    /// What a handler would say that refuses localparts that start with `no`.
    fn judge(address: Option<&Address>) -> Result<(), Reply> {
        match address.is_some_and(|address| address.localpart.as_str().starts_with("no")) {
            true => Err(reply(REFUSED_550, (1, 1), "not here")),
            false => Ok(()),
        }
    }

    /// Does what the session asks for until it wants to read or ends; what happened, with actions in brackets.
    fn act(session: &mut Session) -> String {
        let mut seen = String::new();
        loop {
            let action = session.next_action();
            seen.push_str(&String::from_utf8(session.take_output()).unwrap());
            match action {
                Action::Read => return seen,
                Action::Close => return seen + "[close]",
                Action::Mail { from, .. } => session.answer(judge(from.as_ref())),
                Action::Rcpt { to } => session.answer(judge(Some(&to))),
                Action::Room { .. } => session.answer(Ok(())),
                Action::Reset => seen.push_str("[reset]"),
                Action::StartTls => {
                    seen.push_str("[tls]");
                    session.secured(tls());
                }
                Action::Message { envelope, data } => {
                    let to: Vec<String> = envelope.recipients.iter().map(Address::to_string).collect();
                    seen.push_str(&format!("[{} {:?}]", to.join(" "), String::from_utf8(data).unwrap()));
                    session.answer_message(&reply(OK_250, (0, 0), "taken"));
                }
            }
        }
    }

    fn tls() -> TlsFacts {
        TlsFacts { protocol: "TLSv1.3".into(), cipher: "X".into(), verification: Verification::None }
    }

    /// Each part is received at once; replies without CR.
    fn talk(parts: &[&[u8]]) -> String {
        let mut session = session();
        let mut seen = String::new();
        for part in parts {
            session.receive(part);
            seen.push_str(&act(&mut session));
            if seen.ends_with("[close]") {
                break;
            }
        }
        seen.replace("\r\n", "\n")
    }

    /// The same whether it comes at once or byte by byte.
    fn check(input: &str, expect: &str) {
        assert_eq!(talk(&[input.as_bytes()]), expect, "{input:?}");
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(talk(&bytes), expect, "{input:?} byte by byte");
    }

    const HELO: &str = "HELO c.example\r\n";
    const HELLO: &str = "250 mx.example\n";

    /// After HELO.
    fn check_greeted(input: &str, expect: &str) {
        check(&format!("{HELO}{input}"), &format!("{HELLO}{expect}"));
    }

    #[test]
    fn a_message() {
        check_greeted(
            "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<no@y.example>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n\
             S: x\r\n\r\n..\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\nNOOP\r\n",
            "250 2.1.0 sender ok\n250 2.1.5 recipient ok\n550 5.1.1 not here\n250 2.1.5 recipient ok\n\
             354 end with <CRLF>.<CRLF>\n[b@y.example postmaster@mx.example \"S: x\\r\\n\\r\\n.\\r\\n\"]250 2.0.0 taken\n\
             250 2.1.0 sender ok\n221 2.0.0 bye\n[close]",
        );
    }

    #[test]
    fn the_envelope() {
        let mut session = session();
        session.receive(b"EHLO c.example\r\nSTARTTLS\r\n");
        act(&mut session);
        session.receive(
            "EHLO d.example\r\nMAIL FROM:<ü@x.example> SMTPUTF8 BODY=8BITMIME REQUIRETLS SIZE=3\r\nRCPT TO:<é@y.example>\r\nDATA\r\n.\r\n"
                .as_bytes(),
        );
        let envelope = loop {
            match session.next_action() {
                Action::Mail { from, parameters } => {
                    assert_eq!(from.unwrap().to_string(), "ü@x.example");
                    assert_eq!(parameters.size, Some(3));
                    session.answer(Ok(()));
                }
                Action::Room { bytes } => {
                    assert_eq!(bytes, 3);
                    session.answer(Ok(()));
                }
                Action::Rcpt { .. } => session.answer(Ok(())),
                Action::Message { envelope, data } => {
                    assert_eq!(data, b"");
                    break envelope;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((envelope.helo.as_str(), envelope.extended, envelope.tls), ("d.example", true, Some(tls())));
        assert_eq!((envelope.smtputf8, envelope.eight_bit, envelope.require_tls), (true, true, true));
        assert_eq!(envelope.peer, "192.0.2.1:9".parse().unwrap());
    }

    #[test]
    fn what_is_offered() {
        let extensions = "250-PIPELINING\n250-8BITMIME\n250-SMTPUTF8\n250-ENHANCEDSTATUSCODES\n250-SIZE 1000\n\
                          250-LIMITS RCPTMAX=1000\n";
        check("EHLO c\r\n", &format!("250-mx.example\n{extensions}250 STARTTLS\n"));
        let secured = talk(&[b"EHLO c\r\nSTARTTLS\r\n", b"EHLO c\r\n"]);
        let secured = secured.split_once("[tls]").unwrap().1;
        assert_eq!(secured, format!("250-mx.example\n{extensions}250 REQUIRETLS\n"));
    }

    #[test]
    fn wrong_order() {
        check("MAIL FROM:<>\r\n", "503 5.5.1 say EHLO first\n");
        check_greeted("RCPT TO:<a@x>\r\n", "503 5.5.1 say MAIL first\n");
        check_greeted("DATA\r\n", "503 5.5.1 say MAIL first\n");
        let sender = "250 2.1.0 sender ok\n";
        check_greeted("MAIL FROM:<>\r\nMAIL FROM:<>\r\n", &format!("{sender}503 5.5.1 a transaction is under way\n"));
        check_greeted("MAIL FROM:<>\r\nDATA\r\n", &format!("{sender}554 5.5.1 no valid recipients\n"));
        check_greeted("MAIL FROM:<no@x>\r\nRCPT TO:<a@x>\r\n", "550 5.1.1 not here\n503 5.5.1 say MAIL first\n");
        check_greeted(
            "MAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@x>\r\n",
            &format!("{sender}250 2.0.0 ok\n[reset]503 5.5.1 say MAIL first\n"),
        );
        check_greeted("MAIL FROM:<>\r\nHELO c\r\nMAIL FROM:<>\r\n", &format!("{sender}{HELLO}[reset]{sender}"));
    }

    #[test]
    fn wrong_commands() {
        check("VRFY x\r\n", "252 2.5.2 cannot verify, send some mail\n");
        check("NOOP x\r\n", "250 2.0.0 ok\n");
        check("XYZ\r\n", "500 5.5.1 command not recognized\n");
        check("EXPN x\r\n", "502 5.5.1 command not implemented\n");
        check("EHLO\r\n", "501 5.5.4 a host name or address literal is missing\n");
        check_greeted("MAIL FROM:<a>\r\n", "501 5.1.3 invalid email address: expected @\n");
        check_greeted("MAIL FROM:<> XYZ=1\r\n", "555 5.5.4 parameter XYZ not recognized\n");
        check_greeted("MAIL FROM:<> REQUIRETLS\r\n", "555 5.5.4 REQUIRETLS is offered under TLS only\n");
        let utf8 = "553 5.6.7 an address beyond ASCII needs the SMTPUTF8 parameter\n";
        check_greeted("MAIL FROM:<ü@x>\r\n", utf8);
        check_greeted("MAIL FROM:<>\r\nRCPT TO:<a@ü.example>\r\n", &format!("250 2.1.0 sender ok\n{utf8}"));
        check_greeted("MAIL FROM:<> SIZE=1001\r\n", "552 5.3.4 a message may have 1000 bytes\n");
        assert_eq!(talk(&[b"NOOP \xff\r\nNOOP\r\n"]), "500 5.5.2 not UTF-8\n250 2.0.0 ok\n");
    }

    #[test]
    fn line_ends_and_lengths() {
        let refusal = "500 5.5.2 lines end in CRLF, and CR and LF stand nowhere else\n[close]";
        check("NOOP\nNOOP\r\n", refusal);
        check("NOOP\rNOOP\r\n", refusal);
        check("NOOP\r\r\n", refusal);
        check("\n", refusal);
        let fits = format!("NOOP {}\r\n", "x".repeat(LINE_BYTES_MAX - 7));
        check(&fits, "250 2.0.0 ok\n");
        let overlong = format!("NOOP {}\r\nNOOP\r\n", "x".repeat(LINE_BYTES_MAX - 6));
        check(&overlong, "500 5.5.2 line too long\n250 2.0.0 ok\n");
        let mut session = session();
        for _ in 0..100 {
            session.receive(&[b'x'; 1000]);
            act(&mut session);
            assert!(session.input.len() <= LINE_BYTES_MAX);
        }
    }

    #[test]
    fn limits() {
        let many = format!("MAIL FROM:<>\r\n{}", "RCPT TO:<a@x>\r\n".repeat(RECIPIENTS_MAX + 1));
        let seen = talk(&[HELO.as_bytes(), many.as_bytes()]);
        assert_eq!(seen.matches("250 2.1.5").count(), RECIPIENTS_MAX);
        assert!(seen.ends_with("452 4.5.3 too many recipients\n"));

        let errors = "XYZ\r\n".repeat(ERRORS_MAX as usize + 1);
        let seen = talk(&[errors.as_bytes()]);
        assert_eq!(seen.matches("500 5.5.1").count(), ERRORS_MAX as usize - 1);
        assert!(seen.ends_with("421 4.7.0 too many errors\n[close]"));
        // Refused recipients are no errors of protocol.
        let refused = format!("MAIL FROM:<>\r\n{}", "RCPT TO:<no@x>\r\n".repeat(50));
        assert_eq!(talk(&[HELO.as_bytes(), refused.as_bytes()]).matches("550 5.1.1").count(), 50);
    }

    #[test]
    fn spoiled_content() {
        let check = |content: &str, expect: &str| {
            check_greeted(
                &format!("MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n{content}\r\n.\r\nNOOP\r\n"),
                &format!("250 2.1.0 sender ok\n250 2.1.5 recipient ok\n354 end with <CRLF>.<CRLF>\n{expect}"),
            );
        };
        let bare = "550 5.6.0 CR and LF only stand together, at the end of a line\n[reset]250 2.0.0 ok\n";
        for smuggled in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n"] {
            check(&format!("x{smuggled}MAIL FROM:<evil@x>"), bare);
        }
        check(&"x".repeat(SIZE_MAX - 1), "552 5.3.4 a message may have 1000 bytes\n[reset]250 2.0.0 ok\n");
        let endless = format!("DATA\r\n{}", "x".repeat(2 * SIZE_MAX + 1));
        let seen = talk(&[HELO.as_bytes(), b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\n", endless.as_bytes()]);
        assert!(seen.ends_with("552 5.3.4 a message may have 1000 bytes\n[close]"), "{seen}");
    }

    #[test]
    fn no_room_for_content() {
        let mut session = session();
        session.receive(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\nabc");
        act(&mut session);
        assert_eq!(session.held_bytes(), Some(3));
        session.refuse_content();
        assert_eq!((session.held_bytes(), session.is_receiving()), (None, true));
        session.receive(b"def\r\n.\r\n");
        assert_eq!(act(&mut session), "451 4.3.1 no room for the message now, try again later\r\n[reset]");

        session.receive(b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n");
        loop {
            match session.next_action() {
                Action::Room { .. } => break session.answer(Err(no_room())),
                _ => session.answer(Ok(())),
            }
        }
        assert!(act(&mut session).ends_with("451 4.3.1 no room for the message now, try again later\r\n"));
    }

    #[test]
    fn tls_begins_anew() {
        // What is pipelined behind STARTTLS in the clear is as if it had not been sent.
        let seen = talk(&[b"EHLO c\r\nSTARTTLS\r\nEHLO evil\r\nMAIL FROM:<>\r\n", b"MAIL FROM:<>\r\nSTARTTLS\r\n"]);
        let seen = seen.split_once("250 STARTTLS\n").unwrap().1;
        assert_eq!(seen, "220 2.0.0 begin TLS\n[tls]503 5.5.1 say EHLO first\n503 5.5.1 TLS is on already\n");
    }

    #[test]
    fn endings() {
        let mut session = session();
        session.close(Closing::Shutdown);
        assert_eq!(act(&mut session), "421 4.3.2 shutting down, try again later\r\n[close]");
        let mut session = self::session();
        session.close(Closing::Timeout);
        assert_eq!(act(&mut session), "421 4.4.2 timeout, closing the connection\r\n[close]");
        let mut session = self::session();
        session.receive(b"HELO c\r\nMAIL FROM:<>\r\n");
        let asked = session.next_action();
        assert!(matches!(asked, Action::Mail { .. }), "{asked:?}");
        session.answer(Err(shutting_down()));
        assert!(act(&mut session).ends_with("421 4.3.2 shutting down, try again later\r\n[close]"));
    }

    const PIECES: [&str; 16] = [
        "EHLO c\r\n",
        "HELO c\r\n",
        "MAIL FROM:<a@x>\r\n",
        "MAIL FROM:<no@x>\r\n",
        "RCPT TO:<b@x>\r\n",
        "DATA\r\n",
        "text\r\n",
        "RSET\r\n",
        "QUIT\r\n",
        ".\r\n",
        "..\r\n",
        ".",
        "\r\n",
        "\r",
        "\n",
        "RCPT TO:<\"a>",
    ];

    proptest! {
        /// Any order of commands and content, received in parts of any size: no panic, and always the same answers.
        #[test]
        fn parts_make_no_difference(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30), size in 1usize..20) {
            let input = format!("{HELO}MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n{}", pieces.concat());
            let parts: Vec<&[u8]> = input.as_bytes().chunks(size).collect();
            prop_assert_eq!(talk(&parts), talk(&[input.as_bytes()]));
        }
    }
}
