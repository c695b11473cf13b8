//! One transaction: MAIL, RCPT for each recipient, DATA, and what each recipient came to.

use std::collections::{BTreeSet, VecDeque};

use postledger_events::reply::Reply;

use super::{Capabilities, LocalFailure, Phase, Security, Transaction, line};
use crate::smtp::data;
use crate::smtp::reply::{SERVICE_CLOSING_421, START_INPUT_354, STORAGE_452, TOO_LARGE_552};

/// A session between transactions.
#[derive(Debug)]
pub struct Session {
    pub capabilities: Capabilities,
    pub security: Security,
    /// MAIL commands sent, which is what MAILMAX counts (RFC 9422 §4.1).
    mails: u32,
    /// A transaction was begun and not ended: RSET comes before the next.
    begun: bool,
    usable: bool,
}

impl Session {
    pub fn new(capabilities: Capabilities, security: Security) -> Session {
        Session { capabilities, security, mails: 0, begun: false, usable: true }
    }

    /// Whether another transaction can follow.
    pub fn is_usable(&self) -> bool {
        self.usable && self.capabilities.limits.mail_max.is_none_or(|max| self.mails < max)
    }

    /// The connection broke between transactions.
    pub fn broke(&mut self) {
        self.usable = false;
    }
}

/// What one recipient came to in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientResult {
    /// The peer took responsibility; its reply to the message.
    Accepted { reply: Reply },
    /// The reply, to whichever command, that ended it.
    Rejected { reply: Reply },
    /// Not offered to the peer; for good.
    Local { failure: LocalFailure },
    /// The connection broke.
    Lost { text: String, at: Phase },
    /// To be tried in another transaction at once: too many recipients for this one, by the peer's reply or its LIMITS.
    Again { reply: Option<Reply> },
}

impl RecipientResult {
    /// The peer may have the message: the connection broke when the end mark was on its way.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, RecipientResult::Lost { at: Phase::Final, .. })
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this, reading what comes meanwhile (RFC 2920 §3.1: neither side may wait for the other to read).
    Write(Vec<u8>, Phase),
    /// Read a reply within the limit of the phase, and tell it.
    Read(Phase),
    /// Write the content, dot-stuffed, with its end mark.
    WriteMessage,
    Done,
}

/// A transaction under way.
#[derive(Debug)]
pub struct Delivery<'a> {
    session: &'a mut Session,
    transaction: &'a Transaction,
    fates: Vec<Fate>,
    /// Commands not yet sent.
    script: VecDeque<Command>,
    /// Commands sent, in the order of their replies.
    awaited: VecDeque<Command>,
    message_next: bool,
}

#[derive(Clone, Debug)]
enum Fate {
    Open,
    /// RCPT was accepted.
    Taken,
    Ended(RecipientResult),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Reset,
    Mail,
    /// The index of the recipient, and whether it is the first of this transaction.
    Rcpt {
        at: usize,
        first: bool,
    },
    Data,
    /// The end mark behind the message.
    Message,
    /// The end mark alone: DATA was pipelined, and no recipient was accepted.
    Nothing,
}

impl Command {
    fn phase(self) -> Phase {
        match self {
            Command::Reset | Command::Mail => Phase::Mail,
            Command::Rcpt { .. } => Phase::Rcpt,
            Command::Data => Phase::DataInit,
            Command::Message | Command::Nothing => Phase::Final,
        }
    }
}

impl<'a> Delivery<'a> {
    pub fn begin(session: &'a mut Session, transaction: &'a Transaction) -> Delivery<'a> {
        let fates = vec![Fate::Open; transaction.recipients.len()];
        let mut delivery = Delivery {
            session,
            transaction,
            fates,
            script: VecDeque::new(),
            awaited: VecDeque::new(),
            message_next: false,
        };
        delivery.plan();
        delivery
    }

    pub fn next_action(&mut self) -> Action {
        if self.message_next {
            return Action::WriteMessage;
        }
        if let Some(command) = self.awaited.front() {
            return Action::Read(command.phase());
        }
        self.send()
    }

    /// The reply to the first command that awaits one.
    pub fn reply(&mut self, reply: Reply) {
        let command = self.awaited.pop_front().expect("a command awaits a reply");
        // RFC 5321 §3.8, §4.2.1: 421 may come in answer to anything, and the connection ends with it.
        if reply.code == SERVICE_CLOSING_421 {
            return self.over(RecipientResult::Rejected { reply });
        }
        if command != Command::Data && is_intermediate(&reply) {
            return self.misfit(command, &reply);
        }
        match command {
            Command::Reset if !reply.is_positive() => self.misfit(command, &reply),
            Command::Reset => self.session.begun = false,
            Command::Mail => self.answered_mail(reply),
            Command::Rcpt { at, first } => self.answered_rcpt(at, first, reply),
            Command::Data => self.answered_data(reply),
            Command::Message => self.answered_message(reply),
            Command::Nothing => self.session.begun = false,
        }
    }

    /// The content and its end mark were handed over, or may have been.
    pub fn message_written(&mut self) {
        assert!(self.message_next, "no content was asked for");
        self.message_next = false;
        self.awaited.push_back(Command::Message);
    }

    /// The peer refused the content before it was all there. It had no end mark, so whatever it says, it has no message.
    pub fn message_cut(&mut self, reply: Reply) {
        assert!(self.message_next, "no content was asked for");
        if reply.is_positive() {
            return self.broke(format!("the peer answered the message before its end: {reply}"));
        }
        self.over(RecipientResult::Rejected { reply });
    }

    /// The connection broke, or the peer broke the protocol.
    pub fn broke(&mut self, text: String) {
        let at = if self.message_next { Phase::Data } else { self.awaited.front().map_or(Phase::Mail, |c| c.phase()) };
        self.over(RecipientResult::Lost { text, at });
    }

    pub fn finish(self) -> Vec<RecipientResult> {
        let ended = |fate| match fate {
            Fate::Ended(result) => result,
            Fate::Open | Fate::Taken => unreachable!("every recipient has its result at the end"),
        };
        self.fates.into_iter().map(ended).collect()
    }

    fn plan(&mut self) {
        if let Some(failure) = self.local_failure() {
            return self.end_all(RecipientResult::Local { failure });
        }
        let chosen = self.choose();
        if chosen.is_empty() {
            return;
        }
        if self.session.begun {
            self.script.push_back(Command::Reset);
        }
        self.script.push_back(Command::Mail);
        self.script.extend(chosen.iter().map(|&at| Command::Rcpt { at, first: at == chosen[0] }));
        self.script.push_back(Command::Data);
    }

    fn local_failure(&self) -> Option<LocalFailure> {
        let (transaction, offered) = (self.transaction, &self.session.capabilities);
        let bytes = transaction.message.len() as u64;
        let tls_fails = !offered.require_tls || self.session.security != Security::Verified;
        if transaction.require_tls && tls_fails {
            return Some(LocalFailure::RequireTlsUnsupported);
        }
        if transaction.needs_smtputf8() && !offered.smtputf8 {
            return Some(LocalFailure::Smtputf8Unsupported);
        }
        if let Some(bytes_max) = offered.size_max.filter(|&max| bytes > max) {
            return Some(LocalFailure::TooLarge { bytes, bytes_max });
        }
        if !data::is_canonical(&transaction.message) {
            return Some(LocalFailure::LineEnds);
        }
        (transaction.is_eight_bit() && !offered.eight_bit_mime).then_some(LocalFailure::EightBitUnsupported)
    }

    /// The recipients that fit the peer's LIMITS (RFC 9422 §4.2, §4.3); the others end with `Again`.
    fn choose(&mut self) -> Vec<usize> {
        let limits = self.session.capabilities.limits;
        let rcpt_max = limits.rcpt_max.map_or(usize::MAX, |max| max as usize);
        let domains_max = limits.rcpt_domain_max.map_or(usize::MAX, |max| max as usize);
        let (mut chosen, mut domains) = (Vec::new(), BTreeSet::new());
        for (at, recipient) in self.transaction.recipients.iter().enumerate() {
            let domain_fits = domains.contains(&recipient.domain) || domains.len() < domains_max;
            if self.session.is_usable() && chosen.len() < rcpt_max && domain_fits {
                domains.insert(&recipient.domain);
                chosen.push(at);
            } else {
                self.fates[at] = Fate::Ended(RecipientResult::Again { reply: None });
            }
        }
        chosen
    }

    fn send(&mut self) -> Action {
        let count = if self.session.capabilities.pipelining { self.script.len() } else { 1 };
        let (mut out, mut phase) = (Vec::new(), Phase::Mail);
        for _ in 0..count {
            let Some(command) = self.script.pop_front() else { break };
            if command == Command::Mail {
                self.session.mails += 1;
            }
            out.extend_from_slice(&self.line(command));
            phase = command.phase();
            self.awaited.push_back(command);
        }
        if out.is_empty() { Action::Done } else { Action::Write(out, phase) }
    }

    fn line(&self, command: Command) -> Vec<u8> {
        match command {
            Command::Reset => line("RSET".into()),
            Command::Mail => line(self.mail()),
            Command::Rcpt { at, .. } => line(format!("RCPT TO:<{}>", self.transaction.recipients[at])),
            Command::Data => line("DATA".into()),
            Command::Nothing | Command::Message => line(".".into()),
        }
    }

    fn mail(&self) -> String {
        let (transaction, offered) = (self.transaction, &self.session.capabilities);
        let mut mail = match &transaction.reverse_path {
            Some(address) => format!("MAIL FROM:<{address}>"),
            None => "MAIL FROM:<>".to_owned(),
        };
        if offered.size {
            mail.push_str(&format!(" SIZE={}", transaction.message.len()));
        }
        if transaction.is_eight_bit() {
            mail.push_str(" BODY=8BITMIME");
        }
        if transaction.needs_smtputf8() {
            mail.push_str(" SMTPUTF8");
        }
        if transaction.require_tls {
            mail.push_str(" REQUIRETLS");
        }
        mail
    }

    fn answered_mail(&mut self, reply: Reply) {
        if reply.is_positive() {
            self.session.begun = true;
        } else {
            self.end_all(RecipientResult::Rejected { reply });
            self.script.clear();
        }
    }

    // RFC 5321 §4.3.2: a client decides by the first digit, so 251 is as good as 250.
    fn answered_rcpt(&mut self, at: usize, first: bool, reply: Reply) {
        if !matches!(self.fates[at], Fate::Open) {
            return;
        }
        // RFC 5321 §4.5.3.1.10: too many recipients; 552 is an old way to say so. For the first it cannot mean that, and
        // counting it as a failure is what makes every transaction get on.
        let full = !first && matches!(reply.code, STORAGE_452 | TOO_LARGE_552);
        self.fates[at] = match (reply.is_positive(), full) {
            (true, _) => Fate::Taken,
            (false, true) => Fate::Ended(RecipientResult::Again { reply: Some(reply.clone()) }),
            (false, false) => Fate::Ended(RecipientResult::Rejected { reply: reply.clone() }),
        };
        if full {
            self.put_off_unsent(&reply);
        }
        if self.script.front() == Some(&Command::Data) && !self.any_taken() {
            self.script.clear();
        }
    }

    /// One by one, further RCPTs would only be told the same.
    fn put_off_unsent(&mut self, reply: &Reply) {
        while let Some(&Command::Rcpt { at, .. }) = self.script.front() {
            self.script.pop_front();
            self.fates[at] = Fate::Ended(RecipientResult::Again { reply: Some(reply.clone()) });
        }
    }

    fn answered_data(&mut self, reply: Reply) {
        let taken = self.any_taken();
        match (reply.code, taken) {
            (START_INPUT_354, true) => self.message_next = true,
            // RFC 2920 §3.1: the server that let DATA pass without a recipient gets an empty message.
            (START_INPUT_354, false) => self.script.push_back(Command::Nothing),
            (_, true) if reply.is_positive() || is_intermediate(&reply) => self.misfit(Command::Data, &reply),
            (_, true) => self.end_all(RecipientResult::Rejected { reply }),
            (_, false) => {}
        }
    }

    fn answered_message(&mut self, reply: Reply) {
        self.session.begun = false;
        let result = match reply.is_positive() {
            true => RecipientResult::Accepted { reply },
            false => RecipientResult::Rejected { reply },
        };
        self.end_all(result);
    }

    /// A reply that cannot be one to this command: from here on nobody knows which reply belongs to what.
    fn misfit(&mut self, command: Command, reply: &Reply) {
        self.over(RecipientResult::Lost { text: format!("unexpected reply: {reply}"), at: command.phase() });
    }

    fn any_taken(&self) -> bool {
        self.fates.iter().any(|fate| matches!(fate, Fate::Taken))
    }

    /// Gives this result to whoever has none.
    fn end_all(&mut self, result: RecipientResult) {
        for fate in &mut self.fates {
            if !matches!(fate, Fate::Ended(_)) {
                *fate = Fate::Ended(result.clone());
            }
        }
    }

    /// Nothing more can be sent or read.
    fn over(&mut self, result: RecipientResult) {
        self.end_all(result);
        self.session.usable = false;
        self.message_next = false;
        self.script.clear();
        self.awaited.clear();
    }
}

fn is_intermediate(reply: &Reply) -> bool {
    reply.code / 100 == 3
}

#[cfg(test)]
mod tests {
    use postledger_events::address::Address;
    use proptest::prelude::*;

    use super::*;

    const PIPELINING: &str = "PIPELINING";

    fn offering(keywords: &[&str]) -> Session {
        let lines = std::iter::once("mx.example").chain(keywords.iter().copied()).map(str::to_owned).collect();
        Session::new(Capabilities::parse(&Reply { code: 250, lines }), Security::Clear)
    }

    fn transaction(recipients: &[&str]) -> Transaction {
        Transaction {
            reverse_path: Some(Address::parse("f@x.example").unwrap()),
            recipients: recipients.iter().map(|r| Address::parse(r).unwrap()).collect(),
            message: "S: x\r\n\r\n.\r\n".into(),
            eight_bit: false,
            smtputf8: false,
            require_tls: false,
        }
    }

    /// Runs it against these replies (what is no reply breaks the connection): what was sent, with `<` where a reply was read
    /// and `[message]` for the content, and what became of each recipient.
    fn run(session: &mut Session, transaction: &Transaction, replies: &[&str]) -> (String, Vec<String>) {
        let (mut sent, mut replies) = (String::new(), replies.iter());
        let mut delivery = Delivery::begin(session, transaction);
        loop {
            match delivery.next_action() {
                Action::Write(bytes, _) => sent.push_str(&String::from_utf8(bytes).unwrap().replace("\r\n", "|")),
                Action::Read(_) => {
                    sent.push('<');
                    let reply = replies.next().expect("a reply for every read");
                    match reply.split_once(' ').and_then(|(code, text)| Some(Reply::new(code.parse().ok()?, text))) {
                        Some(reply) => delivery.reply(reply),
                        None => delivery.broke((*reply).to_owned()),
                    }
                }
                Action::WriteMessage => {
                    sent.push_str("[message]");
                    delivery.message_written();
                }
                Action::Done => break,
            }
        }
        assert_eq!(replies.next(), None, "all replies are read");
        (sent, delivery.finish().into_iter().map(show).collect())
    }

    fn show(result: RecipientResult) -> String {
        let unknown = result.is_outcome_unknown();
        match result {
            RecipientResult::Accepted { reply } => format!("accepted {reply}"),
            RecipientResult::Rejected { reply } => format!("rejected {reply}"),
            RecipientResult::Local { failure } => format!("local {}", failure.enhanced()),
            RecipientResult::Lost { text, at } => {
                format!("lost in {}: {text}{}", at.as_str(), if unknown { " (unknown)" } else { "" })
            }
            RecipientResult::Again { reply: Some(reply) } => format!("again {reply}"),
            RecipientResult::Again { reply: None } => "again".to_owned(),
        }
    }

    struct Expect<'a> {
        sent: &'a str,
        results: &'a [&'a str],
        usable: bool,
    }

    fn check(keywords: &[&str], recipients: &[&str], replies: &[&str], expect: Expect<'_>) {
        let mut session = offering(keywords);
        let (sent, results) = run(&mut session, &transaction(recipients), replies);
        assert_eq!(sent, expect.sent, "{replies:?}");
        assert_eq!(results, expect.results, "{replies:?}");
        assert_eq!(session.is_usable(), expect.usable, "{replies:?}");
    }

    const A: &str = "a@y.example";
    const B: &str = "b@y.example";
    const C: &str = "c@z.example";
    const PIPED: &str =
        "MAIL FROM:<f@x.example>|RCPT TO:<a@y.example>|RCPT TO:<b@y.example>|RCPT TO:<c@z.example>|DATA|<<<<<";

    fn check_piped(replies: &[&str], after: &str, results: &[&str], usable: bool) {
        let sent = format!("{PIPED}{after}");
        check(&[PIPELINING], &[A, B, C], replies, Expect { sent: &sent, results, usable });
    }

    #[test]
    fn pipelined() {
        let go = "354 go";
        check_piped(
            &["250 m", "250 a", "251 b", "250 c", go, "250 2.0.0 queued"],
            "[message]<",
            &["accepted 250 2.0.0 queued"; 3],
            true,
        );
        check_piped(
            &["250 m", "250 a", "550 5.1.1 b", "452 4.5.3 c", go, "250 q"],
            "[message]<",
            &["accepted 250 q", "rejected 550 5.1.1 b", "again 452 4.5.3 c"],
            true,
        );
        check_piped(
            &["250 m", "452 a", "552 b", "450 c", go, "554 empty"],
            ".|<",
            &["rejected 452 a", "again 552 b", "rejected 450 c"],
            true,
        );
        check_piped(
            &["250 m", "550 a", "550 b", "551 c", "503 no"],
            "",
            &["rejected 550 a", "rejected 550 b", "rejected 551 c"],
            true,
        );
        check_piped(&["550 m", "503 a", "503 b", "503 c", "503 d"], "", &["rejected 550 m"; 3], true);
        check_piped(&["450 m", "503 a", "503 b", "503 c", go, "554 e"], ".|<", &["rejected 450 m"; 3], true);
        check_piped(
            &["250 m", "250 a", "550 b", "250 c", "451 d"],
            "",
            &["rejected 451 d", "rejected 550 b", "rejected 451 d"],
            true,
        );
        check_piped(
            &["250 m", "250 a", "550 b", "250 c", go, "554 5.7.1 spam"],
            "[message]<",
            &["rejected 554 5.7.1 spam", "rejected 550 b", "rejected 554 5.7.1 spam"],
            true,
        );
    }

    #[test]
    fn endings_on_the_way() {
        let short = |reads: &str| PIPED.replace("<<<<<", reads);
        let check = |replies: &[&str], reads: &str, after: &str, results: &[&str]| {
            let sent = format!("{}{after}", short(reads));
            check(&[PIPELINING], &[A, B, C], replies, Expect { sent: &sent, results, usable: false });
        };
        check(
            &["250 m", "550 a", "250 b", "421 bye"],
            "<<<<",
            "",
            &["rejected 550 a", "rejected 421 bye", "rejected 421 bye"],
        );
        check(&["421 bye"], "<", "", &["rejected 421 bye"; 3]);
        let all = ["250 m", "550 a", "250 b", "250 c", "354 go"];
        let unknown = "lost in reply to the message: gone (unknown)";
        check(&[&all[..], &["gone"]].concat(), "<<<<<", "[message]<", &["rejected 550 a", unknown, unknown]);
        check(
            &[&all[..], &["421 no"]].concat(),
            "<<<<<",
            "[message]<",
            &["rejected 550 a", "rejected 421 no", "rejected 421 no"],
        );
        check(
            &["250 m", "554 a", "250 b", "gone"],
            "<<<<",
            "",
            &["rejected 554 a", "lost in RCPT TO: gone", "lost in RCPT TO: gone"],
        );
        check(
            &["250 m", "554 a", "554 b", "554 c", "gone"],
            "<<<<<",
            "",
            &["rejected 554 a", "rejected 554 b", "rejected 554 c"],
        );
        check(
            &["250 m", "550 a", "250 b", "250 c", "250 d"],
            "<<<<<",
            "",
            &["rejected 550 a", "lost in DATA: unexpected reply: 250 d", "lost in DATA: unexpected reply: 250 d"],
        );
        check(&["354 m"], "<", "", &["lost in MAIL FROM: unexpected reply: 354 m"; 3]);
    }

    #[test]
    fn one_by_one() {
        let (mail, a, b, c) = (
            "MAIL FROM:<f@x.example>|<",
            "RCPT TO:<a@y.example>|<",
            "RCPT TO:<b@y.example>|<",
            "RCPT TO:<c@z.example>|<",
        );
        let check = |replies: &[&str], sent: &[&str], results: &[&str]| {
            check(&[], &[A, B, C], replies, Expect { sent: &sent.concat(), results, usable: true });
        };
        let data = "DATA|<[message]<";
        check(
            &["250 m", "250 a", "550 b", "250 c", "354 go", "250 q"],
            &[mail, a, b, c, data],
            &["accepted 250 q", "rejected 550 b", "accepted 250 q"],
        );
        check(&["550 m"], &[mail], &["rejected 550 m"; 3]);
        check(
            &["250 m", "550 a", "550 b", "550 c"],
            &[mail, a, b, c],
            &["rejected 550 a", "rejected 550 b", "rejected 550 c"],
        );
        check(
            &["250 m", "250 a", "452 b", "354 go", "250 q"],
            &[mail, a, b, data],
            &["accepted 250 q", "again 452 b", "again 452 b"],
        );
        check(&["250 m", "550 a", "452 b"], &[mail, a, b], &["rejected 550 a", "again 452 b", "again 452 b"]);
    }

    #[test]
    fn parameters() {
        let sent = |keywords: &[&str], security: Security, change: fn(&mut Transaction)| {
            let mut transaction = transaction(&[A]);
            change(&mut transaction);
            let mut session = offering(keywords);
            session.security = security;
            let mut delivery = Delivery::begin(&mut session, &transaction);
            match delivery.next_action() {
                Action::Write(bytes, _) => String::from_utf8(bytes).unwrap(),
                _ => show(delivery.finish().remove(0)),
            }
        };
        let clear = |keywords: &[&str], change| sent(keywords, Security::Clear, change);
        assert_eq!(clear(&["SIZE"], |_| {}), "MAIL FROM:<f@x.example> SIZE=11\r\n");
        assert_eq!(clear(&["SIZE 11"], |_| {}), "MAIL FROM:<f@x.example> SIZE=11\r\n");
        assert_eq!(clear(&["SIZE 10"], |_| {}), "local 5.3.4");
        assert_eq!(clear(&["8BITMIME", "SMTPUTF8"], |_| {}), "MAIL FROM:<f@x.example>\r\n");
        assert_eq!(clear(&[], |t| t.reverse_path = None), "MAIL FROM:<>\r\n");
        let eight = |t: &mut Transaction| t.message = "é\r\n".into();
        assert_eq!(clear(&["8BITMIME"], eight), "MAIL FROM:<f@x.example> BODY=8BITMIME\r\n");
        assert_eq!(clear(&[], eight), "local 5.6.3");
        let utf8 = |t: &mut Transaction| t.reverse_path = Some(Address::parse("ü@x.example").unwrap());
        assert_eq!(clear(&["SMTPUTF8"], utf8), "MAIL FROM:<ü@x.example> SMTPUTF8\r\n");
        assert_eq!(clear(&[], utf8), "local 5.6.7");
        assert_eq!(clear(&[], |t| t.smtputf8 = true), "local 5.6.7");
        assert_eq!(clear(&[], |t| t.message = "a\n".into()), "local 5.6.0");
        assert_eq!(clear(&[], |t| t.message = "a".into()), "local 5.6.0");
        let tls = |t: &mut Transaction| t.require_tls = true;
        assert_eq!(sent(&["REQUIRETLS"], Security::Verified, tls), "MAIL FROM:<f@x.example> REQUIRETLS\r\n");
        assert_eq!(sent(&["REQUIRETLS"], Security::Unverified, tls), "local 5.7.30");
        assert_eq!(sent(&[], Security::Verified, tls), "local 5.7.30");
    }

    #[test]
    fn limits_of_the_peer() {
        let check = |limits: &str, taken: &[&str], usable: bool| {
            let mut session = offering(&[PIPELINING, &format!("LIMITS {limits}")]);
            let replies =
                [&["250 m"][..], &vec!["250 r"; 3 - taken.iter().filter(|t| **t == "again").count()]].concat();
            let replies = [&replies[..], &["354 go", "250 q"]].concat();
            let (_, results) = run(&mut session, &transaction(&[A, B, C]), &replies);
            assert_eq!(results, taken, "{limits}");
            assert_eq!(session.is_usable(), usable, "{limits}");
        };
        let q = "accepted 250 q";
        check("RCPTMAX=2", &[q, q, "again"], true);
        check("RCPTMAX=1 MAILMAX=2", &[q, "again", "again"], true);
        check("RCPTDOMAINMAX=1", &[q, q, "again"], true);
        check("MAILMAX=1", &[q, q, q], false);

        let mut spent = offering(&["LIMITS MAILMAX=1"]);
        run(&mut spent, &transaction(&[A]), &["550 m"]);
        assert_eq!(run(&mut spent, &transaction(&[A]), &[]), (String::new(), vec!["again".to_owned()]));
    }

    #[test]
    fn what_was_begun_is_reset() {
        let mut session = offering(&[]);
        run(&mut session, &transaction(&[A]), &["250 m", "550 a"]);
        let (sent, results) = run(&mut session, &transaction(&[A]), &["250 r", "250 m", "250 a", "354 go", "250 q"]);
        assert!(sent.starts_with("RSET|<MAIL"), "{sent}");
        assert_eq!(results, ["accepted 250 q"]);
        let (sent, _) = run(&mut session, &transaction(&[A]), &["550 m"]);
        assert!(sent.starts_with("MAIL"), "{sent}");

        let mut stubborn = offering(&[PIPELINING]);
        run(&mut stubborn, &transaction(&[A]), &["250 m", "550 a", "503 d"]);
        let (_, results) = run(&mut stubborn, &transaction(&[A]), &["500 what"]);
        assert_eq!(results, ["lost in MAIL FROM: unexpected reply: 500 what"]);
        assert!(!stubborn.is_usable());
    }

    #[test]
    fn content_cut_short() {
        let check = |reply: Option<&str>, expect: &str| {
            let mut session = offering(&[]);
            let transaction = transaction(&[A]);
            let mut delivery = Delivery::begin(&mut session, &transaction);
            for reply in ["250 m", "250 a", "354 go"] {
                delivery.next_action();
                delivery.reply(Reply::new(reply[..3].parse().unwrap(), &reply[4..]));
            }
            assert_eq!(delivery.next_action(), Action::WriteMessage);
            match reply {
                Some(reply) => delivery.message_cut(Reply::new(reply[..3].parse().unwrap(), &reply[4..])),
                None => delivery.broke("gone".into()),
            }
            assert_eq!(delivery.next_action(), Action::Done);
            assert_eq!(delivery.finish().into_iter().map(show).collect::<Vec<_>>(), [expect]);
            assert!(!session.is_usable());
        };
        check(Some("552 large"), "rejected 552 large");
        check(None, "lost in message content: gone");
        check(Some("250 fine"), "lost in message content: the peer answered the message before its end: 250 fine");
    }

    proptest! {
        /// Whatever the peer says: it ends, every recipient has a result, and nobody is accepted but by a 2yz to the content.
        #[test]
        fn any_replies(
            codes in prop::collection::vec(prop::sample::select(vec![250, 354, 421, 450, 452, 550, 552, 599]), 12),
            pipelining in any::<bool>(),
            broken_at in 0usize..16,
        ) {
            let mut session = offering(if pipelining { &[PIPELINING] } else { &[] });
            let transaction = transaction(&[A, B, C]);
            let mut delivery = Delivery::begin(&mut session, &transaction);
            let (mut codes, mut read, mut last, mut written) = (codes.into_iter(), 0, 0, false);
            loop {
                match delivery.next_action() {
                    Action::Write(..) => {}
                    Action::Read(_) if read == broken_at => delivery.broke("gone".into()),
                    Action::Read(_) => {
                        read += 1;
                        last = codes.next().expect("a bounded number of replies");
                        delivery.reply(Reply::new(last, ""));
                    }
                    Action::WriteMessage => {
                        written = true;
                        delivery.message_written();
                    }
                    Action::Done => break,
                }
            }
            for result in delivery.finish() {
                let accepted = matches!(result, RecipientResult::Accepted { .. });
                prop_assert!(!accepted || (written && last == 250));
                prop_assert!(!result.is_outcome_unknown() || written);
            }
        }
    }
}
