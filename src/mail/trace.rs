//! The Received field: who gave the message to whom, when, and how.

use std::net::IpAddr;

use postledger_events::address::Address;
use postledger_events::time::Timestamp;

use super::header::{Charset, Field, Fold};

/// Of a name that a client gave itself (RFC 5321 §4.5.3.1.2), an id, or what is said about TLS.
const WORD_BYTES_MAX: usize = 255;

/// One hop. What a client said is cleaned when it is written, so it cannot end the field or pretend to be another clause.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// The name that the client gave (EHLO), or the domain of the application's request.
    pub from: &'a str,
    /// The address that it came from; a submission keeps it to itself.
    pub client: Option<IpAddr>,
    pub by: &'a str,
    pub with: Option<With>,
    pub id: &'a str,
    /// Version and cipher.
    pub tls: Option<&'a str>,
    /// The recipient, if there is only one (RFC 5321 §7.6).
    pub for_: Option<&'a Address>,
    pub at: Timestamp,
}

/// The protocol, as registered (RFC 3848, RFC 6531 §3.7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    Smtp,
    Esmtp,
    Esmtps,
    Esmtpa,
    Esmtpsa,
    Utf8Smtp,
    Utf8Smtps,
    Utf8Smtpa,
    Utf8Smtpsa,
}

impl With {
    pub fn as_str(self) -> &'static str {
        match self {
            With::Smtp => "SMTP",
            With::Esmtp => "ESMTP",
            With::Esmtps => "ESMTPS",
            With::Esmtpa => "ESMTPA",
            With::Esmtpsa => "ESMTPSA",
            With::Utf8Smtp => "UTF8SMTP",
            With::Utf8Smtps => "UTF8SMTPS",
            With::Utf8Smtpa => "UTF8SMTPA",
            With::Utf8Smtpsa => "UTF8SMTPSA",
        }
    }
}

impl Trace<'_> {
    /// The field with its CRLF (RFC 5321 §4.4).
    pub fn received(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = Field::new(&mut out, "Received", Fold::Tab);
        let mut words = self.clauses();
        words.last_mut().expect("it begins with from").push(';');
        words.extend(self.at.to_rfc5322().split(' ').map(str::to_owned));
        words.iter().for_each(|word| field.word(word));
        field.end();
        out
    }

    /// As words that stay in one piece.
    fn clauses(&self) -> Vec<String> {
        let mut words = vec!["from".to_owned(), name(self.from)];
        words.extend(self.client.map(literal));
        words.extend(["by".to_owned(), name(self.by)]);
        if let Some(with) = self.with {
            words.extend(["via", "tcp", "with", with.as_str()].map(str::to_owned));
        }
        words.extend(["id".to_owned(), name(self.id)]);
        words.extend(self.tls.map(comment).unwrap_or_default());
        if let Some(address) = self.for_ {
            words.extend(["for".to_owned(), Charset::of(address.needs_smtputf8()).angle(address)]);
        }
        words
    }
}

/// The Received field of a submission: no client address, no protocol.
pub fn received(by: &str, from: &str, id: &str, tls: Option<&str>, for_: Option<&Address>, at: Timestamp) -> Vec<u8> {
    Trace { from, client: None, by, with: None, id, tls, for_, at }.received()
}

/// RFC 5321 §4.1.3, as a comment.
fn literal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("([{ip}])"),
        IpAddr::V6(ip) => format!("([IPv6:{ip}])"),
    }
}

/// A domain, an address literal or an id: only characters that these have.
fn name(said: &str) -> String {
    let clean: String =
        said.chars().filter(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(*c)).take(WORD_BYTES_MAX).collect();
    if clean.is_empty() { "unknown".to_owned() } else { clean }
}

fn comment(said: &str) -> Vec<String> {
    let clean: String =
        said.chars().filter(|c| (' '..='~').contains(c) && !"()\\".contains(*c)).take(WORD_BYTES_MAX).collect();
    let clean = clean.trim();
    if clean.is_empty() {
        return Vec::new();
    }
    format!("({clean})").split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_795_379_148);

    #[test]
    fn submission() {
        let check = |from: &str, tls: Option<&str>, for_: Option<&str>, expect: &str| {
            let address = for_.map(|s| Address::parse(s).unwrap());
            let got = received("localhost", from, "Wktace5CHasC7WlxNxuxvQ", tls, address.as_ref(), AT);
            assert_eq!(String::from_utf8(got).unwrap(), expect);
        };
        check(
            "localhost",
            None,
            Some("mox@localhost"),
            "Received: from localhost by localhost id Wktace5CHasC7WlxNxuxvQ for\r\n\
             \t<mox@localhost>; 22 Nov 2026 20:25:48 +0000\r\n",
        );
        check(
            "localhost",
            Some("TLS1.3 TLS_AES_128_GCM_SHA256"),
            None,
            "Received: from localhost by localhost id Wktace5CHasC7WlxNxuxvQ (TLS1.3\r\n\
             \tTLS_AES_128_GCM_SHA256); 22 Nov 2026 20:25:48 +0000\r\n",
        );
        check(
            "evil) by\r\nX-Injected: 1",
            Some("a)\r\nX: (b\\"),
            None,
            "Received: from evilbyX-Injected:1 by localhost id Wktace5CHasC7WlxNxuxvQ (aX:\r\n\
             \tb); 22 Nov 2026 20:25:48 +0000\r\n",
        );
    }

    /// As in the contract's capture of a delivered message.
    #[test]
    fn incoming() {
        let address = Address::parse("mox@localhost").unwrap();
        let trace = Trace {
            from: "localhost",
            client: Some("127.0.0.1".parse().unwrap()),
            by: "localhost",
            with: Some(With::Esmtps),
            id: "jvq6LoOiFwTQ-vFXULl-Hg",
            tls: Some("TLS1.3 TLS_AES_128_GCM_SHA256"),
            for_: Some(&address),
            at: AT,
        };
        assert_eq!(
            String::from_utf8(trace.received()).unwrap(),
            "Received: from localhost ([127.0.0.1]) by localhost via tcp with ESMTPS id\r\n\
             \tjvq6LoOiFwTQ-vFXULl-Hg (TLS1.3 TLS_AES_128_GCM_SHA256) for <mox@localhost>;\r\n\
             \t22 Nov 2026 20:25:48 +0000\r\n"
        );
        let trace = Trace { from: "", client: Some("2001:db8::1".parse().unwrap()), with: None, ..trace };
        let text = String::from_utf8(trace.received()).unwrap();
        assert!(text.starts_with("Received: from unknown ([IPv6:2001:db8::1]) by localhost id\r\n"), "{text}");
    }
}
