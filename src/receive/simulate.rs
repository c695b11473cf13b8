//! Failures that can be ordered by address, so that retries, suppression and history can be tried without a network.

use std::time::Duration;

use postledger_events::address::Localpart;
use postledger_events::reply::Reply;
use tokio_util::sync::CancellationToken;

/// How long `timeout` takes before it fails.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// A failure that an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Code(u16),
    /// An hour of silence, then 451.
    Timeout,
}

impl Failure {
    /// What the end of a recipient's localpart asks for; in this order.
    pub fn of(localpart: &Localpart) -> Option<Failure> {
        let s = localpart.as_str();
        if s.ends_with("temperror") {
            return Some(Failure::Code(451));
        }
        if s.ends_with("permerror") {
            return Some(Failure::Code(550));
        }
        if s.ends_with("timeout") {
            return Some(Failure::Timeout);
        }
        let digits = s.get(s.len().checked_sub(3)?..)?;
        let code = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        (400..=600).contains(&code).then_some(Failure::Code(code))
    }

    /// What a sender's localpart asks for at MAIL.
    pub fn at_mail(localpart: &Localpart) -> Option<Failure> {
        localpart.as_str().starts_with("mailfrom").then(|| Failure::of(localpart)).flatten()
    }

    /// Whether it comes at RCPT instead of after the content.
    pub fn at_rcpt(self, localpart: &Localpart) -> bool {
        localpart.as_str().starts_with("rcptto")
    }

    pub fn reply(self) -> Reply {
        match self {
            Failure::Timeout => Reply::new(451, "4.3.0 simulated timeout"),
            // RFC 5321 §4.2 knows no class 6, and no client would take it for a reply.
            Failure::Code(600) => Reply::new(554, "5.0.0 simulated failure 600"),
            Failure::Code(code) => Reply::new(code, format!("{}.0.0 simulated failure", code / 100)),
        }
    }

    pub async fn wait(self, stop: &CancellationToken) {
        if self == Failure::Timeout {
            tokio::select! {
                () = tokio::time::sleep(TIMEOUT) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let check = |localpart: &str, expect: Option<Failure>| {
            assert_eq!(Failure::of(&Localpart::new(localpart).unwrap()), expect, "{localpart}");
        };
        check("xtemperror", Some(Failure::Code(451)));
        check("xpermerror", Some(Failure::Code(550)));
        check("queuetimeout", Some(Failure::Timeout));
        check("code554", Some(Failure::Code(554)));
        check("rcptto550", Some(Failure::Code(550)));
        check("x600", Some(Failure::Code(600)));
        check("x601", None);
        check("x399", None);
        check("Xpermerrors", None);
        check("PERMERROR", None);
        check("50", None);
        check("é50", None);
        let at_mail = |l: &str| Failure::at_mail(&Localpart::new(l).unwrap());
        assert_eq!(at_mail("mailfromtemperror"), Some(Failure::Code(451)));
        assert_eq!(at_mail("xtemperror"), None);
    }
}
