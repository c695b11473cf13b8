//! From a fresh connection to a session that takes mail: greeting, EHLO, STARTTLS, AUTH.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postledger_events::address::Domain;
use postledger_events::reply::Reply;
use zeroize::Zeroizing;

use super::{Capabilities, Phase, ehlo, line};
use crate::smtp::reply::{
    ARGUMENT_SYNTAX_501, AUTHENTICATED_235, BAD_SEQUENCE_503, NOT_IMPLEMENTED_502, OK_250,
    PARAMETER_NOT_IMPLEMENTED_504, READY_220, SERVICE_CLOSING_421, SYNTAX_500,
};

/// What the session must come to.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ehlo_name: Domain,
    pub encryption: Encryption,
    /// TLS, where it is used, proves that the peer is the host asked for.
    pub verified: bool,
    pub auth: Option<Credentials>,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    Never,
    IfOffered,
    StartTls,
    /// Before the first byte of SMTP (RFC 8314 §3).
    Implicit,
}

/// For AUTH PLAIN (RFC 4616).
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The session so far.
#[derive(Debug)]
pub struct Handshake {
    plan: Plan,
    waiting: Waiting,
    secure: bool,
    greeting: Option<Reply>,
    ehlo: Option<Reply>,
    capabilities: Capabilities,
}

/// What is to come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Tls,
    Auth,
    Nothing,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read a reply within the limit of the phase.
    Read(Phase),
    /// Write this, then read a reply.
    Send(Zeroizing<Vec<u8>>, Phase),
    /// Begin TLS, then call [`Handshake::secured`].
    Tls,
    /// The session takes mail.
    Ready,
}

impl Handshake {
    pub fn start(plan: Plan) -> (Handshake, Step) {
        let implicit = plan.encryption == Encryption::Implicit;
        let (waiting, step) =
            if implicit { (Waiting::Tls, Step::Tls) } else { (Waiting::Greeting, Step::Read(Phase::Greeting)) };
        let capabilities = Capabilities::default();
        (Handshake { plan, waiting, secure: false, greeting: None, ehlo: None, capabilities }, step)
    }

    /// TLS stands.
    pub fn secured(&mut self) -> Step {
        assert_eq!(self.waiting, Waiting::Tls, "TLS was not asked for");
        self.secure = true;
        if self.plan.encryption == Encryption::Implicit {
            self.waiting = Waiting::Greeting;
            return Step::Read(Phase::Greeting);
        }
        // RFC 3207 §4.2: all that was learnt in the clear is forgotten.
        self.capabilities = Capabilities::default();
        self.hello()
    }

    /// A reply came; `more` says that further bytes came with it.
    pub fn reply(&mut self, reply: Reply, more: bool) -> Result<Step, Error> {
        match self.waiting {
            Waiting::Greeting => self.greeted(reply),
            Waiting::Ehlo => self.answered_ehlo(reply),
            Waiting::Helo => self.answered_helo(reply),
            Waiting::StartTls => self.answered_starttls(reply, more),
            Waiting::Auth => self.answered_auth(reply),
            Waiting::Tls | Waiting::Nothing => unreachable!("no reply was asked for"),
        }
    }

    /// Greeting, answer to EHLO, and what it offers; once ready.
    pub fn finish(self) -> (Reply, Reply, Capabilities) {
        assert_eq!(self.waiting, Waiting::Nothing, "the session is not ready");
        (self.greeting.expect("was greeted"), self.ehlo.expect("said EHLO"), self.capabilities)
    }

    fn greeted(&mut self, reply: Reply) -> Result<Step, Error> {
        if reply.code != READY_220 {
            return Err(Error::refused(Phase::Greeting, reply));
        }
        self.greeting = Some(reply);
        Ok(self.hello())
    }

    fn hello(&mut self) -> Step {
        self.waiting = Waiting::Ehlo;
        Step::Send(ehlo("EHLO", &self.plan.ehlo_name).into(), Phase::Ehlo)
    }

    fn answered_ehlo(&mut self, reply: Reply) -> Result<Step, Error> {
        let unknown =
            [SYNTAX_500, ARGUMENT_SYNTAX_501, NOT_IMPLEMENTED_502, BAD_SEQUENCE_503, PARAMETER_NOT_IMPLEMENTED_504];
        // RFC 5321 §3.2. A server that does STARTTLS knows EHLO, so there is no way back from there.
        if unknown.contains(&reply.code) && !self.secure {
            self.waiting = Waiting::Helo;
            return Ok(Step::Send(ehlo("HELO", &self.plan.ehlo_name).into(), Phase::Ehlo));
        }
        if reply.code != OK_250 {
            return Err(Error::refused(Phase::Ehlo, reply));
        }
        self.capabilities = Capabilities::parse(&reply);
        self.ehlo = Some(reply);
        self.after_hello()
    }

    fn answered_helo(&mut self, reply: Reply) -> Result<Step, Error> {
        if reply.code != OK_250 {
            return Err(Error::refused(Phase::Ehlo, reply));
        }
        self.ehlo = Some(reply);
        self.after_hello()
    }

    fn after_hello(&mut self) -> Result<Step, Error> {
        let starttls = !self.secure
            && match self.plan.encryption {
                Encryption::Never | Encryption::Implicit => false,
                Encryption::IfOffered => self.capabilities.starttls,
                // Asked for even if it is not offered: the refusal is the server's own word then.
                Encryption::StartTls => true,
            };
        if starttls {
            self.waiting = Waiting::StartTls;
            return Ok(Step::Send(line("STARTTLS".into()).into(), Phase::StartTls));
        }
        self.authenticate()
    }

    fn answered_starttls(&mut self, reply: Reply, more: bool) -> Result<Step, Error> {
        if reply.code == READY_220 && more {
            // RFC 3207 §6 (CVE-2011-0411): what came in the clear must not be taken for what TLS protects.
            return Err(Error::broken(
                Phase::StartTls,
                "the peer sent more in the clear behind its answer to STARTTLS",
            ));
        }
        if reply.code == READY_220 {
            self.waiting = Waiting::Tls;
            return Ok(Step::Tls);
        }
        if self.plan.encryption == Encryption::IfOffered && reply.code != SERVICE_CLOSING_421 {
            return self.authenticate();
        }
        Err(Error::refused(Phase::StartTls, reply))
    }

    fn authenticate(&mut self) -> Result<Step, Error> {
        let Some(credentials) = &self.plan.auth else {
            self.waiting = Waiting::Nothing;
            return Ok(Step::Ready);
        };
        if !(self.secure && self.plan.verified) {
            return Err(Error::operator("a password is only sent over verified TLS, and this connection is not"));
        }
        if !self.capabilities.auth.iter().any(|mechanism| mechanism == "PLAIN") {
            return Err(Error::operator("the remote server does not offer AUTH PLAIN"));
        }
        let step = Step::Send(plain(credentials)?, Phase::Auth);
        self.waiting = Waiting::Auth;
        Ok(step)
    }

    fn answered_auth(&mut self, reply: Reply) -> Result<Step, Error> {
        if reply.code == AUTHENTICATED_235 {
            self.waiting = Waiting::Nothing;
            return Ok(Step::Ready);
        }
        let fault = if reply.is_permanent() { Fault::Operator } else { Fault::Peer };
        Err(Error { fault, ..Error::refused(Phase::Auth, reply) })
    }
}

/// RFC 4616 §2 with the initial response of RFC 4954 §4.
fn plain(credentials: &Credentials) -> Result<Zeroizing<Vec<u8>>, Error> {
    let Credentials { username, password } = credentials;
    if username.is_empty() || username.contains('\0') || password.contains('\0') {
        return Err(Error::operator("the user name is empty, or it or the password holds a NUL"));
    }
    let message = Zeroizing::new(format!("\0{username}\0{}", password.as_str()));
    let encoded = Zeroizing::new(STANDARD.encode(message.as_bytes()));
    Ok(line(format!("AUTH PLAIN {}", encoded.as_str())).into())
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub phase: Phase,
    pub fault: Fault,
    pub text: String,
    /// The peer's own word, where it said one.
    pub reply: Option<Reply>,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer refused or broke the protocol.
    Peer,
    Network,
    /// The operator's configuration does not fit.
    Operator,
}

impl Error {
    /// The peer said so for good; all else is worth another try, once the operator has done their part.
    pub fn is_permanent(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_permanent)
    }

    pub(in crate::smtp) fn broken(phase: Phase, text: impl Into<String>) -> Error {
        Error { phase, fault: Fault::Peer, text: text.into(), reply: None }
    }

    pub(in crate::smtp) fn network(phase: Phase, text: impl Into<String>) -> Error {
        Error { phase, fault: Fault::Network, text: text.into(), reply: None }
    }

    fn operator(text: &str) -> Error {
        Error { phase: Phase::Auth, fault: Fault::Operator, text: text.to_owned(), reply: None }
    }

    fn refused(phase: Phase, reply: Reply) -> Error {
        Error { phase, fault: Fault::Peer, text: "the remote server refused".to_owned(), reply: Some(reply) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase.as_str(), self.text)?;
        match &self.reply {
            Some(reply) => write!(f, ": {reply}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(encryption: Encryption, verified: bool, auth: bool) -> Plan {
        let credentials = Credentials { username: "u".into(), password: Zeroizing::new("p".into()) };
        let ehlo_name = Domain::new("c.example").unwrap();
        Plan { ehlo_name, encryption, verified, auth: auth.then_some(credentials) }
    }

    /// Runs it against these replies, `|` between their lines; what was sent, and how it ended. `more` stands behind a reply
    /// that came with further bytes.
    fn run(plan: Plan, replies: &[&str]) -> String {
        let (mut handshake, mut step) = Handshake::start(plan);
        let (mut seen, mut replies) = (Vec::new(), replies.iter());
        loop {
            match step {
                Step::Ready => {
                    seen.push("ready".to_owned());
                    let (_, ehlo, _) = handshake.finish();
                    seen.push(ehlo.lines[0].clone());
                    return seen.join(", ");
                }
                Step::Tls => {
                    seen.push("tls".to_owned());
                    step = handshake.secured();
                    continue;
                }
                Step::Read(_) => {}
                Step::Send(bytes, _) => seen.push(String::from_utf8(bytes.to_vec()).unwrap().trim_end().to_owned()),
            }
            let (reply, more) = parse(replies.next().expect("a reply for every read"));
            step = match handshake.reply(reply, more) {
                Ok(step) => step,
                Err(error) => {
                    seen.push(format!("{:?} {error} permanent={}", error.fault, error.is_permanent()));
                    return seen.join(", ");
                }
            };
        }
    }

    fn parse(text: &str) -> (Reply, bool) {
        let (text, more) = text.strip_suffix(" more").map_or((text, false), |text| (text, true));
        (Reply { code: text[..3].parse().unwrap(), lines: text[4..].split('|').map(str::to_owned).collect() }, more)
    }

    #[test]
    fn in_the_clear() {
        let check =
            |replies: &[&str], expect: &str| assert_eq!(run(plan(Encryption::Never, false, false), replies), expect);
        check(&["220 hi", "250 mx|STARTTLS"], "EHLO c.example, ready, mx");
        check(&["554 no"], "Peer greeting: the remote server refused: 554 no permanent=true");
        check(&["421 busy"], "Peer greeting: the remote server refused: 421 busy permanent=false");
        for code in [500, 501, 502, 503, 504] {
            check(&["220 hi", &format!("{code} what"), "250 old"], "EHLO c.example, HELO c.example, ready, old");
        }
        let refused = "EHLO c.example, Peer EHLO: the remote server refused: 550 no permanent=true";
        check(&["220 hi", "550 no"], refused);
        check(&["220 hi", "500 what", "550 no"], &refused.replace("EHLO c.example", "EHLO c.example, HELO c.example"));
    }

    #[test]
    fn starttls() {
        let check = |encryption, replies: &[&str], expect: &str| {
            assert_eq!(run(plan(encryption, true, false), replies), expect)
        };
        let offered = ["220 hi", "250 mx|STARTTLS"];
        let with = |rest: &[&'static str]| [&offered[..], rest].concat();
        let done = "EHLO c.example, STARTTLS, tls, EHLO c.example, ready, mx2";
        check(Encryption::IfOffered, &with(&["220 go", "250 mx2"]), done);
        check(Encryption::StartTls, &with(&["220 go", "250 mx2"]), done);
        check(Encryption::IfOffered, &["220 hi", "250 mx"], "EHLO c.example, ready, mx");
        check(Encryption::IfOffered, &with(&["454 not now"]), "EHLO c.example, STARTTLS, ready, mx");
        let refused = "EHLO c.example, STARTTLS, Peer STARTTLS: the remote server refused: ";
        check(Encryption::IfOffered, &with(&["421 bye"]), &format!("{refused}421 bye permanent=false"));
        check(Encryption::StartTls, &with(&["454 not now"]), &format!("{refused}454 not now permanent=false"));
        check(Encryption::StartTls, &["220 hi", "250 mx", "502 no"], &format!("{refused}502 no permanent=true"));
        check(Encryption::Implicit, &["220 hi", "250 mx"], "tls, EHLO c.example, ready, mx");
        // A server that does STARTTLS knows EHLO: an answer to the contrary does not lead back to HELO.
        let later = "EHLO c.example, STARTTLS, tls, EHLO c.example, Peer EHLO: the remote server refused: 500 no permanent=true";
        check(Encryption::StartTls, &with(&["220 go", "500 no"]), later);
    }

    #[test]
    fn nothing_may_come_in_the_clear_behind_starttls() {
        let expect = "EHLO c.example, STARTTLS, Peer STARTTLS: the peer sent more in the clear behind its answer to STARTTLS \
                      permanent=false";
        for encryption in [Encryption::IfOffered, Encryption::StartTls] {
            assert_eq!(run(plan(encryption, true, false), &["220 hi", "250 mx|STARTTLS", "220 go more"]), expect);
        }
    }

    #[test]
    fn authentication() {
        let check = |encryption, verified, replies: &[&str], expect: &str| {
            assert_eq!(run(plan(encryption, verified, true), replies), expect);
        };
        let ready = ["220 hi", "250 mx|AUTH LOGIN PLAIN"];
        let with = |rest: &[&'static str]| [&ready[..], rest].concat();
        let sent = "tls, EHLO c.example, AUTH PLAIN AHUAcA==, ";
        check(Encryption::Implicit, true, &with(&["235 ok"]), &format!("{sent}ready, mx"));
        let refused = format!("{sent}Operator AUTH: the remote server refused: 535 wrong permanent=true");
        check(Encryption::Implicit, true, &with(&["535 wrong"]), &refused);
        let later = format!("{sent}Peer AUTH: the remote server refused: 454 later permanent=false");
        check(Encryption::Implicit, true, &with(&["454 later"]), &later);
        let clear =
            "Operator AUTH: a password is only sent over verified TLS, and this connection is not permanent=false";
        check(Encryption::Implicit, false, &ready, &format!("tls, EHLO c.example, {clear}"));
        check(Encryption::Never, true, &ready, &format!("EHLO c.example, {clear}"));
        check(Encryption::IfOffered, true, &ready, &format!("EHLO c.example, {clear}"));
        let absent = "tls, EHLO c.example, Operator AUTH: the remote server does not offer AUTH PLAIN permanent=false";
        check(Encryption::Implicit, true, &["220 hi", "250 mx|AUTH LOGIN"], absent);
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", plan(Encryption::Never, false, true));
        assert!(shown.contains("Credentials") && !shown.contains("\"p\""), "{shown}");
    }
}
