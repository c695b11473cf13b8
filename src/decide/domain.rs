//! Domains of ours.

use postledger_events::Refusal;
use postledger_events::command::{ConfigureDomain, RemoveDomain};
use postledger_events::fact::account::{Destination, DomainConfigured, DomainRemoved, DomainSettings};
use postledger_events::id::SecretId;
use postledger_events::refusal::Thing;
use postledger_projections::{Rows, accounts};

use super::{Decision, damaged};

const SEPARATORS_MAX: usize = 8;
const SELECTORS_MAX: usize = 20;

pub fn configure(c: &ConfigureDomain, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let before = accounts::domain(rows, &c.domain).map_err(damaged)?;
    let mut settings = match before {
        Some(_) if c.create => return Err(Refusal::Exists(Thing::Domain(c.domain.to_string()))),
        None if !c.create => return Err(Refusal::NoSuch(Thing::Domain(c.domain.to_string()))),
        Some(row) => row.settings,
        None => DomainSettings { separators: vec!['+'], ..DomainSettings::default() },
    };
    let forgotten = apply(c, &mut settings)?;
    check(c, &settings, rows)?;
    let mut decision = Decision::done(DomainConfigured { domain: c.domain.clone(), settings, by: c.by.clone() });
    decision.forget_secrets = forgotten;
    Ok(decision)
}

pub fn remove(c: &RemoveDomain, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = accounts::domain(rows, &c.domain).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Domain(c.domain.to_string())))?;
    if let Some(address) = accounts::any_address_in(rows, &c.domain).map_err(damaged)? {
        return Err(Refusal::InUse(format!("address {} of account {}", address.address, address.account)));
    }
    let mut decision = Decision::done(DomainRemoved { domain: c.domain.clone(), by: c.by.clone() });
    decision.forget_secrets = row.settings.dkim.values().map(|key| key.private_key.id).collect();
    Ok(decision)
}

/// Changes the settings; answers the private keys that are no longer needed.
fn apply(c: &ConfigureDomain, settings: &mut DomainSettings) -> Result<Vec<SecretId>, Refusal> {
    let change = &c.change;
    settings.disabled = change.disabled.unwrap_or(settings.disabled);
    settings.localpart_case_sensitive = change.localpart_case_sensitive.unwrap_or(settings.localpart_case_sensitive);
    if let Some(separators) = &change.separators {
        settings.separators.clone_from(separators);
    }
    let mut forgotten = Vec::new();
    for (selector, key) in &change.dkim {
        let before = match key {
            Some(key) => settings.dkim.insert(selector.to_string(), key.clone()),
            None => {
                let removed = settings.dkim.remove(selector.as_str());
                Some(removed.ok_or_else(|| Refusal::NoSuch(Thing::Selector(selector.to_string())))?)
            }
        };
        forgotten.extend(before.map(|key| key.private_key.id));
    }
    for (selector, signing) in &change.dkim_signing {
        let key = settings.dkim.get_mut(selector.as_str());
        key.ok_or_else(|| Refusal::NoSuch(Thing::Selector(selector.to_string())))?.signing = *signing;
    }
    Ok(forgotten)
}

fn check(c: &ConfigureDomain, settings: &DomainSettings, rows: &dyn Rows) -> Result<(), Refusal> {
    let s = &settings.separators;
    let one_by_one = s.iter().enumerate().all(|(n, c)| "+-_=.~#".contains(*c) && !s[..n].contains(c));
    if s.len() > SEPARATORS_MAX || !one_by_one {
        let why = format!("separators are at most {SEPARATORS_MAX} different ones of + - _ = . ~ #");
        return Err(Refusal::Invalid(why));
    }
    if settings.dkim.len() > SELECTORS_MAX {
        return Err(Refusal::Invalid(format!("a domain has at most {SELECTORS_MAX} DKIM selectors")));
    }
    check_addresses(c, settings, rows)?;
    if s.is_empty() {
        let all = accounts::accounts(rows).map_err(damaged)?;
        let in_domain = |row: &&accounts::AccountRow| row.settings.fromid_logins.iter().any(|a| a.domain == c.domain);
        if let Some(row) = all.iter().find(in_domain) {
            return Err(Refusal::InUse(format!(
                "account {} has fromid logins here, which need a separator",
                row.account
            )));
        }
    }
    Ok(())
}

/// Addresses are looked up by their canonical form, so a change of that form must leave all that were given out as they are.
fn check_addresses(c: &ConfigureDomain, settings: &DomainSettings, rows: &dyn Rows) -> Result<(), Refusal> {
    if c.change.separators.is_none() && c.change.localpart_case_sensitive.is_none() {
        return Ok(());
    }
    let given_out = accounts::addresses(rows).map_err(damaged)?;
    let unreachable = given_out.iter().find(|row| match &row.address {
        Destination::Address(a) => a.domain == c.domain && accounts::canonical(a, settings).as_ref() != Some(a),
        Destination::CatchAll(_) => false,
    });
    match unreachable {
        Some(row) => Err(Refusal::InUse(format!("address {} could not be reached any more", row.address))),
        None => Ok(()),
    }
}
