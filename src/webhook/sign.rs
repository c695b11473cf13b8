//! Standard Webhooks 1.0: how an endpoint knows that a call is ours. Pure.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postledger_events::time::Timestamp;
use zeroize::Zeroizing;

/// What the text of a secret begins with.
const PREFIX: &str = "whsec_";
/// Octets of a secret.
const SECRET_BYTES_MIN: usize = 24;
const SECRET_BYTES_MAX: usize = 64;
/// Octets of a secret that we make.
pub const SECRET_BYTES: usize = 32;

/// The key of a signature.
pub struct Secret(hmac::Key);

/// The text is no secret of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is `{PREFIX}` and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} octets")]
pub struct Error;

impl Secret {
    pub fn parse(text: &str) -> Result<Secret, Error> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(Error)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_| Error)?);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(Error);
        }
        Ok(Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

/// The text of a secret that is made of these random octets.
pub fn secret_text(random: &[u8; SECRET_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(random)))
}

/// The value of `webhook-signature`: one signature for each secret, over what the headers and the body say.
pub fn signatures(secrets: &[Secret], webhook_id: &str, at: Timestamp, body: &[u8]) -> String {
    let head = format!("{webhook_id}.{}.", at.as_secs());
    let signed = secrets.iter().map(|secret| {
        let mut context = hmac::Context::with_key(&secret.0);
        context.update(head.as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    });
    signed.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(vec![7; bytes]))
    }

    #[test]
    fn secrets_have_one_form() {
        let check = |text: &str, expect: bool| assert_eq!(Secret::parse(text).is_ok(), expect, "{text}");
        check(&text(SECRET_BYTES_MIN), true);
        check(&text(SECRET_BYTES_MAX), true);
        check(&text(SECRET_BYTES_MIN - 1), false);
        check(&text(SECRET_BYTES_MAX + 1), false);
        check(text(32).trim_start_matches(PREFIX), false);
        check("whsec_???", false);
        check(&secret_text(&[9; SECRET_BYTES]), true);
    }

    #[test]
    fn the_example_of_the_specification() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let got = signatures(
            &[secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_secs(1_614_265_330),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(got, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_library_of_the_specification_takes_each_signature() {
        let texts = [text(24), text(64)];
        let secrets: Vec<Secret> = texts.iter().map(|text| Secret::parse(text).unwrap()).collect();
        // The library compares with its own clock, so what it takes is signed for its now.
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let value = signatures(&secrets, "id-1", Timestamp::from_secs(i64::try_from(now).unwrap()), b"{}");
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", "id-1".parse().unwrap());
        headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
        headers.insert("webhook-signature", value.parse().unwrap());
        for text in &texts {
            let library = standardwebhooks::Webhook::new(text).unwrap();
            assert!(library.verify(b"{}", &headers).is_ok());
            assert!(library.verify(b"{ }", &headers).is_err());
        }
    }
}
