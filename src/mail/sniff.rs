//! The type of a file without one, by its first bytes, as the WHATWG MIME Sniffing standard finds it.

/// How much of a file is looked at.
const SNIFFED_BYTES_MAX: usize = 512;

/// Tags that make an HTML document, each followed by a space or `>` (WHATWG MIME Sniffing §7.1).
const HTML_TAGS: [&str; 17] = [
    "<!DOCTYPE HTML",
    "<HTML",
    "<HEAD",
    "<SCRIPT",
    "<IFRAME",
    "<H1",
    "<DIV",
    "<FONT",
    "<TABLE",
    "<A",
    "<STYLE",
    "<TITLE",
    "<B",
    "<BODY",
    "<BR",
    "<P",
    "<!--",
];

const SIGNATURES: [(&[u8], &str); 14] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", TEXT),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"OggS\x00", "application/ogg"),
    (b"ID3", "audio/mpeg"),
];

const TEXT: &str = "text/plain; charset=utf-8";
const UNKNOWN: &str = "application/octet-stream";

pub fn content_type(data: &[u8]) -> &'static str {
    let head = &data[..data.len().min(SNIFFED_BYTES_MAX)];
    if let Some(markup) = markup(head.trim_ascii_start()) {
        return markup;
    }
    if let Some((_, found)) = SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)) {
        return found;
    }
    if head.starts_with(b"RIFF") && head.get(8..14) == Some(b"WEBPVP") {
        return "image/webp";
    }
    // The standard says text here whatever the charset; a reader that believed in UTF-8 would garble other bytes.
    if head.iter().any(is_binary) || std::str::from_utf8(data).is_err() { UNKNOWN } else { TEXT }
}

fn markup(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"<?xml") {
        return Some("text/xml; charset=utf-8");
    }
    HTML_TAGS.iter().any(|tag| is_tag(head, tag)).then_some("text/html; charset=utf-8")
}

fn is_tag(head: &[u8], tag: &str) -> bool {
    let starts = head.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()));
    starts && (tag == "<!--" || matches!(head.get(tag.len()), Some(b' ' | b'>')))
}

/// WHATWG MIME Sniffing §3 binary data byte.
fn is_binary(b: &u8) -> bool {
    matches!(b, 0x00..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_types() {
        let check = |data: &[u8], expect: &str| assert_eq!(content_type(data), expect, "{data:?}");
        check(b"", TEXT);
        check(b"hello\r\n", TEXT);
        check("\u{263a}".as_bytes(), TEXT);
        check(b"\0\x01\x02", UNKNOWN);
        check(b"latin \xe9", UNKNOWN);
        check(b" \n<html>", "text/html; charset=utf-8");
        check(b"<!doctype html >", "text/html; charset=utf-8");
        check(b"<a href=x>", "text/html; charset=utf-8");
        check(b"<about>", TEXT);
        check(b"<?xml version='1.0'?>", "text/xml; charset=utf-8");
        check(b"%PDF-1.7", "application/pdf");
        check(b"\x89PNG\r\n\x1a\n....", "image/png");
        check(b"\xff\xd8\xff\xe0", "image/jpeg");
        check(b"GIF89a", "image/gif");
        check(b"RIFF\x01\x02\x03\x04WEBPVP8 ", "image/webp");
        check(b"PK\x03\x04\x14", "application/zip");
        check(b"\x1f\x8b\x08\x00", "application/x-gzip");
    }
}
