//! What a refusal says about the address: whether it alone is reason enough to send there no more.

use postledger_events::reply::EnhancedCode;

/// The rules that ship with the program.
pub const RULES: &str = include_str!("reply-rules.txt");
/// Rules and bytes of a rule file.
const RULES_MAX: usize = 10_000;

/// What a reply is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The address does not exist or takes no mail.
    Mailbox,
    /// The sender's address is on a list.
    Blocklist,
    Reputation,
    Authentication,
    Rate,
    /// The mailbox is full.
    Full,
    Content,
}

impl Class {
    fn parse(word: &str) -> Option<Class> {
        Some(match word {
            "mailbox" => Class::Mailbox,
            "blocklist" => Class::Blocklist,
            "reputation" => Class::Reputation,
            "authentication" => Class::Authentication,
            "rate" => Class::Rate,
            "full" => Class::Full,
            "content" => Class::Content,
            _ => return None,
        })
    }
}

/// Phrases and what they mean; the first that occurs in a reply counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules(Vec<(String, Class)>);

impl Rules {
    /// Lines of `CLASS: phrase`; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Rules, String> {
        let mut rules = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let rule = line.split_once(':').and_then(|(class, phrase)| {
                let phrase = phrase.trim().to_lowercase();
                Some((phrase, Class::parse(class.trim())?)).filter(|(p, _)| !p.is_empty())
            });
            let classes = "mailbox, blocklist, reputation, authentication, rate, full or content";
            rules.push(rule.ok_or(format!("line {}: expected `CLASS: phrase` with CLASS one of {classes}", n + 1))?);
        }
        if rules.len() > RULES_MAX { Err(format!("more than {RULES_MAX} rules")) } else { Ok(Rules(rules)) }
    }

    /// The rules that ship with the program.
    pub fn shipped() -> Rules {
        Rules::parse(RULES).expect("the shipped rules parse: a test holds them to it")
    }

    fn class(&self, text: &str) -> Option<Class> {
        let text = text.to_lowercase();
        self.0.iter().find(|(phrase, _)| text.contains(phrase.as_str())).map(|(_, class)| *class)
    }
}

/// Whether one such refusal suppresses at once: the text decides first, then the enhanced status code, then the code.
pub fn is_immediate(rules: &Rules, code: u16, enhanced: Option<EnhancedCode>, text: &str) -> bool {
    if code / 100 != 5 {
        return false;
    }
    if let Some(class) = rules.class(text) {
        return class == Class::Mailbox;
    }
    match enhanced.map(|e| (e.subject, e.detail)) {
        // The commonest text behind 5.7.1 is that the sender's address is blocked.
        Some((7, _)) => false,
        Some((1, 1 | 2 | 3 | 6) | (2, 1)) => true,
        _ => matches!(code, 521 | 550 | 551 | 553 | 556),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_suppresses_at_once() {
        let rules = Rules::shipped();
        let check = |code: u16, enhanced: &str, text: &str, expect: bool| {
            let got = is_immediate(&rules, code, enhanced.parse().ok(), text);
            assert_eq!(got, expect, "{code} {enhanced} {text}");
        };
        check(550, "5.1.1", "x", true);
        check(550, "", "x", true);
        check(550, "5.0.0", "simulated", true);
        check(550, "5.7.1", "x", false);
        check(550, "5.7.1", "recipient address rejected: user unknown", true);
        check(550, "5.7.1", "Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org", false);
        check(550, "5.1.1", "blocked using zen.spamhaus.org", false);
        check(554, "5.0.0", "x", false);
        check(554, "5.1.1", "x", true);
        check(552, "5.2.2", "mailbox full", false);
        check(450, "4.1.1", "user unknown", false);
        check(556, "", "null MX", true);
        check(521, "5.3.2", "host does not accept mail", true);
    }

    #[test]
    fn a_bad_rule_is_named() {
        assert_eq!(Rules::parse("# x\nnope: y").unwrap_err().split(':').next(), Some("line 2"));
        assert!(Rules::parse("mailbox:").is_err());
    }
}
