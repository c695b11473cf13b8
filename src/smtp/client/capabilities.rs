//! What a server offers in its answer to EHLO.

use postledger_events::reply::Reply;

/// The extensions that we use, by the keywords of RFC 5321 §4.1.1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub pipelining: bool,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub starttls: bool,
    pub require_tls: bool,
    pub dsn: bool,
    pub enhanced_status_codes: bool,
    /// RFC 1870 is offered.
    pub size: bool,
    /// The most bytes of a message, if the server names a limit.
    pub size_max: Option<u64>,
    /// Mechanisms of RFC 4954, in upper case.
    pub auth: Vec<String>,
    pub limits: Limits,
}

/// RFC 9422 §4. None is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub mail_max: Option<u32>,
    pub rcpt_max: Option<u32>,
    pub rcpt_domain_max: Option<u32>,
}

impl Capabilities {
    /// The first line names the server; each further line is one keyword with its parameters.
    pub fn parse(ehlo: &Reply) -> Capabilities {
        let mut offered = Capabilities::default();
        for line in ehlo.lines.iter().skip(1) {
            offered.add(&line.to_ascii_uppercase());
        }
        offered
    }

    fn add(&mut self, line: &str) {
        let (keyword, parameters) = line.split_once(' ').unwrap_or((line, ""));
        match keyword {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "STARTTLS" => self.starttls = true,
            "REQUIRETLS" => self.require_tls = true,
            "DSN" => self.dsn = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "SIZE" => {
                self.size = true;
                // RFC 1870 §4: zero, like no number, is no fixed limit.
                self.size_max = parameters.trim().parse().ok().filter(|&max| max > 0);
            }
            "AUTH" => self.auth.extend(parameters.split_ascii_whitespace().map(str::to_owned)),
            "LIMITS" => self.limits = Limits::parse(parameters).unwrap_or_default(),
            // Other extensions are not used.
            _ => {}
        }
    }
}

impl Limits {
    /// RFC 9422 §3: `NAME=value` with single spaces between. An error of syntax or a name given twice voids the whole; a value
    /// that is no number only its own limit.
    fn parse(parameters: &str) -> Option<Limits> {
        let mut limits = Limits::default();
        let mut seen: Vec<&str> = Vec::new();
        for parameter in parameters.split(' ') {
            let (name, value) = parameter.split_once('=')?;
            let name_fine =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let value_fine = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b';');
            if !name_fine || !value_fine || seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match name {
                "MAILMAX" => limits.mail_max = number(value),
                "RCPTMAX" => limits.rcpt_max = number(value),
                "RCPTDOMAINMAX" => limits.rcpt_domain_max = number(value),
                _ => {}
            }
        }
        Some(limits)
    }
}

/// RFC 9422 §4: at most six digits, and not zero.
fn number(value: &str) -> Option<u32> {
    const DIGITS_MAX: usize = 6;
    let digits = value.len() <= DIGITS_MAX && value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|&n| digits && n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Capabilities {
        let lines = std::iter::once("host").chain(lines.iter().copied()).map(str::to_owned).collect();
        Capabilities::parse(&Reply { code: 250, lines })
    }

    #[test]
    fn keywords() {
        let none = Capabilities::default();
        assert_eq!(parse(&[]), none);
        assert_eq!(parse(&["XYZ a", ""]), none);
        assert_eq!(Capabilities::parse(&Reply::new(250, "PIPELINING")), none, "the first line is a name");
        let expect = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            starttls: true,
            require_tls: true,
            dsn: true,
            enhanced_status_codes: true,
            size: true,
            size_max: Some(100),
            auth: vec!["PLAIN".into(), "LOGIN".into()],
            limits: Limits { rcpt_max: Some(5), ..Limits::default() },
        };
        let all =
            ["pipelining", "8BITMIME", "SmtpUtf8", "STARTTLS", "REQUIRETLS", "DSN", "ENHANCEDSTATUSCODES", "SIZE 100"];
        assert_eq!(parse(&[&all[..], &["AUTH plain LOGIN", "LIMITS RCPTMAX=5"]].concat()), expect);
        assert_eq!(parse(&["SIZE 0"]), Capabilities { size: true, ..none.clone() });
        assert_eq!(parse(&["SIZE"]), Capabilities { size: true, ..none });
    }

    #[test]
    fn limits() {
        let check = |line: &str, expect: [Option<u32>; 3]| {
            let got = parse(&[line]).limits;
            assert_eq!([got.mail_max, got.rcpt_max, got.rcpt_domain_max], expect, "{line}");
        };
        check("LIMITS MAILMAX=1 RCPTMAX=20 RCPTDOMAINMAX=300", [Some(1), Some(20), Some(300)]);
        check("limits rcptmax=999999 x-y=z", [None, Some(999_999), None]);
        check("LIMITS MAILMAX=3 RCPTMAX=0", [Some(3), None, None]);
        check("LIMITS MAILMAX=3 RCPTMAX=1000000", [Some(3), None, None]);
        check("LIMITS MAILMAX=3 RCPTMAX=+1", [Some(3), None, None]);
        for broken in
            ["", "MAILMAX=3 MAILMAX=3", "MAILMAX=3  RCPTMAX=2", "MAILMAX=3 RCPTMAX", "MAILMAX=3 A=;", "MAILMAX=3 ü=1"]
        {
            check(&format!("LIMITS {broken}"), [None; 3]);
        }
    }
}
