//! The program `postledger`.

/// Rows and records are many small texts of many lengths, made by one thread and freed by another: a third of the writer's
/// time went into the C library's allocator. docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    postledger::cli::main()
}
