//! Addresses of the native API, with whatever people type in them escaped.

use std::fmt;

/// A path below the API's prefix, and the conditions behind the question mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    path: String,
    conditions: Vec<(&'static str, String)>,
}

impl Query {
    /// Each part is one step of the path.
    pub fn path(parts: &[&str]) -> Query {
        let path = parts.iter().map(|part| format!("/{}", Escaped(part))).collect();
        Query { path, conditions: Vec::new() }
    }

    /// With a condition, if there is a value for it.
    pub fn with(mut self, name: &'static str, value: Option<impl fmt::Display>) -> Query {
        self.conditions.extend(value.map(|value| (name, value.to_string())));
        self
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (n, (name, value)) in self.conditions.iter().enumerate() {
            write!(f, "{}{name}={}", if n == 0 { '?' } else { '&' }, Escaped(value))?;
        }
        Ok(())
    }
}

/// A text with everything but the unreserved characters of RFC 3986 §2.3 percent-encoded.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_typed_stays_in_its_place() {
        let check = |query: Query, expect: &str| assert_eq!(query.to_string(), expect);
        check(Query::path(&["queue"]), "/queue");
        check(Query::path(&["addresses", "a/b?c@d"]), "/addresses/a%2Fb%3Fc%40d");
        let query = Query::path(&["queue"]).with("account", Some("a&b=c")).with("to", None::<String>);
        check(query.with("from", Some("ü +")), "/queue?account=a%26b%3Dc&from=%C3%BC%20%2B");
    }
}
