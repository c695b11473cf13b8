//! The request in a body: form field `request` (urlencoded or multipart) or a JSON body, and the files that go along.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;

use super::intake::{self, Held, Intake};
use super::media::Media;
use super::multipart::{self, HEADER_BYTES_MAX, Header, Multipart};
use crate::Config;
use crate::status::{Code, Fault};

/// Bytes of a urlencoded or JSON body.
pub const BODY_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Bytes of all parts of a multipart body that are no files.
const FIELD_BYTES_MAX: u64 = 10 * 1024 * 1024 + 200 * 1024;
/// Parts of a multipart body.
const PARTS_MAX: usize = 1000;

/// A request as text, and its files.
pub struct Form {
    pub request: Bytes,
    pub files: Vec<FormFile>,
    /// To be kept as long as the rest.
    pub held: Held,
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
    Ok(Form { request, files, held: intake.into_held() })
}

fn multipart_bytes_max(files_bytes_max: u64) -> u64 {
    files_bytes_max + FIELD_BYTES_MAX + (PARTS_MAX * HEADER_BYTES_MAX) as u64
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
    if !text.iter().any(coded) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    // Large contents come this way, so what stands between two codes is copied at once.
    while let Some(plain) = rest.iter().position(coded) {
        out.extend_from_slice(&rest[..plain]);
        rest = match &rest[plain..] {
            [b'%', high, low, after @ ..] => {
                out.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                after
            }
            [b'+', after @ ..] => {
                out.push(b' ');
                after
            }
            _ => return None,
        };
    }
    out.extend_from_slice(rest);
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

/// The first field `request` of multipart/form-data, and the files. A part is a file if it has a file name.
async fn read_multipart(
    media: &Media,
    intake: &mut Intake,
    files_bytes_max: u64,
) -> Result<(Bytes, Vec<FormFile>), Fault> {
    let mut multipart = Multipart::begin(media, intake).await.map_err(multipart_fault)?;
    let (mut request, mut files) = (None, Vec::new());
    let mut fields_left = Allowance::new(FIELD_BYTES_MAX, Code::Protocol, "form fields");
    let mut files_left = Allowance::new(files_bytes_max, Code::MessageTooLarge, "files");
    for _ in 0..PARTS_MAX {
        let Some(header) = multipart.next_part().await.map_err(multipart_fault)? else {
            return Ok((request.unwrap_or_default(), files));
        };
        if header.file_name.is_empty() {
            let wanted = header.name == "request" && request.is_none();
            let value = read_part(&mut multipart, &mut fields_left, wanted).await?;
            request = request.or(wanted.then_some(Bytes::from(value)));
            continue;
        }
        let role = Role::from_part_name(&header.name);
        let data = read_part(&mut multipart, &mut files_left, role.is_some()).await?;
        if let Some(role) = role {
            let Header { file_name, content_type, content_id, .. } = header;
            files.push(FormFile { role, name: file_name, content_type, content_id, data });
        }
    }
    Err(Fault::protocol(format!("parsing form: more than {PARTS_MAX} parts")))
}

/// The bytes of a part; those of a part that nobody wants are dropped as they come.
async fn read_part(multipart: &mut Multipart<'_>, left: &mut Allowance, wanted: bool) -> Result<Vec<u8>, Fault> {
    let mut data = Vec::new();
    while let Some(piece) = multipart.piece().await.map_err(multipart_fault)? {
        left.take(piece.len())?;
        if wanted {
            data.extend_from_slice(&piece);
        }
    }
    Ok(data)
}

/// Our own reading of the body may be what failed.
fn multipart_fault(error: multipart::Error) -> Fault {
    match error {
        multipart::Error::Intake(error @ intake::Error::TooLarge { .. }) => {
            Fault::Request(Code::MessageTooLarge, format!("parsing form: {error}"))
        }
        multipart::Error::Intake(error) => body_fault(error),
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

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use proptest::prelude::*;

    use super::*;

    fn read_form(content_type: &str, body: &[u8]) -> Result<Form, Fault> {
        let mut request = Request::builder();
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let config = Config { message_bytes_max: 1000, ..Config::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(read(&parts, Body::from(body.to_vec()), &config))
    }

    /// `expect` is the request, or the beginning of the message of a `protocol` fault.
    fn check(content_type: &str, body: &[u8], expect: Result<&str, &str>) {
        let got = read_form(content_type, body).map(|form| String::from_utf8_lossy(&form.request).into_owned());
        let got = got.map_err(|fault| match fault {
            Fault::Request(Code::Protocol, message) => message,
            other => format!("{other:?}"),
        });
        assert_eq!(got.as_deref().map_err(String::as_str), expect, "{content_type} {}", body.escape_ascii());
    }

    #[test]
    fn content_types() {
        let missing = Err("missing/empty request");
        check("application/x-www-form-urlencoded", b"request={}", Ok("{}"));
        check("Application/X-WWW-Form-urlencoded; charset=utf-8", b"request={}", Ok("{}"));
        check("application/json", b"{}", Ok("{}"));
        check("application/json; charset=utf-8", b"{}", Ok("{}"));
        check("application/json", b"", missing);
        check("text/plain", b"request={}", missing);
        check("", b"request={}", Err("unknown content-type "));
        check(";;", b"request={}", Err("unknown content-type ;;"));
        check("multipart/form-data", b"x", Err("parsing form: no multipart boundary param in Content-Type"));
    }

    #[test]
    fn urlencoded() {
        let check = |body: &[u8], expect| check("application/x-www-form-urlencoded", body, expect);
        let missing = Err("missing/empty request");
        let escape = Err("parsing form: invalid URL escape (% and two hex digits)");
        check(b"a=b&request=%7B%22a%22:+1%7d&&x", Ok("{\"a\": 1}"));
        check(b"r%65quest=1%2B1", Ok("1+1"));
        check(b"request=a=b", Ok("a=b"));
        check(b"request=first&request=second", Ok("first"));
        check("request=ü".as_bytes(), Ok("ü"));
        check(b"foo=bar", missing);
        check(b"Request={}", missing);
        check(b"request=", missing);
        check(b"request", missing);
        check(b"", missing);
        check(b"request=%7", escape);
        check(b"request=%zz", escape);
        check(b"request={}&x=%", escape);
        check(b"request={};x=1", Err("parsing form: invalid semicolon separator in query"));
    }

    const MULTIPART: &str = "multipart/form-data; boundary=b";

    fn part(header: &str, content: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {header}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn multipart_requests() {
        let request = |parts: &str, expect| check(MULTIPART, format!("{parts}--b--\r\n").as_bytes(), expect);
        request(&part("name=request", "{}"), Ok("{}"));
        request(&(part("name=\"request\"", "{}") + &part("name=request", "second")), Ok("{}"));
        request(&part("name=request\r\nContent-Type: application/json", "{}"), Ok("{}"));
        request(&part("name=request; filename=\"\"", "{}"), Ok("{}"));
        request(&part("name=request; filename=x", "{}"), Err("missing/empty request"));
        request(&part("name=x", "{}").repeat(PARTS_MAX + 1), Err("parsing form: more than 1000 parts"));
        check(MULTIPART, part("name=request", "{}").as_bytes(), Err("parsing form: multipart: NextPart: EOF"));
    }

    #[test]
    fn multipart_files() {
        let body = part("name=request", "{}")
            + &part(
                "name=inlinefile; filename=\"hi.png\"\r\nContent-Type: image/png\r\nContent-ID: <hi>",
                "\u{1}PNG\r\n",
            )
            + &part("name=attachedfile; filename=\"mox.bin\"", "\0")
            + &part("name=attachedfile", "no file")
            + &part("name=other; filename=x", "ignored")
            + &part("name=alternativefile; filename=\"ü.ics\"\r\nContent-Type: text/calendar", "BEGIN")
            + "--b--";
        let file = |role, name: &str, content_type: &str, content_id: &str, data: &str| FormFile {
            role,
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            content_id: content_id.to_owned(),
            data: data.as_bytes().to_vec(),
        };
        let expect = [
            file(Role::Inline, "hi.png", "image/png", "<hi>", "\u{1}PNG\r\n"),
            file(Role::Attached, "mox.bin", "", "", "\0"),
            file(Role::Alternative, "ü.ics", "text/calendar", "", "BEGIN"),
        ];
        assert_eq!(read_form(MULTIPART, body.as_bytes()).ok().map(|form| form.files).as_deref(), Some(&expect[..]));
    }

    #[test]
    fn files_are_bounded_together() {
        let files = |bytes: usize| {
            let file = part("name=attachedfile; filename=x", &"x".repeat(bytes));
            let body = format!("{}{file}{file}--b--", part("name=request", "{}"));
            read_form(MULTIPART, body.as_bytes()).map(|form| form.files.len())
        };
        assert_eq!(files(500), Ok(2));
        let too_large = "files of more than 1000 bytes".to_owned();
        assert_eq!(files(501), Err(Fault::Request(Code::MessageTooLarge, too_large)));
    }

    #[test]
    fn bodies_are_bounded() {
        let body = vec![b'x'; usize::try_from(BODY_BYTES_MAX).unwrap() + 1];
        for content_type in ["application/json", "application/x-www-form-urlencoded"] {
            let too_large = "parsing form: http: request body too large (more than 10485760 bytes)";
            check(content_type, &body, Err(too_large));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(body: Vec<u8>, kind in 0usize..3) {
            let kinds = ["application/x-www-form-urlencoded", MULTIPART, "application/json"];
            let _ = read_form(kinds[kind], &body);
        }

        #[test]
        fn no_escape_panics(body in "(request|=|&|%|\\+|;|[0-9a-f]|\\PC){0,40}") {
            let _ = read_form("application/x-www-form-urlencoded", body.as_bytes());
        }
    }
}
