//! The request in a body: form field `request` (urlencoded or multipart) or a JSON body, and the files that go along.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use multer::{Field, Multipart};

use super::intake::{self, Held, Intake};
use super::media::Media;
use crate::Config;
use crate::status::{Code, Fault};

/// Bytes of a urlencoded or JSON body.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Bytes of all parts of a multipart body that are no files.
const FIELD_BYTES_MAX: u64 = 10 * 1024 * 1024 + 200 * 1024;
/// Parts of a multipart body.
const PARTS_MAX: usize = 1000;
/// Bytes of the lines around one part.
const PART_OVERHEAD_BYTES_MAX: u64 = 10 * 1024;

/// A request as text, and its files.
pub struct Form {
    pub request: Bytes,
    pub files: Vec<FormFile>,
    _held: Held,
}

/// A file part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormFile {
    pub role: Role,
    pub name: String,
    pub content_type: String,
    pub content_id: String,
    pub data: Vec<u8>,
}

/// Where in the message a file goes; the part's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Alternative,
    Inline,
    Attached,
}

impl Role {
    fn from_part_name(name: &str) -> Option<Role> {
        match name {
            "alternativefile" => Some(Role::Alternative),
            "inlinefile" => Some(Role::Inline),
            "attachedfile" => Some(Role::Attached),
            _ => None,
        }
    }

    pub fn part_name(self) -> &'static str {
        match self {
            Role::Alternative => "alternativefile",
            Role::Inline => "inlinefile",
            Role::Attached => "attachedfile",
        }
    }
}

/// Reads the body of a request.
pub async fn read(parts: &Parts, body: Body, config: &Config) -> Result<Form, Fault> {
    let content_type = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let Some(media) = Media::parse(content_type) else {
        return Err(Fault::protocol(format!("unknown content-type {}", content_type.escape_ascii())));
    };
    let bytes_max = match media.kind.as_str() {
        "multipart/form-data" => multipart_bytes_max(config.message_bytes_max),
        _ => BODY_BYTES_MAX,
    };
    let mut intake = Intake::new(body, &parts.headers, &config.intake, bytes_max);
    let (request, files) = match media.kind.as_str() {
        "multipart/form-data" => read_multipart(&media, &mut intake, config.message_bytes_max).await?,
        "application/json" => (whole(&mut intake).await?, Vec::new()),
        "application/x-www-form-urlencoded" => (urlencoded_request(&whole(&mut intake).await?)?, Vec::new()),
        _ => (Bytes::new(), Vec::new()),
    };
    if request.is_empty() {
        return Err(Fault::protocol("missing/empty request"));
    }
    Ok(Form { request, files, _held: intake.into_held() })
}

fn multipart_bytes_max(files_bytes_max: u64) -> u64 {
    files_bytes_max + FIELD_BYTES_MAX + PARTS_MAX as u64 * PART_OVERHEAD_BYTES_MAX
}

async fn whole(intake: &mut Intake) -> Result<Bytes, Fault> {
    intake.whole().await.map_err(body_fault)
}

fn body_fault(error: intake::Error) -> Fault {
    match error {
        intake::Error::Busy => Fault::busy(),
        error => Fault::protocol(format!("parsing form: {error}")),
    }
}

/// The first field `request` of application/x-www-form-urlencoded, as Go's url.ParseQuery reads it.
fn urlencoded_request(body: &[u8]) -> Result<Bytes, Fault> {
    let mut request = None;
    for pair in body.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
        if pair.contains(&b';') {
            return Err(Fault::protocol("parsing form: invalid semicolon separator in query"));
        }
        let equals = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let (key, value) = (&pair[..equals], pair.get(equals + 1..).unwrap_or_default());
        let decode = |text| {
            percent_decode(text, true)
                .ok_or_else(|| Fault::protocol("parsing form: invalid URL escape (% and two hex digits)"))
        };
        let (key, value) = (decode(key)?, decode(value)?);
        if request.is_none() && *key == *b"request" {
            request = Some(Bytes::from(value.into_owned()));
        }
    }
    Ok(request.unwrap_or_default())
}

/// `None` if a `%` is not followed by two hexadecimal digits.
pub fn percent_decode(text: &[u8], plus_is_space: bool) -> Option<Cow<'_, [u8]>> {
    let coded = |b: &u8| *b == b'%' || (plus_is_space && *b == b'+');
    let Some(first) = text.iter().position(coded) else { return Some(Cow::Borrowed(text)) };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (high, low) = (hex_digit(*rest.first()?)?, hex_digit(*rest.get(1)?)?);
                out.push(high << 4 | low);
                rest = &rest[2..];
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    Some(Cow::Owned(out))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The first field `request` of multipart/form-data (RFC 7578), and the files. A part is a file if it has a file name.
async fn read_multipart(
    media: &Media,
    intake: &mut Intake,
    files_bytes_max: u64,
) -> Result<(Bytes, Vec<FormFile>), Fault> {
    let boundary = media.param("boundary").filter(|b| !b.is_empty() && b.len() <= 70);
    let boundary =
        boundary.ok_or_else(|| Fault::protocol("parsing form: no multipart boundary param in Content-Type"))?;
    let mut multipart = Multipart::new(Box::pin(intake.pieces()), boundary);
    let (mut request, mut files) = (None, Vec::new());
    let mut fields_left = Allowance::new(FIELD_BYTES_MAX, Code::Protocol, "form fields");
    let mut files_left = Allowance::new(files_bytes_max, Code::MessageTooLarge, "files");
    for _ in 0..PARTS_MAX {
        let Some(mut field) = multipart.next_field().await.map_err(multipart_fault)? else {
            return Ok((request.unwrap_or_default(), files));
        };
        let disposition = Media::parse(header_of(&field, "content-disposition")).unwrap_or_default();
        let part_name = disposition.param("name").unwrap_or_default();
        let file_name = disposition.param("filename").map(|path| base_name(&path).to_owned()).unwrap_or_default();
        if file_name.is_empty() {
            let wanted = part_name == "request" && request.is_none();
            let value = read_part(&mut field, &mut fields_left, wanted).await?;
            request = request.or(wanted.then_some(Bytes::from(value)));
            continue;
        }
        let role = Role::from_part_name(&part_name);
        let data = read_part(&mut field, &mut files_left, role.is_some()).await?;
        if let Some(role) = role {
            let text = |name| String::from_utf8_lossy(header_of(&field, name)).into_owned();
            let (content_type, content_id) = (text("content-type"), text("content-id"));
            files.push(FormFile { role, name: file_name, content_type, content_id, data });
        }
    }
    Err(Fault::protocol(format!("parsing form: more than {PARTS_MAX} parts")))
}

/// The bytes of a part; those of a part that nobody wants are dropped as they come.
async fn read_part(field: &mut Field<'_>, left: &mut Allowance, wanted: bool) -> Result<Vec<u8>, Fault> {
    let mut data = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(multipart_fault)? {
        left.take(piece.len())?;
        if wanted {
            data.extend_from_slice(&piece);
        }
    }
    Ok(data)
}

fn header_of<'f>(field: &'f Field<'_>, name: &str) -> &'f [u8] {
    field.headers().get(name).map_or(&b""[..], |v| v.as_bytes())
}

/// What comes after the last slash, as Go's filepath.Base.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Our own reading of the body may be what failed.
fn multipart_fault(error: multer::Error) -> Fault {
    match &error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast_ref::<intake::Error>() {
            Some(error) => body_fault(*error),
            None => Fault::protocol(format!("parsing form: {inner}")),
        },
        error => Fault::protocol(format!("parsing form: {error}")),
    }
}

/// Bytes that parts of one kind may still have.
struct Allowance {
    left: u64,
    bytes_max: u64,
    code: Code,
    what: &'static str,
}

impl Allowance {
    fn new(bytes_max: u64, code: Code, what: &'static str) -> Allowance {
        Allowance { left: bytes_max, bytes_max, code, what }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::Request(self.code, format!("{} of more than {} bytes", self.what, self.bytes_max))),
        }
    }
}
