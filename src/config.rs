//! The static configuration of a server; `config.default.toml` is its manual.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use postledger_events::address::Domain;
use postledger_events::fact::account::RetrySchedule;
use postledger_web::Mount;
use serde::Deserialize;

use crate::certificate;
use crate::decide::classify::Rules;
use crate::ledger;
use crate::webhook::client;
use crate::webhook::target::{Allowed, Target};

/// The file, below the directory of the server.
pub const FILE: &str = "postledger.toml";
/// Its text when it is new.
pub const DEFAULT: &str = include_str!("config.default.toml");
/// The host name in [`DEFAULT`], which `quickstart` replaces.
pub const DEFAULT_HOSTNAME: &str = "mail.example.org";

/// All doors together hold 256 MiB of messages; one message may have half of it.
const MESSAGE_BYTES_LIMIT: u64 = 128 * 1024 * 1024;
const ATTEMPTS_MAX: usize = 100;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub hostname: Domain,
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: u64,
    #[serde(default = "RetrySchedule::contract")]
    pub retry_waits_s: RetrySchedule,
    #[serde(default = "verify_hours")]
    pub verify_hours: u32,
    #[serde(default = "free_bytes_min")]
    pub free_bytes_min: u64,
    #[serde(default)]
    reply_rules: Option<PathBuf>,
    pub http: Vec<HttpListener>,
    #[serde(default)]
    tls: Option<Tls>,
    #[serde(default)]
    pub metrics: Option<Metrics>,
    #[serde(default)]
    webhook: Webhook,
    /// The directory that paths are relative to.
    #[serde(skip)]
    dir: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpListener {
    pub listen: SocketAddr,
    #[serde(default)]
    pub tls: bool,
    #[serde(default)]
    pub forwarded: bool,
    #[serde(default, deserialize_with = "mount")]
    pub webapi_path: Mount,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Webhook {
    allow_networks: Vec<IpNet>,
    proxy: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {path}; make one with `postledger quickstart --dir {dir} …`", path = .0.join(FILE).display(), dir = .0.display())]
    Missing(PathBuf),
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Bad(PathBuf, String),
}

impl Config {
    /// Reads and checks the configuration in `dir`.
    pub fn load(dir: &Path) -> Result<Config, Error> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Missing(dir.to_owned()),
            _ => Error::Bad(path.clone(), e.to_string()),
        })?;
        Config::parse(&text, dir).map_err(|why| Error::Bad(path, why))
    }

    fn parse(text: &str, dir: &Path) -> Result<Config, String> {
        let mut config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.dir = dir.to_owned();
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        for http in &self.http {
            if !http.tls && !http.forwarded && !http.listen.ip().is_loopback() {
                return Err(format!(
                    "http listener {} would take passwords in clear text from the network: set `tls = true`, listen on \
                     127.0.0.1, or put a TLS proxy in front and set `forwarded = true`",
                    http.listen
                ));
            }
            if http.tls && self.tls.is_none() {
                return Err(format!(
                    "http listener {} has `tls = true`, but there is no [tls] certificate",
                    http.listen
                ));
            }
        }
        if !(1024..=MESSAGE_BYTES_LIMIT).contains(&self.message_bytes_max) {
            return Err(format!("message_bytes_max is 1024 to {MESSAGE_BYTES_LIMIT}"));
        }
        let waits = &self.retry_waits_s.waits_s;
        if waits.len() >= ATTEMPTS_MAX || waits.contains(&0) {
            return Err(format!("retry_waits_s has at most {} waits, each of a second or more", ATTEMPTS_MAX - 1));
        }
        self.proxy().map(drop)
    }

    /// How endpoints are reached.
    pub fn webhook(&self) -> client::Settings {
        let allowed = Allowed::new(self.webhook.allow_networks.clone());
        // It was checked when the file was read.
        client::Settings { allowed, proxy: self.proxy().unwrap_or_default() }
    }

    fn proxy(&self) -> Result<Option<Target>, String> {
        let Some(url) = &self.webhook.proxy else { return Ok(None) };
        let target = Target::parse(url).map_err(|e| format!("webhook.proxy: {e}"))?;
        if target.tls { Err("webhook.proxy is an http:// address".to_owned()) } else { Ok(Some(target)) }
    }

    pub fn certificate_files(&self) -> Option<certificate::Files> {
        let tls = self.tls.as_ref()?;
        Some(certificate::Files { certificate: self.dir.join(&tls.certificate), key: self.dir.join(&tls.key) })
    }

    pub fn reply_rules(&self) -> Result<Arc<Rules>, Error> {
        let Some(path) = self.reply_rules.as_ref().map(|path| self.dir.join(path)) else {
            return Ok(Arc::new(Rules::shipped()));
        };
        let text = std::fs::read_to_string(&path).map_err(|e| Error::Bad(path.clone(), e.to_string()))?;
        Rules::parse(&text).map(Arc::new).map_err(|why| Error::Bad(path, why))
    }
}

fn verify_hours() -> u32 {
    24
}

fn free_bytes_min() -> u64 {
    ledger::FREE_BYTES_MIN
}

fn message_bytes_max() -> u64 {
    postledger_web::MESSAGE_BYTES_MAX
}

fn mount<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Mount, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&str) -> String, expect: Result<(), &str>) {
        let got = Config::parse(&change(DEFAULT), Path::new("/d")).map(drop);
        match (got, expect) {
            (Ok(()), Ok(())) => {}
            (Err(why), Err(part)) => assert!(why.contains(part), "{why:?} should speak of {part:?}"),
            (got, expect) => panic!("{got:?} instead of {expect:?}"),
        }
    }

    #[test]
    fn the_default_is_valid_and_mistakes_are_named() {
        check(str::to_owned, Ok(()));
        check(|c| c.replace("127.0.0.1:8080", "0.0.0.0:8080"), Err("clear text"));
        check(|c| c.replace("127.0.0.1:8080", "0.0.0.0:8080").replace("forwarded = false", "forwarded = true"), Ok(()));
        check(|c| c.replace("tls = false", "tls = true"), Err("no [tls] certificate"));
        check(|c| format!("nonsense = 1\n{c}"), Err("nonsense"));
        check(|c| c.replace("[450, ", "[0, "), Err("retry_waits_s"));
        check(|c| c.replace("mail.example.org", "not a name"), Err("hostname"));
        check(|c| c.replace("allow_networks = []", "allow_networks = [\"10.0.0.0/8\", \"fd00::/8\"]"), Ok(()));
        check(|c| c.replace("allow_networks = []", "allow_networks = [\"10.0.0.0/33\"]"), Err("allow_networks"));
        check(|c| c.replace("# proxy =", "proxy ="), Ok(()));
        check(|c| c.replace("# proxy = \"http:", "proxy = \"https:"), Err("webhook.proxy"));
    }

    #[test]
    fn the_manual_shows_the_defaults() {
        let config = Config::parse(DEFAULT, Path::new("/d")).unwrap();
        assert_eq!(config.retry_waits_s, RetrySchedule::contract());
        assert_eq!(config.message_bytes_max, message_bytes_max());
        assert_eq!(config.http[0].webapi_path, Mount::default());
    }
}
