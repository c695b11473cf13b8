//! Where a call goes, and where none may go: a URL is somebody's wish, and must not lead into networks that only we can reach. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

/// Networks that are special although their addresses look as all others (the registries of RFC 6890 and what was added since).
const SPECIAL_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// All else of IPv6 is special: loopback, mapped addresses, NAT64, unique local, link-local, multicast.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Teredo and other protocols, documentation, 6to4, documentation.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Special networks that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<IpNet>);

impl Allowed {
    pub fn new(networks: Vec<IpNet>) -> Allowed {
        Allowed(networks)
    }

    /// This machine itself.
    pub fn loopback() -> Allowed {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        Allowed(vec![v4.into(), Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into()])
    }

    /// Whether calls may go to this address. A mapped address (RFC 4291 §2.5.5.2) is the one that it maps.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        !is_special(ip) || self.0.iter().any(|network| network.contains(&ip))
    }
}

fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().any(|(start, len)| Ipv4Net::new_assert(*start, *len).contains(&ip)),
        IpAddr::V6(ip) => {
            let within = |(start, len): (Ipv6Addr, u8)| Ipv6Net::new_assert(start, len).contains(&ip);
            !within(GLOBAL_V6) || SPECIAL_V6.into_iter().any(within)
        }
    }
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub tls: bool,
    pub host: TargetHost,
    pub port: u16,
    /// The value of the Host header.
    pub authority: String,
    pub path_and_query: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHost {
    /// In ASCII.
    Name(String),
    Literal(IpAddr),
}

/// The URL is none that can be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the URL cannot be read: {0}")]
    Unreadable(String),
    #[error("the URL begins with neither http:// nor https://")]
    Scheme,
    #[error("the URL has a user name or password; give them as the value of Authorization")]
    UserInfo,
    #[error("the URL has no host")]
    Host,
}

impl Target {
    pub fn parse(url: &str) -> Result<Target, Error> {
        let url = Url::parse(url).map_err(|e| Error::Unreadable(e.to_string()))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(Error::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        // Numbers in whatever notation are addresses here already, so none reaches a resolver.
        let host = match url.host().ok_or(Error::Host)? {
            Host::Domain(name) => TargetHost::Name(name.to_owned()),
            Host::Ipv4(ip) => TargetHost::Literal(ip.into()),
            Host::Ipv6(ip) => TargetHost::Literal(ip.into()),
        };
        let name = url.host_str().ok_or(Error::Host)?;
        let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let port = url.port_or_known_default().ok_or(Error::Host)?;
        Ok(Target { tls, host, port, authority, path_and_query: format!("{}{query}", url.path()) })
    }

    /// Tells connections apart that may not stand in for each other.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permits(allowed: &Allowed, ip: &str) -> bool {
        allowed.permits(ip.parse().unwrap())
    }

    #[test]
    fn special_addresses() {
        let none = Allowed::default();
        let special = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for ip in special {
            assert!(!permits(&none, ip), "{ip}");
        }
        let plain = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "2606:4700::1111",
            "2001:200::1",
            "2003::1",
            "2a00::1",
        ];
        for ip in plain {
            assert!(permits(&none, ip), "{ip}");
        }
    }

    #[test]
    fn what_the_operator_allows() {
        let loopback = Allowed::loopback();
        for ip in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"] {
            assert!(permits(&loopback, ip), "{ip}");
        }
        for ip in ["10.0.0.1", "::", "fe80::1", "64:ff9b::7f00:1", "::127.0.0.1", "2002:7f00:1::1"] {
            assert!(!permits(&loopback, ip), "{ip}");
        }
        let given = Allowed::new(vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (ip, expect) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("fd00::1", true)] {
            assert_eq!(permits(&given, ip), expect, "{ip}");
        }
    }

    #[test]
    fn urls() {
        let check = |url: &str, expect: &str| {
            let got = match Target::parse(url) {
                Ok(t) => format!("{} {:?} {} {}", t.origin(), t.host, t.port, t.path_and_query),
                Err(e) => e.to_string(),
            };
            assert!(got.starts_with(expect), "{url}: {got:?}, not {expect:?}");
        };
        check("https://example.org", "https://example.org Name(\"example.org\") 443 /");
        check("http://Example.org:8080/a%20b?c=d#e", "http://example.org:8080 Name(\"example.org\") 8080 /a%20b?c=d");
        check("https://example.org:443/", "https://example.org Name");
        check("http://127.0.0.1/", "http://127.0.0.1 Literal(127.0.0.1) 80 /");
        check("http://2130706433/", "http://127.0.0.1 Literal(127.0.0.1)");
        check("http://0x7f.1/", "http://127.0.0.1 Literal(127.0.0.1)");
        check("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1] Literal(::ffff:127.0.0.1)");
        check("ftp://example.org/", "the URL begins with neither");
        check("file:///etc/passwd", "the URL begins with neither");
        check("https://me:secret@example.org/", "the URL has a user name");
        check("https://me@example.org/", "the URL has a user name");
        check("https://", "the URL cannot be read");
        check("example.org", "the URL cannot be read");
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_as_what_it_maps(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let none = Allowed::default();
            prop_assert_eq!(none.permits(v4.into()), none.permits(v4.to_ipv6_mapped().into()));
        }

        #[test]
        fn what_the_standard_library_knows_as_special_is(bits: u32, wide: u128) {
            let (v4, v6) = (Ipv4Addr::from_bits(bits), Ipv6Addr::from_bits(wide));
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!special || !Allowed::default().permits(v4.into()));
            let special = v6.is_loopback() || v6.is_multicast() || v6.is_unique_local() || v6.is_unicast_link_local();
            prop_assert!(!special || !Allowed::default().permits(v6.into()));
        }

        #[test]
        fn an_address_within_another_opens_no_door(bits: u32) {
            let v4 = u128::from(bits);
            // NAT64, IPv4-compatible, 6to4 and Teredo.
            let forms = [0x0064_ff9b_u128 << 96 | v4, v4, 0x2002_u128 << 112 | v4 << 80, 0x2001_u128 << 112 | v4];
            for form in forms {
                prop_assert!(!Allowed::default().permits(Ipv6Addr::from_bits(form).into()));
            }
        }

        #[test]
        fn any_notation_of_an_address_is_seen_as_one(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            for host in [bits.to_string(), format!("0x{bits:x}"), format!("0{bits:o}"), v4.to_string()] {
                let target = Target::parse(&format!("http://{host}/")).unwrap();
                prop_assert_eq!(target.host, TargetHost::Literal(v4.into()));
            }
        }

        #[test]
        fn never_panics(url in "\\PC{0,60}", rest in "[a-z0-9.:@\\[\\]/?%#-]{0,40}") {
            let _ = Target::parse(&url);
            let _ = Target::parse(&format!("http://{rest}"));
        }
    }
}
