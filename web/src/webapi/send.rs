//! Send: submits a message. It is on disk before the answer goes out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::response::Response;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use postledger_events::Refusal;
use postledger_events::address::Address;
use postledger_events::command::Submitted;
use postledger_events::draft::{self, Draft};
use postledger_events::id::{AccountName, DeliveryId};
use postledger_events::refusal::RECIPIENTS_MAX;
use postledger_projections::accounts;
use serde::Serialize;

use super::form::{Form, FormFile, Role};
use super::json::fields;
use super::time::Time;
use super::{Caller, Method, decode, ok, parse_address, trace};
use crate::openapi::Describe;
use crate::port::{Login, SendRequest};
use crate::status::{Code, Fault};
use crate::{Port, request_log};

/// Keys of Extra.
const EXTRA_KEYS_MAX: usize = 50;
/// Bytes of one key of Extra.
const EXTRA_KEY_BYTES_MAX: usize = 128;
/// Bytes of all keys and values of Extra.
const EXTRA_BYTES_MAX: usize = 16 * 1024;
/// Lists of up to this many recipients are looked up at once; longer ones where blocking on the disk is fine.
const QUICK_RECIPIENTS_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Request<'a> {
    from: Vec<Person>,
    to: Vec<Person>,
    cc: Vec<Person>,
    bcc: Vec<Person>,
    reply_to: Vec<Person>,
    message_id: String,
    references: Vec<String>,
    date: Option<Time>,
    subject: String,
    text: String,
    html: String,
    extra: BTreeMap<String, String>,
    headers: Vec<[String; 2]>,
    alternative_files: Vec<File<'a>>,
    inline_files: Vec<File<'a>>,
    attached_files: Vec<File<'a>>,
    require_tls: Option<bool>,
    future_release: Option<Time>,
    save_sent: bool,
}

fields!(Request<'a> as "SendRequest" {
    /// At most one; the login's own address if there is none.
    "From" => from,
    "To" => to,
    "CC" => cc,
    "BCC" => bcc,
    "ReplyTo" => reply_to,
    /// With its angle brackets; made if it is empty.
    "MessageID" => message_id,
    "References" => references,
    /// Now, if it is not there.
    "Date" => date,
    "Subject" => subject,
    /// This or HTML must be there.
    "Text" => text,
    "HTML" => html,
    /// Of the application's own; comes back in webhooks.
    "Extra" => extra,
    /// Pairs of a name and a value.
    "Headers" => headers,
    "AlternativeFiles" => alternative_files,
    "InlineFiles" => inline_files,
    "AttachedFiles" => attached_files,
    /// `true`: only over verified TLS (RFC 8689); `false`: rather without TLS than not at all.
    "RequireTLS" => require_tls,
    /// Not before this time.
    "FutureRelease" => future_release,
    /// Also into the mailbox Sent.
    "SaveSent" => save_sent,
});

#[derive(Default)]
struct Person {
    name: String,
    address: String,
}

fields!(Person as "Person" {
    "Name" => name,
    "Address" => address,
});

#[derive(Default)]
struct File<'a> {
    name: String,
    content_type: String,
    content_id: String,
    /// In base64.
    data: Cow<'a, str>,
}

fields!(File<'a> as "File" {
    "Name" => name,
    "ContentType" => content_type,
    "ContentID" => content_id,
    /// In base64.
    "Data" => data,
});

#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Sent<'a> {
    #[serde(rename = "MessageID")]
    message_id: &'a str,
    submissions: Vec<Submission<'a>>,
}

#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
struct Submission<'a> {
    address: &'a str,
    #[serde(rename = "QueueMsgID")]
    queue_msg_id: DeliveryId,
    #[serde(rename = "FromID")]
    from_id: &'a str,
}

pub async fn call<P: Port>(port: &Arc<P>, caller: Caller<'_>, form: Form) -> Result<Response, Fault> {
    let Form { request: json, files, held: _held } = form;
    let request = prepare(port, caller, &json, files).await?;
    // A message may be large; it need not be in memory twice while it is composed and written.
    drop(json);
    let submitted = port.send(request).await?;
    request_log::note_submitted(&submitted);
    Ok(ok(&result(&submitted)))
}

/// The order of checks is the contract's (1.6): the first that fails is what the client is told.
async fn prepare<P: Port>(
    port: &Arc<P>,
    caller: Caller<'_>,
    json: &[u8],
    form_files: Vec<FormFile>,
) -> Result<SendRequest, Fault> {
    let request: Request = decode(json)?;
    let idempotency = caller.idempotency(Method::Send, &request, &form_files)?;
    if request.text.is_empty() && request.html.is_empty() {
        return Err(Fault::Request(Code::MissingBody, "at least text or html body required".to_owned()));
    }
    let from = sender(&**port, &caller.login, request.from)?;
    let mut given = Vec::new();
    let to = parse_people(request.to, &mut given)?;
    let cc = parse_people(request.cc, &mut given)?;
    let bcc = parse_people(request.bcc, &mut given)?;
    let recipients = Recipients::distinct([&to, &cc, &bcc], given)?;
    // A request that was accepted before is answered again, whatever has become of limits and addresses since.
    if idempotency.is_none() {
        preflight(port, &caller.login.account, &from.address, &recipients.addresses).await?;
    }
    let reply_to = parse_people(request.reply_to, &mut Vec::new())?;
    let mut files = Files::default();
    files.add(Role::Alternative, request.alternative_files)?;
    files.add(Role::Inline, request.inline_files)?;
    files.add(Role::Attached, request.attached_files)?;
    files.add_parts(form_files);
    check_extra(&request.extra)?;
    let draft = Draft {
        from,
        to,
        cc,
        bcc,
        reply_to,
        message_id: Some(request.message_id).filter(|id| !id.is_empty()),
        references: request.references,
        date: request.date.map(to_date).transpose()?,
        subject: request.subject,
        text: request.text,
        html: request.html,
        headers: request.headers.into_iter().map(|[name, value]| (name, value)).collect(),
        alternative_files: files.alternative,
        inline_files: files.inline,
        attached_files: files.attached,
    };
    Ok(SendRequest {
        login: caller.login,
        client: Some(caller.client),
        trace: trace::trace_id(caller.headers),
        idempotency,
        draft,
        recipients: recipients.into_pairs(),
        extra: request.extra,
        require_tls: request.require_tls,
        future_release: request.future_release.map(Time::to_timestamp),
        save_sent: request.save_sent,
    })
}

fn to_date(time: Time) -> Result<draft::Date, Fault> {
    time.to_date().ok_or_else(|| Fault::user("Date lies outside the years 1678 to 2261"))
}

fn result(submitted: &Submitted) -> Sent<'_> {
    let submissions = submitted.recipients.iter().map(|(address, id, fromid)| Submission {
        address,
        queue_msg_id: *id,
        from_id: fromid.as_ref().map_or("", |fromid| fromid.as_str()),
    });
    Sent { message_id: &submitted.message_id, submissions: submissions.collect() }
}

/// The From of the request, or the login's own address under the account's name.
fn sender<P: Port>(port: &P, login: &Login, mut from: Vec<Person>) -> Result<draft::NameAddress, Fault> {
    if from.len() > 1 {
        return Err(Fault::Request(Code::MultipleFrom, "multiple from-addresses not allowed".to_owned()));
    }
    match from.pop() {
        Some(person) => parse_person(person).map(|(person, _)| person),
        None => {
            let row = accounts::account(&port.view(), &login.account)?;
            let name = row.and_then(|account| account.full_name).unwrap_or_default();
            let address = login.address.clone().ok_or(Refusal::BadFrom)?;
            Ok(draft::NameAddress { name, address })
        }
    }
}

/// With the address as it was written.
fn parse_person(person: Person) -> Result<(draft::NameAddress, String), Fault> {
    let address = parse_address(&person.address)?;
    if person.name.chars().any(|c| c.is_ascii_control()) {
        return Err(Fault::user("checking header values: control characters not allowed"));
    }
    Ok((draft::NameAddress { name: person.name, address }, person.address))
}

/// Adds to `given` how each address was written.
fn parse_people(people: Vec<Person>, given: &mut Vec<String>) -> Result<Vec<draft::NameAddress>, Fault> {
    let parse = |person| {
        let (person, text) = parse_person(person)?;
        given.push(text);
        Ok(person)
    };
    people.into_iter().map(parse).collect()
}

/// Whom the message goes to, each once: the first way in which the request writes an address counts.
struct Recipients {
    addresses: Vec<Address>,
    given: Vec<String>,
}

impl Recipients {
    fn distinct(lists: [&[draft::NameAddress]; 3], given: Vec<String>) -> Result<Recipients, Fault> {
        let mut seen = HashSet::with_capacity(given.len());
        let mut distinct = Recipients { addresses: Vec::with_capacity(given.len()), given: Vec::new() };
        for (person, given) in lists.into_iter().flatten().zip(given) {
            if seen.insert(&person.address) {
                distinct.addresses.push(person.address.clone());
                distinct.given.push(given);
            }
        }
        if seen.len() > RECIPIENTS_MAX {
            return Err(Refusal::TooManyRecipients.into());
        }
        Ok(distinct)
    }

    fn into_pairs(self) -> Vec<(Address, String)> {
        self.addresses.into_iter().zip(self.given).collect()
    }
}

async fn preflight<P: Port>(
    port: &Arc<P>,
    account: &AccountName,
    from: &Address,
    recipients: &[Address],
) -> Result<(), Fault> {
    if recipients.len() <= QUICK_RECIPIENTS_MAX {
        return Ok(port.preflight(account, from, recipients)?);
    }
    let port = Arc::clone(port);
    let (account, from, recipients) = (account.clone(), from.clone(), recipients.to_vec());
    match tokio::task::spawn_blocking(move || port.preflight(&account, &from, &recipients)).await {
        Ok(result) => Ok(result?),
        Err(gone) => Err(Fault::Internal(format!("looking up recipients: {gone}"))),
    }
}

/// The files of a message: those of the JSON first, then those of the form.
#[derive(Default)]
struct Files {
    alternative: Vec<draft::File>,
    inline: Vec<draft::File>,
    attached: Vec<draft::File>,
}

impl Files {
    fn add(&mut self, role: Role, files: Vec<File<'_>>) -> Result<(), Fault> {
        for file in files {
            let File { name, content_type, content_id, data } = file;
            let data =
                decode_base64(&data).ok_or_else(|| Fault::user(format!("file {name:?}: data is no valid base64")))?;
            self.of(role).push(draft::File { name, content_type, content_id, data });
        }
        Ok(())
    }

    fn add_parts(&mut self, parts: Vec<FormFile>) {
        for FormFile { role, name, content_type, content_id, data } in parts {
            self.of(role).push(draft::File { name, content_type, content_id, data });
        }
    }

    fn of(&mut self, role: Role) -> &mut Vec<draft::File> {
        match role {
            Role::Alternative => &mut self.alternative,
            Role::Inline => &mut self.inline,
            Role::Attached => &mut self.attached,
        }
    }
}

/// RFC 4648 §4 with padding; line ends are skipped and unused bits ignored, as Go does it.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    if text.contains(['\r', '\n']) {
        return ENGINE.decode(text.replace(['\r', '\n'], "")).ok();
    }
    ENGINE.decode(text).ok()
}

fn check_extra(extra: &BTreeMap<String, String>) -> Result<(), Fault> {
    let bytes: usize = extra.iter().map(|(key, value)| key.len() + value.len()).sum();
    if extra.len() > EXTRA_KEYS_MAX {
        return Err(Fault::user(format!("Extra has more than {EXTRA_KEYS_MAX} keys")));
    }
    if extra.keys().any(|key| key.len() > EXTRA_KEY_BYTES_MAX) {
        return Err(Fault::user(format!("Extra has a key of more than {EXTRA_KEY_BYTES_MAX} bytes")));
    }
    if bytes > EXTRA_BYTES_MAX {
        return Err(Fault::user(format!("Extra has more than {EXTRA_BYTES_MAX} bytes")));
    }
    Ok(())
}
