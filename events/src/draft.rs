//! What an application wants sent, already parsed: the same for HTTP and SMTP, before it is composed into a message.

use crate::address::Address;
use crate::time::Timestamp;

/// An address with the name shown beside it; the name may be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct NameAddress {
    pub name: String,
    pub address: Address,
}

/// A file that goes along. `name`, `content_type` and `content_id` may be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    pub name: String,
    pub content_type: String,
    pub content_id: String,
    pub data: Vec<u8>,
}

/// A time with the offset from UTC that its writer gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Date {
    pub at: Timestamp,
    pub offset_minutes: i16,
}

/// A message before it has its form.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub from: NameAddress,
    pub to: Vec<NameAddress>,
    pub cc: Vec<NameAddress>,
    pub bcc: Vec<NameAddress>,
    pub reply_to: Vec<NameAddress>,
    /// With the angle brackets; one is generated if there is none.
    pub message_id: Option<String>,
    pub references: Vec<String>,
    pub date: Option<Date>,
    pub subject: String,
    pub text: String,
    pub html: String,
    pub headers: Vec<(String, String)>,
    pub alternative_files: Vec<File>,
    pub inline_files: Vec<File>,
    pub attached_files: Vec<File>,
}

impl From<NameAddress> for Draft {
    /// An empty message from this one.
    fn from(from: NameAddress) -> Draft {
        Draft {
            from,
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: Vec::new(),
            message_id: None,
            references: Vec::new(),
            date: None,
            subject: String::new(),
            text: String::new(),
            html: String::new(),
            headers: Vec::new(),
            alternative_files: Vec::new(),
            inline_files: Vec::new(),
            attached_files: Vec::new(),
        }
    }
}

impl Draft {
    /// Everyone it names: From, Reply-To, To, Cc and Bcc.
    pub fn people(&self) -> impl Iterator<Item = &NameAddress> {
        let lists = [&self.reply_to, &self.to, &self.cc, &self.bcc];
        std::iter::once(&self.from).chain(lists.into_iter().flatten())
    }

    /// Whether it can only be sent with SMTPUTF8 (RFC 6531): as soon as one localpart is beyond ASCII.
    pub fn needs_smtputf8(&self) -> bool {
        self.people().any(|person| person.address.needs_smtputf8())
    }
}
