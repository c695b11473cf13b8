//! Who is at the other end.

use std::net::{IpAddr, SocketAddr};

use axum::http::request::Parts;

/// The other end of a connection; the accept loop adds it to each request as an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub addr: SocketAddr,
    pub tls: bool,
}

/// The user of this machine at the other end of the control socket; the accept loop adds it to each request as an extension.
/// Requests with it are trusted as the administrator's and need no password, so nothing that listens on TCP may add it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser(pub String);

/// The client of a request: the peer, or on a `forwarded` listener the first element of X-Forwarded-For. `None` if the
/// proxy does not say or says nonsense.
pub fn client(parts: &Parts, forwarded: bool) -> Option<IpAddr> {
    let ip = if forwarded {
        let list = parts.headers.get("x-forwarded-for")?.to_str().ok()?;
        list.split(',').next()?.trim().parse().ok()?
    } else {
        parts.extensions.get::<Peer>()?.addr.ip()
    };
    // A dual-stack listener sees IPv4 clients as ::ffff:192.0.2.1; limits and records know them by their IPv4 address.
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(peer: Option<&str>, forwarded_for: Option<&str>, forwarded: bool, expect: Option<&str>) {
        let mut request = Request::new(());
        if let Some(addr) = peer {
            request.extensions_mut().insert(Peer { addr: addr.parse().unwrap(), tls: false });
        }
        if let Some(list) = forwarded_for {
            request.headers_mut().insert("x-forwarded-for", list.parse().unwrap());
        }
        let got = client(&request.into_parts().0, forwarded).map(|ip| ip.to_string());
        assert_eq!(got.as_deref(), expect, "{peer:?} {forwarded_for:?} {forwarded}");
    }

    #[test]
    fn clients() {
        check(Some("192.0.2.1:5"), None, false, Some("192.0.2.1"));
        check(Some("[::ffff:192.0.2.1]:5"), None, false, Some("192.0.2.1"));
        check(Some("192.0.2.1:5"), Some("198.51.100.7"), false, Some("192.0.2.1"));
        check(Some("192.0.2.1:5"), Some(" 198.51.100.7 , 10.0.0.1"), true, Some("198.51.100.7"));
        check(Some("192.0.2.1:5"), Some("2001:db8::1"), true, Some("2001:db8::1"));
        check(Some("192.0.2.1:5"), None, true, None);
        check(Some("192.0.2.1:5"), Some("unknown"), true, None);
        check(None, None, false, None);
    }
}
