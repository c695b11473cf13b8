//! Credentials of a request: a user name and a password (RFC 7617), or a key (RFC 6750).

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The key of a request with `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("Bearer ").then(|| token.trim())
}

/// A user name and password as they came.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    pub user: String,
    pub password: String,
}

impl Basic {
    /// `None` if there is no Authorization header or it is no Basic one.
    pub fn parse(headers: &HeaderMap) -> Option<Basic> {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, rest) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut text = String::from_utf8(STANDARD.decode(rest.trim_ascii()).ok()?).ok()?;
        let colon = text.find(':')?;
        let password = text.split_off(colon + 1);
        text.truncate(colon);
        Some(Basic { user: text, password })
    }
}

impl fmt::Debug for Basic {
    /// The password is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(header: Option<&[u8]>, expect: Option<(&str, &str)>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let got = Basic::parse(&headers);
        assert_eq!(got.as_ref().map(|b| (b.user.as_str(), b.password.as_str())), expect, "{header:?}");
    }

    #[test]
    fn credentials() {
        check(None, None);
        check(Some(b"Basic bW94QGxvY2FsaG9zdDptb3htb3htb3g="), Some(("mox@localhost", "moxmoxmox")));
        check(Some(b"bASIC bW94QGxvY2FsaG9zdDptb3htb3htb3g="), Some(("mox@localhost", "moxmoxmox")));
        check(Some(b"Basic YTpiOmM="), Some(("a", "b:c")));
        check(Some(b"Basic Og=="), Some(("", "")));
        check(Some(b"Basic YWJj"), None);
        check(Some(b"Basic !!!"), None);
        check(Some(b"Basic"), None);
        check(Some(b"Basic /zr/"), None);
        check(Some(b"Bearer bW94QGxvY2FsaG9zdDptb3htb3htb3g="), None);
    }

    #[test]
    fn keys() {
        let check = |header: &'static str, expect: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(header))]);
            assert_eq!(bearer(&headers), expect, "{header}");
        };
        check("Bearer pl_1_x", Some("pl_1_x"));
        check("bEARER  pl_1_x ", Some("pl_1_x"));
        check("Bearer", None);
        check("Basic YTpiOmM=", None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn the_password_is_not_shown() {
        let basic = Basic { user: "mox".to_owned(), password: "moxmoxmox1".to_owned() };
        assert!(!format!("{basic:?}").contains("moxmoxmox1"));
    }
}
