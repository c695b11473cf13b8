//! Idempotency-Key: the same request again is the same request, however it is written.

use std::io;

use axum::http::HeaderMap;
use postledger_events::command::IdempotencyKey;
use postledger_events::id::Sha256;
use serde::Serialize;
use sha2::Digest;

use super::form::FormFile;
use crate::openapi::{Parameter, Place, Schema};
use crate::status::Fault;

/// Characters of a key.
const KEY_CHARS_MAX: usize = 255;

/// The key of a request, if it has one. Requests are compared as they were understood: case and order of keys, forms and
/// multipart boundaries do not matter.
pub fn key(
    headers: &HeaderMap,
    method: &'static str,
    request: &impl Serialize,
    files: &[FormFile],
) -> Result<Option<IdempotencyKey>, Fault> {
    let text = text(headers).map_err(Fault::user)?;
    Ok(text.map(|key| IdempotencyKey { method, key, request: hash(request, files) }))
}

/// The key as it was given.
pub fn text(headers: &HeaderMap) -> Result<Option<String>, String> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.as_bytes();
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !key.iter().all(u8::is_ascii_graphic) {
        return Err(format!("Idempotency-Key must be 1 to {KEY_CHARS_MAX} visible ASCII characters"));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// The header, for the description of the APIs.
pub fn parameter() -> Parameter {
    let doc = "Makes it safe to repeat the request: the same key and request are done once and answered each time.";
    let schema = Schema::text("order-123").with_description(doc);
    Parameter { place: Place::Header, name: "Idempotency-Key".to_owned(), required: false, schema }
}

fn hash(request: &impl Serialize, files: &[FormFile]) -> Sha256 {
    let files: Vec<_> = files
        .iter()
        .map(|f| (f.role.part_name(), &f.name, &f.content_type, &f.content_id, Sha256::of(&f.data)))
        .collect();
    let mut hasher = Hasher(sha2::Sha256::new());
    serde_json::to_writer(&mut hasher, &(request, files))
        .expect("requests have string keys only, and hashing cannot fail");
    Sha256(hasher.0.finalize().into())
}

/// Hashes what is written to it.
struct Hasher(sha2::Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webapi::form::Role;

    fn key_of(value: &[u8]) -> Result<Option<String>, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", axum::http::HeaderValue::from_bytes(value).unwrap());
        key(&headers, "Send", &(), &[]).map(|k| k.map(|k| k.key))
    }

    #[test]
    fn keys() {
        assert_eq!(key(&HeaderMap::new(), "Send", &(), &[]), Ok(None));
        assert_eq!(key_of(b"order-1"), Ok(Some("order-1".to_owned())));
        assert_eq!(key_of(&[b'a'; 255]).map(|k| k.map(|k| k.len())), Ok(Some(255)));
        for bad in [&b""[..], b"a b", "ü".as_bytes(), &[b'a'; 256]] {
            assert!(key_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_part_counts() {
        let file = |name: &str, data: &str| FormFile {
            role: Role::Attached,
            name: name.to_owned(),
            content_type: String::new(),
            content_id: String::new(),
            data: data.as_bytes().to_vec(),
        };
        let hashes = [
            hash(&"a", &[]),
            hash(&"b", &[]),
            hash(&"a", &[file("x", "1")]),
            hash(&"a", &[file("x", "2")]),
            hash(&"a", &[file("y", "1")]),
            hash(&"a", &[file("x", "1"), file("x", "1")]),
        ];
        for (n, one) in hashes.iter().enumerate() {
            assert!(!hashes[..n].contains(one), "{n}");
        }
        assert_eq!(hash(&"a", &[file("x", "1")]), hashes[2]);
    }
}
