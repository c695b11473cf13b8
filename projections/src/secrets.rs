//! Which secrets the rows name. The vault has their values.

use postledger_events::id::{KeyId, SecretRef};

use crate::rows::{Error, Rows};
use crate::{access, accounts, calls};

/// What a secret is, for people, and where it is.
pub type Named = (String, SecretRef);

/// Keys that are read at once.
const PAGE: usize = 1_000;

/// All that the rows name.
pub fn named(rows: &(impl Rows + ?Sized)) -> Result<Vec<Named>, Error> {
    let mut named = Vec::new();
    for row in accounts::accounts(rows)? {
        let password = row.settings.password.map(|secret| (format!("the password of account {}", row.account), secret));
        named.extend(password);
    }
    for row in accounts::domains(rows)? {
        let what = |selector: &str| format!("the private key of DKIM selector {selector} of {}", row.domain);
        named.extend(row.settings.dkim.iter().map(|(selector, key)| (what(selector), key.private_key)));
    }
    for row in accounts::transports(rows)? {
        let what = format!("the password of transport {}", row.transport);
        named.extend(row.settings.credentials.map(|credentials| (what, credentials.password)));
    }
    for row in calls::all_endpoints(rows)? {
        let of = format!("endpoint {} of account {}", row.endpoint, row.account);
        named.extend(row.settings.authorization.map(|secret| (format!("the Authorization of {of}"), secret)));
        named.extend(row.settings.secrets.iter().map(|secret| (format!("a signing secret of {of}"), *secret)));
    }
    keys(rows, &mut named)?;
    Ok(named)
}

fn keys(rows: &(impl Rows + ?Sized), named: &mut Vec<Named>) -> Result<(), Error> {
    let mut from = KeyId(0);
    loop {
        let page = access::keys(rows, from, PAGE)?;
        named.extend(page.iter().map(|row| (format!("the hash of key {}", row.key), row.hash)));
        match page.last() {
            Some(last) if page.len() == PAGE => from = KeyId(last.key.0 + 1),
            Some(_) | None => return Ok(()),
        }
    }
}
