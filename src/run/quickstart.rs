//! quickstart: writes a configuration, and makes the first domain and account of a real host.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use postledger_events::address::{Address, Domain};
use postledger_events::command::{AddAddress, ConfigureAccount, ConfigureDomain};
use postledger_events::fact::account::{Destination, DkimAlgorithm};
use postledger_events::id::{AccountName, Selector};
use postledger_events::{Answer, Command, Refusal};
use postledger_web::port::{ExecuteError, Port};

use super::{Error, Settings, command_line_author, write_admin_password};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::credentials::password::{Hashed, Prepared};
use crate::files;
use crate::ledger::{Ledger, Options};
use crate::mail::dkim;
use crate::program::Program;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Request {
    pub dir: PathBuf,
    pub hostname: Domain,
    /// The first address; its domain is the first domain.
    pub address: Address,
    pub account: AccountName,
}

/// Makes everything and prints what to do next.
pub async fn run(request: Request) -> Result<(), Error> {
    let Request { dir, hostname, address, account } = &request;
    let path = dir.join(config::FILE);
    if path.exists() {
        return Err(Error::Setup(format!("{} exists already; this directory is set up", path.display())));
    }
    if dir.join(super::localserve::IP_FILE).exists() {
        return Err(Error::Setup(format!("{} is localserve's directory; use another --dir", dir.display())));
    }
    files::create_private_dir(dir).map_err(|e| Error::File(dir.clone(), e))?;
    let text = config::DEFAULT.replace(config::DEFAULT_HOSTNAME, hostname.as_str());
    // The configuration is written last: it says that the rest is there.
    let settings = Settings::of(None)?;
    let clock = Clock::system();
    let options = Options { create: true, ..settings.options(dir, None) };
    let ledger = Ledger::open(options, clock.clone())?;
    let (admin_password, password) = (new_password(&clock), new_password(&clock));
    write_admin_password(dir, &Hashed::of(&Prepared::new(&admin_password).expect("plain text"), &clock))?;
    let program = settings.program(ledger, clock, None);
    let records = set_up(&program, address, account, &password).await?;
    program.ledger.close().await?;
    files::write_private(&path, text.as_bytes()).map_err(|e| Error::File(path.clone(), e))?;
    Config::load(dir)?;
    print(&request, &records, &admin_password, &password);
    Ok(())
}

/// Answers the DNS records to publish.
async fn set_up(
    program: &Program,
    address: &Address,
    account: &AccountName,
    password: &str,
) -> Result<Vec<String>, Error> {
    let by = command_line_author;
    let domain = &address.domain;
    let command = ConfigureDomain { domain: domain.clone(), create: true, change: Default::default(), by: by() };
    made(program.execute(Command::ConfigureDomain(command)).await)?;
    let mut records = Vec::new();
    for (selector, algorithm) in [("pl1", DkimAlgorithm::RsaSha256), ("pl2", DkimAlgorithm::Ed25519Sha256)] {
        let selector = Selector::new(selector).expect("a constant name is valid");
        let content = program.generate_dkim(domain, &selector, algorithm, by()).await.map_err(refused)?;
        records.push(dkim::zone_line(&format!("{selector}._domainkey.{domain}."), &content));
    }
    let command = ConfigureAccount { account: account.clone(), create: true, change: Default::default(), by: by() };
    made(program.execute(Command::ConfigureAccount(Box::new(command))).await)?;
    let to = Destination::Address(address.clone());
    let command = AddAddress { address: to, account: account.clone(), by: by() };
    made(program.execute(Command::AddAddress(command)).await)?;
    program.set_password(account, password, by()).await.map_err(refused)?;
    Ok(records)
}

/// What an earlier run that was cut off has made is there already.
fn made(made: Result<Answer, ExecuteError>) -> Result<(), Error> {
    match made {
        Ok(_) | Err(ExecuteError::Refused(Refusal::Exists(_))) => Ok(()),
        Err(e) => Err(refused(e)),
    }
}

fn refused(e: ExecuteError) -> Error {
    match e {
        ExecuteError::Refused(refusal) => Error::Setup(refusal.to_string()),
        ExecuteError::InFlight | ExecuteError::Unavailable(_) => {
            Error::Setup(format!("the ledger takes nothing: {e:?}"))
        }
    }
}

fn new_password(clock: &Clock) -> String {
    let random: [u8; 15] = clock.random();
    BASE64_URL_SAFE_NO_PAD.encode(random)
}

fn print(request: &Request, records: &[String], admin_password: &str, password: &str) {
    let Request { dir, address, account, .. } = request;
    let (dir, file) = (dir.display(), config::FILE);
    println!(
        "Wrote {dir}/{file} and made domain {domain}, account {account} and address {address}.

These passwords are shown only now:

  {address}   {password}
  admin   {admin_password}

Publish these DNS records, so that receivers can check the signatures of your mail:

{records}

Then say where mail goes next, and start the server:

  postledger transport set default --host smtp.example.net --port 587 --tls starttls --dir {dir}
  postledger serve --dir {dir}",
        domain = address.domain,
        records = records.join("\n"),
    );
}
