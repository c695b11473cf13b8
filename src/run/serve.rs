//! serve: a server with the configuration of its directory.

use std::path::PathBuf;
use std::sync::Arc;

use super::doors::{self, Doors};
use super::{Error, Settings, admin_password, command_line_author, intake};
use crate::certificate::Certificate;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::program::Program;
use crate::{deliver, http};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Request {
    pub dir: PathBuf,
    pub accept_clock: bool,
}

/// Runs until it is told to stop.
pub async fn run(request: Request) -> Result<(), Error> {
    let dir = &request.dir;
    let config = Config::load(dir)?;
    let settings = Settings::of(Some(&config))?;
    let certificate = config.certificate_files().map(Certificate::open).transpose()?;
    let admin = admin_password(dir)?;
    let clock = Clock::system();
    let options = settings.options(dir, request.accept_clock.then(command_line_author));
    let opened = tokio::task::spawn_blocking({
        let clock = clock.clone();
        move || Ledger::open(options, clock)
    });
    let ledger = opened.await.map_err(|e| Error::Setup(e.to_string()))??;
    let program = settings.program(ledger.clone(), clock, admin);
    let served = serve(&request, config, certificate, program).await;
    if served.is_err() {
        // A start that fails leaves a directory that opens without questions.
        ledger.close().await?;
    }
    served
}

async fn serve(
    request: &Request,
    config: Config,
    certificate: Option<Arc<Certificate>>,
    program: Arc<Program>,
) -> Result<(), Error> {
    let dir = &request.dir;
    let intake = intake();
    let control = doors::control(dir)?;
    let mut doors =
        Doors { http: Vec::new(), smtp: Vec::new(), metrics: Vec::new(), control, certificate: certificate.clone() };
    for listener in &config.http {
        let tls = match &certificate {
            Some(certificate) if listener.tls => Some(certificate.server_config(&[b"h2", b"http/1.1"])?),
            Some(_) | None => None,
        };
        let size = config.message_bytes_max;
        let mount = listener.webapi_path.clone();
        let door = doors::http_door(listener.listen, mount, listener.forwarded, size, tls, &intake)?;
        tracing::info!("HTTP on {}", listener.listen);
        doors.http.push(door);
    }
    if let Some(metrics) = &config.metrics {
        doors.metrics.push(http::bind(metrics.listen, "metrics")?);
    }
    doors::run(program, doors, config.hostname, deliver::TlsRoots::Platform).await
}
