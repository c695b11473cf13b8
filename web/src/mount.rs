//! Where a part of the site is mounted: a path that begins and ends with a slash.

use std::fmt;
use std::str::FromStr;

/// A path such as `/webapi/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount(String);

impl Mount {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the slash at its end; empty for the root.
    pub fn without_slash(&self) -> &str {
        &self.0[..self.0.len() - 1]
    }
}

impl Default for Mount {
    fn default() -> Mount {
        Mount("/webapi/".to_owned())
    }
}

impl FromStr for Mount {
    type Err = Error;
    fn from_str(s: &str) -> Result<Mount, Error> {
        let plain = s.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b));
        if plain && s.starts_with('/') && s.ends_with('/') && !s.contains("//") {
            Ok(Mount(s.to_owned()))
        } else {
            Err(Error(s.chars().take(80).collect()))
        }
    }
}

/// The text is not such a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a path such as /webapi/ (letters, digits and -._~ between single slashes)", self.0)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |s: &str, without: Option<&str>| {
            assert_eq!(s.parse::<Mount>().ok().as_ref().map(Mount::without_slash), without, "{s:?}");
        };
        check("/webapi/", Some("/webapi"));
        check("/", Some(""));
        check("/a/b-c/", Some("/a/b-c"));
        check("/webapi", None);
        check("webapi/", None);
        check("//", None);
        check("/{x}/", None);
        check("", None);
    }
}
