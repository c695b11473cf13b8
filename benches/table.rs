//! What was measured, as one table: ratios first, and which of them had to be reached.

/// What a ratio must be, or only should.
#[derive(Clone, Copy)]
pub enum Asked {
    AtLeast(f64),
    AtMost(f64),
    /// It is shown for those who compare.
    Nothing,
}

impl Asked {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Asked::AtLeast(least) => ratio >= least,
            Asked::AtMost(most) => ratio <= most,
            Asked::Nothing => true,
        }
    }

    fn text(self, ratio: f64) -> String {
        let verdict = if self.is_met(ratio) { "met" } else { "**missed**" };
        match self {
            Asked::AtLeast(least) => format!("≥ {least}: {verdict}"),
            Asked::AtMost(most) => format!("≤ {most}: {verdict}"),
            Asked::Nothing => "–".to_owned(),
        }
    }
}

/// One line of the table.
pub struct Line {
    pub case: String,
    pub ratio: f64,
    /// What the ratio is to.
    pub of: &'static str,
    pub asked: Asked,
    /// The same in seconds and bytes of this machine, which decide nothing.
    pub figures: String,
}

#[derive(Default)]
pub struct Table {
    lines: Vec<Line>,
}

impl Table {
    pub fn add(&mut self, line: Line) {
        eprintln!("{}", row(&line));
        self.lines.push(line);
    }

    pub fn print(&self) {
        println!("| ratio | to | asked | case | figures |");
        println!("|---:|---|---|---|---|");
        for line in &self.lines {
            println!("{}", row(line));
        }
    }

    /// The cases whose ratio is not what was asked.
    pub fn missed(&self) -> Vec<&str> {
        self.lines.iter().filter(|l| !l.asked.is_met(l.ratio)).map(|l| l.case.as_str()).collect()
    }
}

fn row(line: &Line) -> String {
    let Line { case, ratio, of, asked, figures } = line;
    format!("| {ratio:.3} | {of} | {} | {case} | {figures} |", asked.text(*ratio))
}
