//! Base addresses, and the pseudonyms that they are known by when the addresses are forgotten.

use aws_lc_rs::hmac;
use postledger_events::address::Address;
use postledger_events::fact::account::Fold;
use postledger_events::id::{AccountName, Fingerprint, RecipientKey};

/// What all variants of an address have in common, for people: the domain is in Unicode.
pub fn base_address(address: &Address, fold: Fold) -> String {
    format!("{}@{}", base_localpart(address.localpart.as_str(), fold), address.domain.to_unicode())
}

fn base_localpart(localpart: &str, fold: Fold) -> String {
    let cut = localpart.split('+').next().unwrap_or("");
    match fold {
        Fold::Plus => cut.to_lowercase(),
        Fold::Mox => cut.split('-').next().unwrap_or("").replace('.', "").to_lowercase(),
    }
}

/// The pseudonym of a recipient of an account: the same for all variants of its address.
pub fn recipient_key(pepper: &[u8; 32], account: &AccountName, address: &Address, fold: Fold) -> RecipientKey {
    let base = base_localpart(address.localpart.as_str(), fold);
    let tag =
        mac(pepper, &[b"recipient", account.as_str().as_bytes(), base.as_bytes(), address.domain.as_str().as_bytes()]);
    let mut key = [0; 16];
    key.copy_from_slice(&tag.as_ref()[..16]);
    RecipientKey(key)
}

/// Tells one secret from another without telling anything about it.
pub fn fingerprint(pepper: &[u8; 32], secret: &[u8]) -> Fingerprint {
    let tag = mac(pepper, &[b"secret", secret]);
    let mut out = [0; 8];
    out.copy_from_slice(&tag.as_ref()[..8]);
    Fingerprint(out)
}

fn mac(pepper: &[u8; 32], parts: &[&[u8]]) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pepper);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_addresses() {
        let check = |address: &str, fold: Fold, expect: &str| {
            assert_eq!(base_address(&Address::parse(address).unwrap(), fold), expect);
        };
        check("Remote.Last-catchall@xn--74h.localhost", Fold::Mox, "remotelast@☺.localhost");
        check("Remote.Last-catchall+x@xn--74h.localhost", Fold::Plus, "remote.last-catchall@☺.localhost");
        check("Sup.Pressed+tag@localhost", Fold::Mox, "suppressed@localhost");
        check("+x@localhost", Fold::Plus, "@localhost");
    }

    #[test]
    fn variants_share_a_pseudonym_and_accounts_do_not() {
        let (a, b) = (AccountName::new("a").unwrap(), AccountName::new("b").unwrap());
        let key =
            |account, address: &str| recipient_key(&[7; 32], account, &Address::parse(address).unwrap(), Fold::Plus);
        assert_eq!(key(&a, "X@example.org"), key(&a, "x+tag@EXAMPLE.org"));
        assert_ne!(key(&a, "x@example.org"), key(&b, "x@example.org"));
        assert_ne!(key(&a, "x@example.org"), key(&a, "y@example.org"));
    }
}
