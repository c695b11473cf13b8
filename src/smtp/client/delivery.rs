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
        match command {
            Command::Reset => self.answered_reset(reply),
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

    fn answered_reset(&mut self, reply: Reply) {
        if !reply.is_positive() {
            return self.broke(format!("the peer refused RSET: {reply}"));
        }
        self.session.begun = false;
    }

    fn answered_mail(&mut self, reply: Reply) {
        if is_intermediate(&reply) {
            return self.broke(format!("the peer answered MAIL with {reply}"));
        }
        if reply.is_positive() {
            self.session.begun = true;
        } else {
            self.end_all(RecipientResult::Rejected { reply });
            self.script.clear();
        }
    }

    // RFC 5321 §4.3.2: a client decides by the first digit, so 251 is as good as 250.
    fn answered_rcpt(&mut self, at: usize, first: bool, reply: Reply) {
        if is_intermediate(&reply) {
            return self.broke(format!("the peer answered RCPT with {reply}"));
        }
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
            (_, true) if reply.is_positive() || is_intermediate(&reply) => {
                self.broke(format!("the peer answered DATA with {reply}"));
            }
            (_, true) => self.end_all(RecipientResult::Rejected { reply }),
            (_, false) => {}
        }
    }

    fn answered_message(&mut self, reply: Reply) {
        self.session.begun = false;
        if is_intermediate(&reply) {
            let text = format!("the peer answered the message with {reply}");
            return self.over(RecipientResult::Lost { text, at: Phase::Final });
        }
        let result = match reply.is_positive() {
            true => RecipientResult::Accepted { reply },
            false => RecipientResult::Rejected { reply },
        };
        self.end_all(result);
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
