//! A copy of the vault that was changed anywhere is not taken.

use postledger::ledger::Secrets;

use super::changed;

/// As `postledger backup-vault` writes it.
const COPY: &[u8] = include_bytes!("../seeds/vault/copy");

/// As a file of its own, and as a change of one that is sound.
pub fn check(bytes: &[u8]) {
    if let Ok(secrets) = Secrets::from_json(bytes) {
        let written = secrets.to_json();
        let again = Secrets::from_json(&written).expect("what is written is read again");
        assert!(*again.to_json() == *written, "it is read as something else");
    }
    let Some(changed) = changed(COPY, bytes) else { return };
    let sound = Secrets::from_json(COPY).expect("it is sound");
    // Spaces and unknown fields change nothing.
    if let Ok(secrets) = Secrets::from_json(&changed) {
        assert!(secrets.to_json() == sound.to_json(), "the change {} is taken", bytes.escape_ascii());
    }
}
