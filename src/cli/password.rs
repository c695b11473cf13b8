//! Passwords from a file, from standard input or from the terminal; never from the command line, which others can see.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Error;

/// Where a password is read from: the first line of this file, or of standard input.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Read the password from the first line of FILE; without it from standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Source {
    pub fn read(&self, prompt: &str) -> Result<String, Error> {
        match &self.password_file {
            Some(path) => from_file(path),
            None if io::stdin().is_terminal() => from_terminal(prompt),
            None => first_line(&mut io::stdin().lock()).map_err(Error::Password),
        }
    }
}

fn from_file(path: &Path) -> Result<String, Error> {
    let file = std::fs::File::open(path).map_err(|e| Error::File(path.to_owned(), e))?;
    first_line(&mut io::BufReader::new(file)).map_err(|e| Error::File(path.to_owned(), e))
}

fn from_terminal(prompt: &str) -> Result<String, Error> {
    eprint!("{prompt}: ");
    io::stderr().flush()?;
    let line = {
        let _unseen = Unseen::new();
        first_line(&mut io::stdin().lock())
    };
    eprintln!();
    line.map_err(Error::Password)
}

fn first_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() { Err(io::Error::other("it is empty")) } else { Ok(line.to_owned()) }
}

/// The terminal does not show what is typed, as long as this lives.
struct Unseen;

impl Unseen {
    fn new() -> Unseen {
        stty("-echo");
        Unseen
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        stty("echo");
    }
}

/// Without `stty` the password is seen while it is typed, which must not keep anybody from typing it.
fn stty(mode: &str) {
    let _ = Command::new("stty").arg(mode).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        let check = |input: &str, expect: Option<&str>| {
            assert_eq!(first_line(&mut input.as_bytes()).ok().as_deref(), expect, "{input:?}");
        };
        check("secret\n", Some("secret"));
        check("secret\r\nrest", Some("secret"));
        check(" with spaces ", Some(" with spaces "));
        check("", None);
        check("\n", None);
    }
}
