//! Markdown tables of the results.

/// A table with one row per case and two groups of columns: the ratios to the first row, and the absolute readings.
pub struct Table {
    title: String,
    unit: &'static str,
    /// True if the readings are rates, so that higher is better.
    rate: bool,
    columns: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    pub fn new(title: impl Into<String>, unit: &'static str, rate: bool) -> Self {
        Self { title: title.into(), unit, rate, columns: Vec::new(), rows: Vec::new() }
    }

    /// Adds a column. `names` are the cases, and must be the same in every column.
    pub fn column(&mut self, title: impl Into<String>, names: &[&str], readings: &[f64]) {
        self.columns.push(title.into());
        if self.rows.is_empty() {
            self.rows = names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
        }
        for ((row, name), reading) in self.rows.iter_mut().zip(names).zip(readings) {
            assert_eq!(&row.0, name, "every column has the same rows");
            row.1.push(*reading);
        }
    }

    pub fn print(&self) {
        println!("\n{}\n", self.title);
        let ratios = self.columns.iter().map(|column| format!(" {column} |")).collect::<String>();
        let readings = self.columns.iter().map(|column| format!(" {column}, {} |", self.unit)).collect::<String>();
        println!("| |{ratios}{readings}");
        println!("|---|{}", "---|".repeat(2 * self.columns.len()));
        let first = &self.rows[0].1;
        for (name, values) in &self.rows {
            let ratio = |(value, first): (&f64, &f64)| {
                format!(" {:.2}× |", if self.rate { first / value } else { value / first })
            };
            let ratios: String = values.iter().zip(first).map(ratio).collect();
            let readings: String = values.iter().map(|value| format!(" {} |", rounded(*value))).collect();
            println!("| {name} |{ratios}{readings}");
        }
    }
}

fn rounded(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
