//! Prints: tables and lines for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use postledger_events::time::Timestamp;
use serde::Serialize;

use super::error::Error;

pub struct Out {
    pub json: bool,
    stdout: BufWriter<Stdout>,
}

impl Out {
    pub fn stdout(json: bool) -> Out {
        Out { json, stdout: BufWriter::new(io::stdout()) }
    }

    /// A list: a table with these headings, or an array.
    pub fn list<T: Serialize, const N: usize>(
        &mut self,
        items: &[T],
        headings: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<(), Error> {
        if self.json {
            return self.document(&items);
        }
        let rows: Vec<[String; N]> = items.iter().map(row).collect();
        self.text(&table(headings, &rows))
    }

    /// One thing: lines with names, or an object.
    pub fn one<const N: usize>(&mut self, thing: &impl Serialize, fields: [(&str, String); N]) -> Result<(), Error> {
        if self.json {
            return self.document(thing);
        }
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            writeln!(self.stdout, "{name:width$}  {}", clean(&value))?;
        }
        Ok(())
    }

    /// What was done: a line, or what the server answered.
    pub fn done(&mut self, answer: &impl Serialize, said: impl AsRef<str>) -> Result<(), Error> {
        if self.json { self.document(answer) } else { self.text(&format!("{}\n", clean(said.as_ref()))) }
    }

    /// What was done, when the server answers nothing.
    pub fn said(&mut self, said: impl AsRef<str>) -> Result<(), Error> {
        self.done(&serde_json::json!({ "done": said.as_ref() }), &said)
    }

    pub fn document(&mut self, document: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer_pretty(&mut self.stdout, document).map_err(io::Error::from)?;
        Ok(self.stdout.write_all(b"\n")?)
    }

    /// Text as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Error> {
        Ok(self.stdout.write_all(text.as_bytes())?)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// Shows what was printed so far.
    pub fn finish(&mut self) -> Result<(), Error> {
        Ok(self.stdout.flush()?)
    }
}

fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let cells: Vec<[String; N]> = rows.iter().map(|row| std::array::from_fn(|n| clean(&row[n]))).collect();
    let width = |n: usize| cells.iter().map(|row| row[n].chars().count()).chain([headings[n].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(&cells) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ").expect("a String takes all");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Texts come from anywhere; none may steer the terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What is not there, or was forgotten.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// A time to the second; JSON has all of it.
pub fn second(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.split('.').next().unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_do_not_steer_the_terminal() {
        let rows = [["1".to_owned(), "ü\u{1b}[2J".to_owned()], ["10".to_owned(), "b".to_owned()]];
        assert_eq!(table(["ID", "SUBJECT"], &rows), "ID  SUBJECT\n1   ü\u{fffd}[2J\n10  b\n");
        assert_eq!(second(Timestamp::from_nanos(1_500_000_000)), "1970-01-01T00:00:01Z");
    }
}
