//! An address that was taken is written so that everybody reads the same one, and cannot be more than an address.

use postledger::smtp::command::{Command, ForwardPath};
use postledger_events::address::{Address, DOMAIN_BYTES_MAX, Domain, LOCALPART_BYTES_MAX, Localpart};

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    [Address::parse(text), Address::parse_path(text)].into_iter().flatten().for_each(|address| check_address(&address));
    [Domain::new(text), Domain::parse_or_literal(text)].into_iter().flatten().for_each(|domain| check_domain(&domain));
    if let Ok(localpart) = Localpart::new(text) {
        check_address(&Address::new(localpart, Domain::new("example.org").expect("a name")));
    }
}

fn check_address(address: &Address) {
    let shown = address.to_string();
    assert!(!shown.contains(|c: char| c.is_control()), "{shown:?} holds a control character");
    assert!(address.localpart.as_str().len() <= LOCALPART_BYTES_MAX, "{shown} is longer than it may be");
    assert_eq!(Address::parse_path(&shown).as_ref(), Ok(address), "what is written is read again");
    let rcpt = Command::parse(&format!("RCPT TO:<{shown}>"));
    assert_eq!(rcpt, Ok(Command::Rcpt { to: ForwardPath::Mailbox(address.clone()) }));
    check_domain(&address.domain);
}

fn check_domain(domain: &Domain) {
    let name = domain.as_str();
    assert!(name.is_ascii() && name.len() <= DOMAIN_BYTES_MAX, "{name} goes over the wire");
    assert!(!name.contains(|c: char| c.is_control() || "<>@ \"".contains(c)), "{name} is no more than a domain");
    assert_eq!(Domain::parse_or_literal(name).as_ref(), Ok(domain), "what is written is read again");
    assert_eq!(Domain::parse_or_literal(&domain.to_unicode()).as_ref(), Ok(domain), "as people read it");
}
