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
        self.input.clear();
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
