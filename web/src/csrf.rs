//! Requests that another site makes a browser send. Browsers remember Basic credentials, so they would succeed.

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

/// Whether another site caused this request. Programs send neither header and are never refused.
pub fn is_cross_site(parts: &Parts, forwarded: bool) -> bool {
    let site = parts.headers.get("sec-fetch-site").map(|v| v.as_bytes());
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return true;
    }
    let Some(origin) = parts.headers.get(header::ORIGIN) else { return false };
    let Some(host) = origin.to_str().ok().and_then(host_of_origin) else { return true };
    !own_hosts(parts, forwarded).any(|own| own.eq_ignore_ascii_case(host))
}

/// Host and port of `https://host:port`; `None` for `null` and the like.
fn host_of_origin(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, host)| host)
}

/// What the client called us: in HTTP/2 the authority, else Host; and what a proxy says that it was called.
fn own_hosts(parts: &Parts, forwarded: bool) -> impl Iterator<Item = &str> {
    let authority = parts.uri.authority().map(|a| a.as_str());
    let host = text(&parts.headers, header::HOST.as_str());
    let proxied = text(&parts.headers, "x-forwarded-host").filter(|_| forwarded);
    [authority, host, proxied].into_iter().flatten()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(headers: &[(&str, &str)], forwarded: bool, expect: bool) {
        let mut request = Request::builder().uri("/webapi/v0/Send");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        assert_eq!(is_cross_site(&parts, forwarded), expect, "{headers:?}");
    }

    #[test]
    fn sites() {
        let host = ("host", "mail.example:1080");
        check(&[host], false, false);
        check(&[host, ("sec-fetch-site", "same-origin")], false, false);
        check(&[host, ("sec-fetch-site", "none")], false, false);
        check(&[host, ("sec-fetch-site", "cross-site")], false, true);
        check(&[host, ("sec-fetch-site", "same-site")], false, true);
        check(&[host, ("origin", "http://mail.example:1080")], false, false);
        check(&[host, ("origin", "http://MAIL.example:1080")], false, false);
        check(&[host, ("origin", "http://mail.example")], false, true);
        check(&[host, ("origin", "http://evil.example")], false, true);
        check(&[host, ("origin", "null")], false, true);
        check(&[("origin", "http://mail.example")], false, true);
        let proxied = ("x-forwarded-host", "public.example");
        check(&[host, proxied, ("origin", "https://public.example")], true, false);
        check(&[host, proxied, ("origin", "https://public.example")], false, true);
    }
}
