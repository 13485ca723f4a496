//! Tables as README has them.

/// One table: a line for each name, with a group of columns of readings. Ratios are to the first line.
pub struct Table {
    title: String,
    unit: &'static str,
    /// Whether more is better.
    rate: bool,
    columns: Vec<String>,
    lines: Vec<(String, Vec<f64>)>,
}

impl Table {
    pub fn new(title: impl Into<String>, unit: &'static str, rate: bool) -> Self {
        Self { title: title.into(), unit, rate, columns: Vec::new(), lines: Vec::new() }
    }

    /// Adds a column; the names are the same, in the same order, in every column.
    pub fn column(&mut self, title: impl Into<String>, names: &[&str], readings: &[f64]) {
        self.columns.push(title.into());
        if self.lines.is_empty() {
            self.lines = names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        }
        for ((line, name), reading) in self.lines.iter_mut().zip(names).zip(readings) {
            assert_eq!(&line.0, name, "every column has the same lines");
            line.1.push(*reading);
        }
    }

    pub fn print(&self) {
        println!("\n{}\n", self.title);
        let ratios = self.columns.iter().map(|column| format!(" {column} |")).collect::<String>();
        let readings = self.columns.iter().map(|column| format!(" {column}, {} |", self.unit)).collect::<String>();
        println!("| |{ratios}{readings}");
        println!("|---|{}", "---|".repeat(2 * self.columns.len()));
        let first = &self.lines[0].1;
        for (name, values) in &self.lines {
            let ratio = |(value, first): (&f64, &f64)| {
                format!(" {:.2}× |", if self.rate { first / value } else { value / first })
            };
            let ratios: String = values.iter().zip(first).map(ratio).collect();
            let readings: String = values.iter().map(|value| format!(" {} |", short(*value))).collect();
            println!("| {name} |{ratios}{readings}");
        }
    }
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
