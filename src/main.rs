//! The program `postledger`.

use std::process::ExitCode;

use clap::Parser;
use postledger::run::localserve;

#[derive(Parser)]
enum Command {
    Localserve {
        #[arg(long)]
        dir: std::path::PathBuf,
        #[arg(long)]
        ip: Option<std::net::IpAddr>,
        #[arg(long, default_value_t = 1)]
        retry_scale: u32,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new("info,fjall=warn,lsm_tree=warn"))
        .init();
    let Command::Localserve { dir, ip, retry_scale } = Command::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let request = localserve::Request { dir, ip, retry_scale, accept_clock: false };
    match runtime.block_on(localserve::run(request)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("postledger: {e}");
            ExitCode::FAILURE
        }
    }
}
