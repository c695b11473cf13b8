//! localserve: everything on this machine, for trying things out. Mail goes to its own listener, whoever it is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postledger_events::Command;
use postledger_events::address::{Address, Domain};
use postledger_events::command::{AccountChange, AddAddress, ConfigureAccount, ConfigureDomain, DomainChange};
use postledger_events::fact::account::{Destination, DkimAlgorithm, Fold, TransportTls};
use postledger_events::id::{AccountName, Author, Selector, TransportName};
use postledger_projections::accounts;
use postledger_web::Mount;
use postledger_web::port::{ExecuteError, NewTransport, Port};

use super::doors::{self, Doors};
use super::{Error, Settings, command_line_author, intake, write_admin_password};
use crate::certificate::{Certificate, Files, make_self_signed};
use crate::clock::Clock;
use crate::credentials::password::{Hashed, Prepared};
use crate::ledger::{Ledger, Options};
use crate::program::Program;
use crate::receive::{Listener, Local};
use crate::smtp::drive::ServerConfig;
use crate::{deliver, files, http};

pub const HOSTNAME: &str = "localhost";
const ACCOUNT: &str = "mox";
const ADDRESS: &str = "mox@localhost";
const PASSWORD: &str = "moxmoxmox";
const ADMIN_PASSWORD: &str = "moxadmin";
const SELECTOR: &str = "localserve";
const KEEP_S: u64 = 72 * 3600;
/// The address that it listens on, remembered from its first start.
pub const IP_FILE: &str = "localserve-ip";

/// Ports of the services that are up.
const SMTP_PORT: u16 = 1025;
const HTTP_PORT: u16 = 1080;
const HTTPS_PORT: u16 = 1443;
const METRICS_PORT: u16 = 1081;
const CONNECTIONS: u32 = 20;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Request {
    pub dir: PathBuf,
    /// Instead of 127.0.0.1 and ::1.
    pub ip: Option<IpAddr>,
    /// All waits between attempts are divided by this.
    pub retry_scale: u32,
    pub accept_clock: bool,
}

/// Runs until it is told to stop.
pub async fn run(request: Request) -> Result<(), Error> {
    let dir = &request.dir;
    if dir.join(crate::config::FILE).exists() {
        let why =
            format!("{} is a real server's directory; localserve would open it to a published password", dir.display());
        return Err(Error::Setup(format!("{why}: use another --dir, or `postledger serve`")));
    }
    files::create_private_dir(dir).map_err(|e| Error::File(dir.clone(), e))?;
    let clock = Clock::system();
    let settings = Settings { retry_scale: request.retry_scale, ..Settings::of(None)? };
    let accept_clock = request.accept_clock.then(command_line_author);
    let options = Options { create: true, ..settings.options(dir, accept_clock) };
    let ledger = open(options, clock.clone()).await?;
    let served = serve(&request, settings, ledger.clone(), clock).await;
    if served.is_err() {
        // A start that fails leaves a directory that opens without questions.
        ledger.close().await?;
    }
    served
}

async fn serve(request: &Request, settings: Settings, ledger: Ledger, clock: Clock) -> Result<(), Error> {
    let dir = &request.dir;
    let ips = listening(dir, request.ip)?;
    let certificate_files = Files { certificate: dir.join("localhost.crt"), key: dir.join("localhost.key") };
    let mut names = vec![HOSTNAME.to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
    names.extend(ips.iter().map(ToString::to_string).filter(|ip| !names.contains(ip)).collect::<Vec<_>>());
    make_self_signed(&certificate_files, names)?;
    let certificate = Certificate::open(certificate_files.clone())?;

    let admin = Hashed::of(&Prepared::new(ADMIN_PASSWORD).expect("plain text"), &clock);
    write_admin_password(dir, &admin)?;
    let program = settings.program(ledger, clock, Some(admin));
    set_up(&program, ips[0]).await?;
    let doors = open_doors(&program, dir, &ips, &certificate)?;
    let roots = deliver::TlsRoots::Given(certificate_files.roots()?);
    greet(dir, ips[0]);
    if !ips[0].is_loopback() {
        tracing::warn!("{} is no loopback address: whoever reaches it can log in with the published passwords", ips[0]);
    }
    let hostname = Domain::new(HOSTNAME).expect("a constant name is valid");
    doors::run(program, doors, hostname, roots).await
}

async fn open(options: Options, clock: Clock) -> Result<Ledger, Error> {
    let opened = tokio::task::spawn_blocking(move || Ledger::open(options, clock)).await;
    Ok(opened.map_err(|e| Error::Setup(e.to_string()))??)
}

/// The addresses to listen on. The first start decides; later ones keep to it.
fn listening(dir: &Path, asked: Option<IpAddr>) -> Result<Vec<IpAddr>, Error> {
    let path = dir.join(IP_FILE);
    let both = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let text = asked.map(|ip| ip.to_string()).unwrap_or_default();
            files::write_public(&path, text.as_bytes()).map_err(|e| Error::File(path.clone(), e))?;
            text
        }
        Err(e) => return Err(Error::File(path, e)),
    };
    let ip: Option<IpAddr> = match text.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| Error::Setup(format!("{} holds no address", path.display())))?),
    };
    match (asked, ip) {
        (Some(asked), ip) if ip != Some(asked) => {
            let before = ip.map_or("127.0.0.1 and ::1".to_owned(), |ip| ip.to_string());
            Err(Error::Setup(format!("{} was made for {before}; use another --dir for {asked}", dir.display())))
        }
        (_, Some(ip)) => Ok(vec![ip]),
        (_, None) => Ok(both()),
    }
}

/// Makes what is missing: also when an earlier start was cut off in the middle.
async fn set_up(program: &Program, ip: IpAddr) -> Result<(), Error> {
    let domain = Domain::new(HOSTNAME).expect("a constant name is valid");
    let account = AccountName::new(ACCOUNT).expect("a constant name is valid");
    let address = Destination::Address(Address::parse(ADDRESS).expect("a constant address is valid"));
    let selector = Selector::new(SELECTOR).expect("a constant name is valid");
    let transport = TransportName::new("default").expect("a constant name is valid");
    let by = Author::program;
    let rows = || program.ledger.snapshot();
    let failed = |e: postledger_projections::Error| Error::Setup(e.to_string());

    if accounts::domain(&rows(), &domain).map_err(failed)?.is_none() {
        let change = DomainChange::default();
        let command = ConfigureDomain { domain: domain.clone(), create: true, change, by: by() };
        program.execute(Command::ConfigureDomain(command)).await.map_err(refused)?;
    }
    let keys = accounts::domain(&rows(), &domain).map_err(failed)?.map(|row| row.settings);
    if keys.is_none_or(|settings| settings.dkim.is_empty()) {
        program.generate_dkim(&domain, &selector, DkimAlgorithm::Ed25519Sha256, by()).await.map_err(refused)?;
    }
    if accounts::account(&rows(), &account).map_err(failed)?.is_none() {
        let change = AccountChange {
            keep_s: Some(KEEP_S),
            messages_per_day_max: Some(None),
            first_time_recipients_per_day_max: Some(None),
            fold: Some(Fold::Mox),
            ..AccountChange::default()
        };
        let command = ConfigureAccount { account: account.clone(), create: true, change, by: by() };
        program.execute(Command::ConfigureAccount(Box::new(command))).await.map_err(refused)?;
    }
    if accounts::address(&rows(), &address).map_err(failed)?.is_none() {
        let command = AddAddress { address, account: account.clone(), by: by() };
        program.execute(Command::AddAddress(command)).await.map_err(refused)?;
    }
    let row = accounts::account(&rows(), &account).map_err(failed)?;
    if row.is_some_and(|row| row.settings.password.is_none()) {
        program.set_password(&account, PASSWORD, by()).await.map_err(refused)?;
    }
    if accounts::transport(&rows(), &transport).map_err(failed)?.is_none() {
        let new = NewTransport {
            name: transport,
            host: ip.to_string(),
            port: SMTP_PORT,
            tls: TransportTls::Starttls,
            credentials: None,
            connections_max: CONNECTIONS,
        };
        program.set_transport(new, by()).await.map_err(refused)?;
    }
    Ok(())
}

fn refused(e: ExecuteError) -> Error {
    Error::Setup(match e {
        ExecuteError::Refused(refusal) => refusal.to_string(),
        ExecuteError::InFlight | ExecuteError::Unavailable(_) => format!("the ledger takes nothing: {e:?}"),
    })
}

fn open_doors(
    program: &Arc<Program>,
    dir: &Path,
    ips: &[IpAddr],
    certificate: &Arc<Certificate>,
) -> Result<Doors, Error> {
    let (intake, size) = (intake(), postledger_web::MESSAGE_BYTES_MAX);
    let listener = Arc::new(Listener {
        ledger: program.ledger.clone(),
        clock: program.clock.clone(),
        config: Arc::new(ServerConfig {
            hostname: Domain::new(HOSTNAME).expect("a constant name is valid"),
            size_max: usize::try_from(size).unwrap_or(usize::MAX),
            tls: Some(certificate.server_config(&[])?),
            timeouts: Default::default(),
        }),
        intake: Arc::clone(&intake),
        local: Some(Local {
            account: AccountName::new(ACCOUNT).expect("a constant name is valid"),
            address: Address::parse(ADDRESS).expect("a constant address is valid"),
        }),
    });
    let tls = certificate.server_config(&[b"h2", b"http/1.1"])?;
    let control = doors::control(dir)?;
    let certificate = Some(Arc::clone(certificate));
    let mut doors = Doors { http: Vec::new(), smtp: Vec::new(), metrics: Vec::new(), control, certificate };
    for (n, ip) in ips.iter().enumerate() {
        let at = |port| SocketAddr::new(*ip, port);
        let smtp = match http::bind(at(SMTP_PORT), "SMTP") {
            // A machine without IPv6 is served on IPv4 alone.
            Err(e) if n > 0 && e.kind() == std::io::ErrorKind::AddrNotAvailable => continue,
            bound => bound?,
        };
        doors.smtp.push((smtp, Arc::clone(&listener)));
        let webapi = Mount::default;
        doors.http.push(doors::http_door(at(HTTP_PORT), webapi(), false, size, None, &intake)?);
        let tls = Some(Arc::clone(&tls));
        doors.http.push(doors::http_door(at(HTTPS_PORT), webapi(), false, size, tls, &intake)?);
        doors.metrics.push(http::bind(at(METRICS_PORT), "metrics")?);
    }
    Ok(doors)
}

fn greet(dir: &Path, ip: IpAddr) {
    let host = SocketAddr::new(ip, HTTP_PORT);
    let (https, smtp) = (SocketAddr::new(ip, HTTPS_PORT), SocketAddr::new(ip, SMTP_PORT));
    let (metrics, dir) = (SocketAddr::new(ip, METRICS_PORT), dir.display());
    println!(
        "postledger localserve is up; all mail goes to its own listener. Stop it with Ctrl-C.

  webapi       http://{host}/webapi/v0/   (also https://{https}/)
               user {ADDRESS}, password {PASSWORD}
  native API   http://{host}/api/v1/   user admin, password {ADMIN_PASSWORD}
  SMTP         {smtp}
  metrics      http://{metrics}/metrics
  directory    {dir}

Send a message:

  curl --user {ADDRESS}:{PASSWORD} http://{host}/webapi/v0/Send \\
    --data-urlencode 'request={{\"To\":[{{\"Address\":\"you@example.org\"}}],\"Subject\":\"hi\",\"Text\":\"hello\"}}'

See what became of it (1 is the QueueMsgID of the answer), and what arrived:

  postledger show 1 --dir {dir}
  postledger inbox list --dir {dir} {ACCOUNT}

Failures can be ordered by address: try it with xpermerror@example.org, xtemperror@example.org or rcptto550@example.org."
    );
}
