//! Command lines, as a server reads them (RFC 5321 §4.1.1 with the parameters of the extensions that we announce).
//!
//! Parsed by hand: what a line means must not depend on how generous a general parser is.

use std::fmt;

use postledger_events::address::Address;

/// Octets of one command line with its CRLF: the 512 of RFC 5321 §4.5.3.1.4, and room for what extensions add.
pub const LINE_BYTES_MAX: usize = 2048;

/// A command of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Ehlo(String),
    Helo(String),
    Mail { from: Option<Address>, parameters: MailParameters },
    Rcpt { to: ForwardPath },
    Data,
    Rset,
    Noop,
    Vrfy,
    StartTls,
    Quit,
}

/// Where RCPT points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    Mailbox(Address),
    /// `<Postmaster>` without a domain: the postmaster of this host (RFC 5321 §4.5.1).
    Postmaster,
}

/// The parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// RFC 1870 §6: the size as the client reckons it.
    pub size: Option<u64>,
    pub body: Option<Body>,
    /// RFC 6531 §3.4.
    pub smtputf8: bool,
    /// RFC 8689 §2.
    pub require_tls: bool,
}

/// RFC 6152 §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    SevenBit,
    EightBitMime,
}

impl Command {
    /// `line` is without its CRLF, and holds no other line end.
    pub fn parse(line: &str) -> Result<Command, Error> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_matches(' ');
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => host(rest).map(Command::Ehlo),
            "HELO" => host(rest).map(Command::Helo),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => alone(rest, Command::Data),
            "RSET" => alone(rest, Command::Rset),
            "NOOP" => Ok(Command::Noop),
            "VRFY" if rest.is_empty() => Err(Error::Argument("VRFY takes a name")),
            "VRFY" => Ok(Command::Vrfy),
            "STARTTLS" => alone(rest, Command::StartTls),
            "QUIT" => alone(rest, Command::Quit),
            "EXPN" | "HELP" | "TURN" | "ETRN" | "AUTH" | "BDAT" | "SEND" | "SOML" | "SAML" => {
                Err(Error::NotImplemented)
            }
            _ => Err(Error::Unknown),
        }
    }
}

fn alone(rest: &str, command: Command) -> Result<Command, Error> {
    if rest.is_empty() { Ok(command) } else { Err(Error::Argument("this command takes no argument")) }
}

/// What a client calls itself. It is only written down, so any visible word will do.
fn host(name: &str) -> Result<String, Error> {
    let fine = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if fine { Ok(name.to_owned()) } else { Err(Error::Argument("a host name or address literal is missing")) }
}

fn mail(rest: &str) -> Result<Command, Error> {
    let (path, parameters) = path(rest, "FROM:")?;
    let from = if path.is_empty() { None } else { Some(mailbox(path)?) };
    Ok(Command::Mail { from, parameters: mail_parameters(parameters)? })
}

fn rcpt(rest: &str) -> Result<Command, Error> {
    let (path, parameters) = path(rest, "TO:")?;
    if let Some(parameter) = parameters.split_ascii_whitespace().next() {
        return Err(Error::ParameterUnknown(keyword(parameter).to_owned()));
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(Command::Rcpt { to: ForwardPath::Postmaster });
    }
    Ok(Command::Rcpt { to: ForwardPath::Mailbox(mailbox(path)?) })
}

/// What stands in the angle brackets behind `prefix`, and what stands behind them. Spaces behind the colon are wrong but
/// in use (RFC 5321 §3.3), and harmless.
fn path<'a>(rest: &'a str, prefix: &'static str) -> Result<(&'a str, &'a str), Error> {
    let bad = Error::Argument(if prefix == "TO:" { "expected TO:<address>" } else { "expected FROM:<address>" });
    let head = rest.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).ok_or(bad.clone())?;
    let inner = rest[head.len()..].trim_start_matches(' ').strip_prefix('<').ok_or(bad.clone())?;
    let end = closing_bracket(inner).ok_or(bad.clone())?;
    let (path, after) = (&inner[..end], &inner[end + 1..]);
    if !after.is_empty() && !after.starts_with(' ') {
        return Err(bad);
    }
    Ok((path, after))
}

/// The first `>` that is not within a quoted localpart.
fn closing_bracket(s: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, b) in s.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// RFC 5321 §4.1.1.3: a source route is to be accepted, and ignored.
fn mailbox(path: &str) -> Result<Address, Error> {
    let mailbox = match path.strip_prefix('@') {
        Some(route) => route.split_once(':').ok_or(Error::Argument("source route without a mailbox"))?.1,
        None => path,
    };
    Address::parse_path(mailbox).map_err(|e| Error::Address(e.to_string()))
}

fn mail_parameters(s: &str) -> Result<MailParameters, Error> {
    let mut parameters = MailParameters::default();
    for parameter in s.split_ascii_whitespace() {
        let value = parameter.split_once('=').map(|(_, value)| value);
        match (keyword(parameter).to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(value)) => once(&mut parameters.size, size(value)?)?,
            ("BODY", Some(value)) => once(&mut parameters.body, body(value)?)?,
            ("SMTPUTF8", None) => flag(&mut parameters.smtputf8)?,
            ("REQUIRETLS", None) => flag(&mut parameters.require_tls)?,
            ("SIZE" | "BODY", None) => return Err(Error::Argument("parameter without a value")),
            ("SMTPUTF8" | "REQUIRETLS", Some(_)) => return Err(Error::Argument("parameter takes no value")),
            (other, _) => return Err(Error::ParameterUnknown(other.to_owned())),
        }
    }
    Ok(parameters)
}

fn keyword(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or(parameter)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(TWICE),
    }
}

fn flag(slot: &mut bool) -> Result<(), Error> {
    if std::mem::replace(slot, true) { Err(TWICE) } else { Ok(()) }
}

const TWICE: Error = Error::Argument("parameter given twice");

/// RFC 1870 §3: up to 20 digits.
fn size(value: &str) -> Result<u64, Error> {
    let digits = (1..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(Error::Argument("SIZE takes a number"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Result<Body, Error> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(Error::Argument("BODY takes 7BIT or 8BITMIME")),
    }
}

/// What is wrong with a command line. All of it is the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Unknown,
    NotImplemented,
    Argument(&'static str),
    ParameterUnknown(String),
    Address(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unknown => f.write_str("command not recognized"),
            Error::NotImplemented => f.write_str("command not implemented"),
            Error::Argument(what) => f.write_str(what),
            Error::ParameterUnknown(keyword) => write!(f, "parameter {keyword} not recognized"),
            Error::Address(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expect: Result<Command, Error>) {
        assert_eq!(Command::parse(line), expect, "{line:?}");
    }

    fn mail(from: &str, parameters: MailParameters) -> Result<Command, Error> {
        let from = if from.is_empty() { None } else { Some(Address::parse_path(from).unwrap()) };
        Ok(Command::Mail { from, parameters })
    }

    fn rcpt(to: &str) -> Result<Command, Error> {
        Ok(Command::Rcpt { to: ForwardPath::Mailbox(Address::parse_path(to).unwrap()) })
    }

    #[test]
    fn verbs() {
        check("EHLO a.example", Ok(Command::Ehlo("a.example".into())));
        check("ehlo [127.0.0.1] ", Ok(Command::Ehlo("[127.0.0.1]".into())));
        check("HELO x_y", Ok(Command::Helo("x_y".into())));
        check("EHLO", Err(Error::Argument("a host name or address literal is missing")));
        check("EHLO a b", Err(Error::Argument("a host name or address literal is missing")));
        check("DATA", Ok(Command::Data));
        check("data ", Ok(Command::Data));
        check("DATA x", Err(Error::Argument("this command takes no argument")));
        check("RSET", Ok(Command::Rset));
        check("NOOP whatever", Ok(Command::Noop));
        check("VRFY x", Ok(Command::Vrfy));
        check("VRFY", Err(Error::Argument("VRFY takes a name")));
        check("STARTTLS", Ok(Command::StartTls));
        check("QUIT", Ok(Command::Quit));
        check("EXPN x", Err(Error::NotImplemented));
        check("MAI", Err(Error::Unknown));
        check("", Err(Error::Unknown));
        check(" NOOP", Err(Error::Unknown));
        check("NOOP\t", Err(Error::Unknown));
    }

    #[test]
    fn paths() {
        let none = MailParameters::default;
        check("MAIL FROM:<a@x.example>", mail("a@x.example", none()));
        check("mail from: <a@x.example> ", mail("a@x.example", none()));
        check("MAIL FROM:<>", mail("", none()));
        check("RCPT TO:<\"a >b\"@x.example>", rcpt("\"a >b\"@x.example"));
        check("RCPT TO:<\"a\\\">b\"@x.example>", rcpt("\"a\\\">b\"@x.example"));
        check("RCPT TO:<@h.example,@i.example:a@[127.0.0.1]>", rcpt("a@[127.0.0.1]"));
        check("RCPT TO:<postMaster>", Ok(Command::Rcpt { to: ForwardPath::Postmaster }));
        let expected_to = || Err(Error::Argument("expected TO:<address>"));
        check("RCPT TO:a@x.example", expected_to());
        check("RCPT TO:<a@x.example", expected_to());
        check("RCPT TO:<a@x.example>x", expected_to());
        check("RCPT FROM:<a@x.example>", expected_to());
        check("RCPT", expected_to());
        check("RCPT TÖ:<a>", expected_to());
        check("RCPT TO:<@h.example>", Err(Error::Argument("source route without a mailbox")));
        let address = |what: &str| Err(Error::Address(format!("invalid email address: {what}")));
        check("RCPT TO:<>", address("invalid localpart: need at least one char for atom"));
        check("MAIL FROM:<a>", address("expected @"));
        check("RCPT TO:<a@x.example> NOTIFY=NEVER", Err(Error::ParameterUnknown("NOTIFY".into())));
    }

    #[test]
    fn parameters() {
        let all = MailParameters { size: Some(12), body: Some(Body::EightBitMime), smtputf8: true, require_tls: true };
        check("MAIL FROM:<> size=12 body=8bitmime SMTPUTF8 REQUIRETLS", mail("", all));
        let seven = MailParameters { body: Some(Body::SevenBit), size: Some(u64::MAX), ..Default::default() };
        check("MAIL FROM:<>  BODY=7BIT  SIZE=99999999999999999999", mail("", seven));
        let argument = |line, what| check(line, Err(Error::Argument(what)));
        argument("MAIL FROM:<> SIZE=1 SIZE=1", "parameter given twice");
        argument("MAIL FROM:<> SMTPUTF8 SMTPUTF8", "parameter given twice");
        argument("MAIL FROM:<> SIZE=", "SIZE takes a number");
        argument("MAIL FROM:<> SIZE=-1", "SIZE takes a number");
        argument("MAIL FROM:<> SIZE", "parameter without a value");
        argument("MAIL FROM:<> BODY=BINARYMIME", "BODY takes 7BIT or 8BITMIME");
        argument("MAIL FROM:<> REQUIRETLS=1", "parameter takes no value");
        check("MAIL FROM:<> AUTH=<>", Err(Error::ParameterUnknown("AUTH".into())));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*|(MAIL FROM|RCPT TO):[<>@\"\\\\ =a-z:.,\\x00-\\x7f]{0,40}") {
            if let Ok(Command::Mail { from: Some(address), .. }) = Command::parse(&line) {
                prop_assert!(!address.to_string().contains(['\r', '\n']));
            }
        }
    }
}
