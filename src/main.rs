//! The program `postledger`.

fn main() -> std::process::ExitCode {
    postledger::cli::main()
}
