//! The means to break a disk: built with `cc` from tests/faults, once for each run of the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Programs and shims, ready to use.
pub struct Tools {
    pub godown: PathBuf,
    shim: PathBuf,
}

/// Why it cannot be used, if there is no compiler.
pub fn tools() -> Result<&'static Tools, String> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    TOOLS.get_or_init(build).as_ref().map_err(Clone::clone)
}

fn build() -> Result<Tools, String> {
    let (sources, to) = (Path::new("tests/faults"), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let tools = Tools { godown: to.join("godown"), shim: to.join("fault.so") };
    compile(&sources.join("godown.c"), &tools.godown, &[])?;
    compile(&sources.join("fault.c"), &tools.shim, &["-shared", "-fPIC", "-ldl"])?;
    Ok(tools)
}

/// In place of what another run may be using.
fn compile(source: &Path, to: &Path, more: &[&str]) -> Result<(), String> {
    let new = to.with_extension(format!("new{}", std::process::id()));
    run(Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&new).arg(source).args(more))?;
    std::fs::rename(&new, to).map_err(|e| format!("{}: {e}", to.display()))
}

/// What it printed, if it succeeds.
pub fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let said = String::from_utf8_lossy(&stderr);
    if !status.success() {
        return Err(format!("{command:?} ended with {status}: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
}

impl Tools {
    /// The environment in which calls on files below `dir` fail, see tests/faults/fault.c.
    pub fn shim(&self, dir: &Path, mode: &str, call: u64) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_str().expect("a path of this test is text").to_owned();
        let (shim, call) = (text(&self.shim), call.to_string());
        [("LD_PRELOAD", shim), ("FAULT_DIR", text(dir)), ("FAULT_MODE", mode.to_owned()), ("FAULT_AT", call)]
    }
}
