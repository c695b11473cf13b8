//! Content-Type and Content-Disposition: a word or two and parameters, as Go's mime.ParseMediaType reads them.

/// A parsed header value. The type and the parameter names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    pub kind: String,
    params: Vec<(String, String)>,
}

impl Media {
    /// `None` if it is no such value.
    pub fn parse(value: &[u8]) -> Option<Media> {
        let end = value.iter().position(|&b| b == b';').unwrap_or(value.len());
        let kind = std::str::from_utf8(value[..end].trim_ascii()).ok()?.to_ascii_lowercase();
        if !kind.split('/').all(is_token) || kind.split('/').count() > 2 {
            return None;
        }
        let mut media = Media { kind, params: Vec::new() };
        let mut rest = value[end..].trim_ascii();
        while !matches!(rest, [] | [b';']) {
            let (name, value, after) = param(rest)?;
            if media.raw(&name).is_some() {
                return None;
            }
            media.params.push((name, value));
            rest = after.trim_ascii_start();
        }
        Some(media)
    }

    /// A parameter; given as `name*` (RFC 2231 §4) it is decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        match self.raw(name) {
            Some(plain) => Some(plain.to_owned()),
            None => extended(self.raw(&format!("{name}*"))?),
        }
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// `; name=value` and what follows it.
fn param(rest: &[u8]) -> Option<(String, String, &[u8])> {
    let rest = rest.strip_prefix(b";")?.trim_ascii_start();
    let equals = rest.iter().position(|&b| b == b'=')?;
    let name = std::str::from_utf8(rest[..equals].trim_ascii()).ok()?;
    if !is_token(name) {
        return None;
    }
    let rest = rest[equals + 1..].trim_ascii_start();
    let (value, after) = match rest {
        [b'"', quoted @ ..] => quoted_string(quoted)?,
        _ => {
            let end = rest.iter().position(|&b| !is_token_byte(b)).unwrap_or(rest.len());
            (rest[..end].to_vec(), &rest[end..])
        }
    };
    Some((name.to_ascii_lowercase(), String::from_utf8_lossy(&value).into_owned(), after))
}

/// Browsers send Windows paths with single backslashes: one quotes only what would need it.
fn quoted_string(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((value, after)),
            [b'\\', special, after @ ..] if is_special(*special) => {
                value.push(*special);
                rest = after;
            }
            [b'\r' | b'\n', ..] | [] => return None,
            [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
        }
    }
}

/// RFC 2231 §4: `utf-8'language'text` with percent escapes.
fn extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let charset = parts.next()?;
    let text = parts.nth(1)?;
    if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("us-ascii") {
        return None;
    }
    let bytes = super::form::percent_decode(text.as_bytes(), false)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn is_token(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(is_token_byte)
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !is_special(b)
}

/// RFC 2045 §5.1 tspecials.
fn is_special(b: u8) -> bool {
    b"()<>@,;:\\\"/[]?=".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, kind: Option<&str>, params: &[(&str, &str)]) {
        let media = Media::parse(value.as_bytes());
        assert_eq!(media.as_ref().map(|m| m.kind.as_str()), kind, "{value:?}");
        for (name, expect) in params {
            assert_eq!(media.as_ref().and_then(|m| m.param(name)).as_deref(), Some(*expect), "{value:?}");
        }
    }

    #[test]
    fn values() {
        check("application/json", Some("application/json"), &[]);
        check("Application/JSON; Charset=UTF-8;", Some("application/json"), &[("charset", "UTF-8")]);
        check("multipart/form-data; boundary=\"a b\"", Some("multipart/form-data"), &[("boundary", "a b")]);
        check(
            "form-data; name=\"x\"; filename=\"a;b=\\\"c\\\".txt\"",
            Some("form-data"),
            &[("filename", "a;b=\"c\".txt")],
        );
        check("form-data; filename=\"C:\\dir\\a.txt\"", Some("form-data"), &[("filename", "C:\\dir\\a.txt")]);
        check("form-data; filename=\"ü.txt\"", Some("form-data"), &[("filename", "ü.txt")]);
        check("form-data; filename*=utf-8''%e2%98%ba.txt", Some("form-data"), &[("filename", "☺.txt")]);
        check(";;", None, &[]);
        check("", None, &[]);
        check("a/b/c", None, &[]);
        check("text/plain; x", None, &[]);
        check("text/plain; a=1; a=2", None, &[]);
        check("text/plain; a=\"1", None, &[]);
        check("text/plain; a=b c", None, &[]);
    }
}
