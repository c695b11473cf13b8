//! The command line: what can be asked for, and who answers.

mod account;
mod address;
mod backup;
mod client;
mod cursor;
mod dkim;
mod domain;
mod error;
mod events;
mod holdrule;
mod inbox;
mod job;
mod key;
mod login;
mod out;
mod password;
mod query;
mod queue;
mod rebuild;
mod repair;
mod replay;
mod restore;
mod show;
mod start;
mod status;
mod story;
mod suppression;
mod transport;
mod verify;
mod webhook;
mod when;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use postledger_events::time::Timestamp;

use crate::clock::Clock;
use client::Client;
use error::Error;
use out::Out;

/// Below the user's configuration directory.
const DIR_DEFAULT: &str = "postledger-localserve";

/// Accepts mail from applications, delivers it, and keeps an account of everything that happened to it.
#[derive(Debug, Parser)]
#[command(name = "postledger", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    /// Data and configuration of the server [default: postledger-localserve below the user's configuration directory]
    #[arg(long, global = true, env = "POSTLEDGER_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  postledger localserve                  everything on this machine, for trying things out
  postledger queue list                  what has not been delivered yet
  postledger show 17                     all that happened to the message of delivery 17
  postledger events tail --account mox   what happens, as it happens

Commands talk to the server that runs on the directory; without one they open the directory themselves.
Exit codes: 0 done, 1 failed or refused, 2 not understood.";

#[derive(Debug, Subcommand)]
enum Command {
    Localserve(start::Localserve),
    Serve(start::Serve),
    Quickstart(start::Quickstart),
    Rebuild(rebuild::Rebuild),
    Verify(verify::Verify),
    Restore(restore::Restore),
    Import(restore::Import),
    Repair(repair::Repair),
    #[command(flatten)]
    Ask(Box<Ask>),
}

/// What the server, or the opened directory, answers over the native API.
#[derive(Debug, Subcommand)]
enum Ask {
    /// Accounts: who sends and receives, and within which limits
    #[command(subcommand)]
    Account(account::Account),
    /// Domains of ours
    #[command(subcommand)]
    Domain(domain::Domain),
    /// Which account an address leads to
    #[command(subcommand)]
    Address(address::Address),
    /// How accounts log in
    #[command(subcommand)]
    Login(login::Login),
    /// Keys that programs use the API with
    #[command(subcommand)]
    Key(key::Key),
    /// How far groups of consumers have read the events
    #[command(subcommand)]
    Cursor(cursor::Cursor),
    /// Keys that messages are signed with
    #[command(subcommand)]
    Dkim(dkim::Dkim),
    /// Where mail goes next
    #[command(subcommand)]
    Transport(transport::Transport),
    /// Programs that are told what happens to an account's mail
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    Replay(replay::Replay),
    /// Deliveries that have not reached their end
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Addresses that an account does not send to
    #[command(subcommand)]
    Suppression(suppression::Suppression),
    /// What is queued and does not leave
    #[command(subcommand)]
    Holdrule(holdrule::HoldRule),
    /// Mailboxes and the messages in them
    #[command(subcommand)]
    Inbox(inbox::Inbox),
    /// The records of the log, as JSON Lines
    #[command(subcommand)]
    Events(events::Events),
    Backup(backup::Backup),
    BackupVault(backup::BackupVault),
    Export(backup::Export),
    Show(show::Show),
    Job(job::Job),
    Status(status::Status),
}

/// What every command that asks has at hand.
struct Session {
    client: Client,
    out: Out,
    now: Timestamp,
}

/// All commands. One that belongs to a group shows those of the group's examples that are about it.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|group| {
        let examples = group.get_after_help().map(ToString::to_string).unwrap_or_default();
        let group_name = group.get_name().to_owned();
        group.mut_subcommands(|command| {
            if command.get_after_help().is_some() {
                return command;
            }
            let start = format!("  postledger {group_name} {} ", command.get_name());
            let mut is_own = false;
            let own = examples.lines().filter(|line| {
                // What is further to the right goes on with the line before.
                is_own = if line.starts_with("   ") { is_own } else { format!("{line} ").starts_with(&start) };
                is_own
            });
            let own = own.collect::<Vec<&str>>().join("\n");
            command.after_help(format!("Examples:\n{own}"))
        })
    })
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let asked = command_line().try_get_matches_from(args).and_then(|asked| Cli::from_arg_matches(&asked));
    let cli = match asked {
        Ok(cli) => cli,
        Err(e) => {
            // Nobody is left to tell if this cannot be printed.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(e) => {
            if !e.is_silent() {
                eprintln!("postledger: {e}");
            }
            e.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Error> {
    let dir = cli.dir.or_else(default_dir).ok_or_else(|| Error::Usage("say which directory: --dir DIR".to_owned()))?;
    let out = Out::stdout(cli.json);
    match cli.command {
        Command::Localserve(localserve) => localserve.run(dir),
        Command::Serve(serve) => serve.run(dir),
        Command::Quickstart(quickstart) => quickstart.run(dir),
        Command::Rebuild(rebuild) => rebuild.run(&dir, out),
        Command::Verify(verify) => verify.run(&dir, out),
        Command::Restore(restore) => restore.run(&dir, out),
        Command::Import(import) => import.run(&dir, out),
        Command::Repair(repair) => repair.run(&dir, out),
        Command::Ask(ask) => ask_in(&dir, *ask, out),
    }
}

fn default_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(config.join(DIR_DEFAULT))
}

fn ask_in(dir: &Path, ask: Ask, out: Out) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(async {
        let client = Client::open(dir).await?;
        let mut session = Session { client, out, now: Clock::system().now() };
        let asked = ask.run(&mut session).await;
        let closed = session.client.close().await;
        asked.and(closed)?;
        session.out.finish()?;
        Ok(ExitCode::SUCCESS)
    })
}

impl Ask {
    async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Ask::Account(command) => command.run(session).await,
            Ask::Domain(command) => command.run(session).await,
            Ask::Address(command) => command.run(session).await,
            Ask::Login(command) => command.run(session).await,
            Ask::Key(command) => command.run(session).await,
            Ask::Cursor(command) => command.run(session).await,
            Ask::Dkim(command) => command.run(session).await,
            Ask::Transport(command) => command.run(session).await,
            Ask::Webhook(command) => command.run(session).await,
            Ask::Replay(command) => command.run(session).await,
            Ask::Queue(command) => command.run(session).await,
            Ask::Suppression(command) => command.run(session).await,
            Ask::Holdrule(command) => command.run(session).await,
            Ask::Inbox(command) => command.run(session).await,
            Ask::Events(command) => command.run(session).await,
            Ask::Backup(command) => command.run(session).await,
            Ask::BackupVault(command) => command.run(session).await,
            Ask::Export(command) => command.run(session).await,
            Ask::Show(command) => command.run(session).await,
            Ask::Job(command) => command.run(session).await,
            Ask::Status(command) => command.run(session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command_line().debug_assert();
    }

    /// The words of an example, up to what it says about itself and to where its output goes.
    fn words(example: &str) -> Vec<String> {
        let example = example.trim();
        let end = [" > ", " >> ", " | ", "  "].into_iter().filter_map(|mark| example.find(mark)).min();
        let parts = example[..end.unwrap_or(example.len())].split('"').enumerate();
        let words = parts.flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn every_command_has_examples_that_are_understood() {
        let line = command_line();
        let groups = line.get_subcommands();
        for command in groups.flat_map(|group| group.get_subcommands().chain([group])) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples =
                help.strip_prefix("Examples:\n").unwrap_or_default().split("\n\n").next().unwrap_or_default();
            assert!(!examples.is_empty(), "{} has no example", command.get_name());
            for example in examples.replace("\\\n      ", "").lines() {
                let parsed = Cli::try_parse_from(words(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
            }
        }
    }

    fn check(line: &str, ok: bool) {
        let parsed = Cli::try_parse_from(std::iter::once("postledger").chain(line.split_whitespace()));
        assert_eq!(parsed.is_ok(), ok, "{line}: {:?}", parsed.err().map(|e| e.to_string()));
    }

    #[test]
    fn lines() {
        check("localserve --dir x --ip 127.0.0.1 --retry-scale 100 --log debug", true);
        check("localserve --retry-scale 0", false);
        check("serve --dir x --accept-clock", true);
        check("account add mox --full-name Mox --address mox@localhost", true);
        check("account add Mox", false);
        check("account set mox --quota unlimited --messages-per-day 5 --keep 30d --retry default", true);
        check("account set mox --retry 7.5m,1h", false);
        check("account set mox --retry 450s,1h --fold mox --keep-contents false", true);
        check("queue list --account mox --held true --submitted-after -1h --due-before +30m --json", true);
        check("queue list --due-before 2026-01-02T03:04:05Z", true);
        check("queue list --due-before tomorrow", false);
        check("queue cancel 1 2 3", true);
        check("queue schedule 7 --at +1h", true);
        check("queue schedule 7 --add 1h", true);
        check("queue schedule 7", false);
        check("queue schedule 7 --at +1h --add 1h", false);
        check("queue redeliver 17 18", true);
        check("queue redeliver --account mox --state failed,canceled --submitted-after -1d --idempotency-key k", true);
        check("queue redeliver 17 --state delivered", false);
        check("transport set default --host h --port 25 --tls starttls --username u --password-file f", true);
        check("transport set default --host h --port 25 --tls starttls --password p", false);
        check(
            "webhook set mox crm --direction outgoing --url https://x.example/ --event failed,delayed --retry 1m,2m",
            true,
        );
        check("webhook set mox crm --format xml", false);
        check("webhook retry mox crm 4711/0 4712", true);
        check("webhook retry mox crm x/0", false);
        check("webhook cancel mox crm --phase failed,held --queued-after -1d", true);
        check("replay --account mox --endpoint crm --from 1 --only failed --kinds delivered,failed --rate 50", true);
        check("replay --account mox --endpoint crm --from -1d --to 2026-01-02T03:04:05Z", true);
        check("replay --account mox --endpoint crm", false);
        check("replay --account mox --endpoint crm --from yesterday", false);
        check("replay", false);
        check("replay list", true);
        check("replay list mox", true);
        check("replay stop 17", true);
        check("replay --from 1 stop 17", false);
        check("events tail --kind Delivered,DeliveryFailed --after 7", true);
        check("events list --limit 10 --since -1d", true);
        check("events list --cursor billing --account shop", true);
        check("events list --cursor billing --after 3", false);
        check("key add sender --account shop --scope send,read --expires +90d --network 192.0.2.0/24", true);
        check("key add dashboard --operators --scope read", true);
        check("key add sender --scope send", false);
        check("key add sender --account shop --operators --scope send", false);
        check("key add sender --account shop --scope everything", false);
        check("key add sender --account shop --scope send --network 192.0.2.1/24", false);
        check("key list --account shop", true);
        check("key revoke 7", true);
        check("cursor set billing 120000 --account shop", true);
        check("show 17 --json", true);
        check("verify --full", true);
        check("rebuild timeline tally", true);
        check("nonsense", false);
    }

    #[test]
    fn exit_codes() {
        let code = |line: &str| format!("{:?}", run(line.split(' ').map(OsString::from)));
        assert_eq!(code("postledger --version"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code("postledger nonsense"), format!("{:?}", ExitCode::from(2)));
    }
}
