//! multipart/form-data (RFC 7578) split into its parts as it comes in: in linear time, holding one piece at a time.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

use super::intake::{self, Intake};
use super::media::Media;

/// Characters of a boundary (RFC 2046 §5.1.1).
const BOUNDARY_CHARS_MAX: usize = 70;
/// Bytes of the header of one part, and of what precedes the first.
pub const HEADER_BYTES_MAX: usize = 10 * 1024;

/// A multipart body that is being read: for each part, first its header and then all its pieces.
pub struct Multipart<'i> {
    intake: &'i mut Intake,
    /// What was read from the intake and not yet from here.
    buffer: BytesMut,
    /// The line end and dashes before the boundary, and the boundary.
    delimiter: Finder<'static>,
}

/// The header of a part, as far as forms use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    /// Without folders; empty if the part is no file.
    pub file_name: String,
    pub content_type: String,
    pub content_id: String,
}

impl<'i> Multipart<'i> {
    /// Reads up to the first part.
    pub async fn begin(media: &Media, intake: &'i mut Intake) -> Result<Multipart<'i>, Error> {
        let boundary = media.param("boundary").filter(|b| (1..=BOUNDARY_CHARS_MAX).contains(&b.len()));
        let delimiter = format!("\r\n--{}", boundary.ok_or(Error::NoBoundary)?);
        let delimiter = Finder::new(delimiter.as_bytes()).into_owned();
        // The first boundary may stand at the very beginning, without a line end before it.
        let mut multipart = Multipart { intake, buffer: BytesMut::from(&b"\r\n"[..]), delimiter };
        let mut preamble_bytes = 0;
        while let Some(piece) = multipart.piece().await? {
            preamble_bytes += piece.len();
            if preamble_bytes > HEADER_BYTES_MAX {
                return Err(Error::HeaderTooLarge);
            }
        }
        Ok(multipart)
    }

    /// The header of the next part; `None` after the last. All pieces of the part before must have been read.
    pub async fn next_part(&mut self) -> Result<Option<Header>, Error> {
        // The last delimiter need not be followed by a line end.
        if self.buffer.starts_with(b"--") {
            return Ok(None);
        }
        self.line(HEADER_BYTES_MAX).await?;
        let mut fields: Vec<Vec<u8>> = Vec::new();
        let mut left = HEADER_BYTES_MAX;
        loop {
            let line = self.line(left).await?;
            left = left.saturating_sub(line.len() + 1);
            match (line.trim_ascii(), fields.last_mut()) {
                ([], _) => return Ok(Some(Header::parse(&fields))),
                // RFC 5322 §2.2.3: a line that begins with white space goes on with the field before.
                (more, Some(field)) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    field.push(b' ');
                    field.extend_from_slice(more);
                }
                (field, _) => fields.push(field.to_vec()),
            }
        }
    }

    /// The next piece of the part's content; `None` at its end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.find_delimiter() {
                Found::Here => {
                    self.buffer.advance(self.delimiter.needle().len());
                    return Ok(None);
                }
                Found::NotBefore(at) if at > 0 => return Ok(Some(self.buffer.split_to(at).freeze())),
                Found::NotBefore(_) => self.more().await?,
            }
        }
    }

    /// What is before the delimiter is content. What could be the beginning of one is not yet.
    fn find_delimiter(&self) -> Found {
        let mut from = 0;
        while let Some(at) = self.delimiter.find(&self.buffer[from..]) {
            let at = from + at;
            let after = at + self.delimiter.needle().len();
            match &self.buffer[after..] {
                [b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-', ..] if at == 0 => return Found::Here,
                [b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-', ..] | [] | [b'-'] => return Found::NotBefore(at),
                // A longer word that begins like our boundary is content.
                _ => from = after,
            }
        }
        let could_begin = self.delimiter.needle().len() - 1;
        Found::NotBefore(self.buffer.len().saturating_sub(could_begin).max(from))
    }

    /// A line without its end.
    async fn line(&mut self, bytes_max: usize) -> Result<BytesMut, Error> {
        let mut from = 0;
        loop {
            let end = memchr::memchr(b'\n', &self.buffer[from..]).map(|end| from + end);
            if end.unwrap_or(self.buffer.len()) > bytes_max {
                return Err(Error::HeaderTooLarge);
            }
            if let Some(end) = end {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(line);
            }
            from = self.buffer.len();
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Error> {
        let piece = self.intake.piece().await.map_err(Error::Intake)?.ok_or(Error::End)?;
        self.buffer.extend_from_slice(&piece);
        Ok(())
    }
}

/// Where the next delimiter is.
enum Found {
    Here,
    /// It is not in this many bytes.
    NotBefore(usize),
}

impl Header {
    fn parse(fields: &[Vec<u8>]) -> Header {
        let find = |name: &str| {
            let value = fields.iter().find_map(|field| {
                let (key, value) = field.split_at_checked(name.len())?;
                value.strip_prefix(b":").filter(|_| key.eq_ignore_ascii_case(name.as_bytes()))
            });
            value.unwrap_or_default().trim_ascii()
        };
        let text = |name| String::from_utf8_lossy(find(name)).into_owned();
        let disposition = Media::parse(find("content-disposition")).unwrap_or_default();
        Header {
            name: disposition.param("name").unwrap_or_default(),
            file_name: disposition.param("filename").map(|path| base_name(&path).to_owned()).unwrap_or_default(),
            content_type: text("content-type"),
            content_id: text("content-id"),
        }
    }
}

/// What comes after the last slash, as Go's filepath.Base.
fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The body is no such form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    NoBoundary,
    End,
    HeaderTooLarge,
    Intake(intake::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBoundary => f.write_str("no multipart boundary param in Content-Type"),
            Error::End => f.write_str("multipart: NextPart: EOF"),
            Error::HeaderTooLarge => write!(f, "multipart: header of a part has more than {HEADER_BYTES_MAX} bytes"),
            Error::Intake(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::HeaderMap;
    use futures_util::{StreamExt, stream};
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;

    /// Name, file name and content of each part, read in pieces of `piece_bytes`.
    fn split(body: &str, boundary: &str, piece_bytes: usize) -> Result<Vec<(String, String, Vec<u8>)>, Error> {
        let pieces: Vec<Bytes> = body.as_bytes().chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        let body = Body::from_stream(stream::iter(pieces).map(Ok::<_, std::io::Error>));
        let media = Media::parse(format!("multipart/form-data; boundary=\"{boundary}\"").as_bytes()).unwrap();
        let mut intake = Intake::new(body, &HeaderMap::new(), &Arc::new(Semaphore::new(1 << 20)), 1 << 20);
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let mut multipart = Multipart::begin(&media, &mut intake).await?;
            let mut parts = Vec::new();
            while let Some(header) = multipart.next_part().await? {
                let mut content = Vec::new();
                while let Some(piece) = multipart.piece().await? {
                    content.extend_from_slice(&piece);
                }
                parts.push((header.name, header.file_name, content));
            }
            Ok(parts)
        })
    }

    /// `expect` has a line `name|file name|content` for each part.
    fn check(body: &str, expect: Result<&[&str], Error>) {
        for piece_bytes in [1, 2, 3, 7, 1000] {
            let show = |(name, file, content): (String, String, Vec<u8>)| {
                format!("{name}|{file}|{}", String::from_utf8_lossy(&content))
            };
            let got = split(body, "b", piece_bytes).map(|parts| parts.into_iter().map(show).collect::<Vec<_>>());
            let expect = expect.map(|parts| parts.iter().map(|p| (*p).to_owned()).collect());
            assert_eq!(got, expect, "{body:?} in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn parts() {
        let part = |name: &str, content: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
        };
        check(&format!("{}--b--\r\n", part("x", "1")), Ok(&["x||1"]));
        check(&format!("{}{}--b--", part("x", "1"), part("y", "")), Ok(&["x||1", "y||"]));
        check(&format!("preamble\r\n{}--b--\r\nepilogue", part("x", "1")), Ok(&["x||1"]));
        check(
            &format!("{}--b--", part("x", "\r\n--bc\r\n--\r\n-b\n--b\n\r\n")),
            Ok(&["x||\r\n--bc\r\n--\r\n-b\n--b\n\r\n"]),
        );
        check("--b  \r\n\r\ncontent\r\n--b--", Ok(&["||content"]));
        check(
            "--b\r\nCONTENT-disposition: form-data;\r\n name=x; filename=\"dir/f.txt\"\r\n\r\n\0\r\n--b--",
            Ok(&["x|f.txt|\0"]),
        );
        check("--b--", Ok(&[]));
        check("", Err(Error::End));
        check("no boundary at all", Err(Error::End));
        check(&part("x", "1"), Err(Error::End));
        check("--b\r\nContent-Disposition", Err(Error::End));
        check(&format!("--b\r\nX: {}\r\n\r\n\r\n--b--", "y".repeat(HEADER_BYTES_MAX)), Err(Error::HeaderTooLarge));
        check(&"x".repeat(2 * HEADER_BYTES_MAX), Err(Error::HeaderTooLarge));
    }

    #[test]
    fn boundaries() {
        assert_eq!(split("", "", 1), Err(Error::NoBoundary));
        assert_eq!(split("", &"b".repeat(71), 1), Err(Error::NoBoundary));
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split(content in "[\r\n\\-bc]{0,40}", piece_bytes in 1usize..20) {
            prop_assume!(!content.contains("--boundary"));
            let body = format!("--boundary\r\n\r\n{content}\r\n--boundary--\r\n");
            let expect = vec![(String::new(), String::new(), content.into_bytes())];
            prop_assert_eq!(split(&body, "boundary", piece_bytes), Ok(expect));
        }

        #[test]
        fn nothing_panics(body in "(--b|\r\n|\n|-|b|:|[a-z]|\\PC){0,60}", piece_bytes in 1usize..20) {
            let _ = split(&body, "b", piece_bytes);
        }
    }
}
