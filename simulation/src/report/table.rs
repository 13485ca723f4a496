use std::{fmt::Write, time::Duration};

use super::{Run, hosts::hosts};

/// Width of a host's column.
const WIDTH: usize = 28;
/// Number of rows after which the header is repeated.
const PAGE: usize = 50;

/// A cell of the table: the index of its column and its text.
type Cell = (usize, String);

/// An entry of the table, before entries of the same time are joined into rows.
enum Entry {
    Cell(Cell),
    /// A line across all columns.
    Line(String),
}

/// Returns the events as a table with one column for the faults and one for each host. Events of the same time that
/// follow each other on different hosts share a row. `only` restricts the table to the hosts with these names; if it is
/// empty, every host has a column.
#[must_use]
pub fn table(run: Run<'_>, only: &[&str]) -> String {
    let mut columns = vec!["faults"];
    columns.extend(hosts(&run).into_iter().filter(|host| only.is_empty() || only.contains(host)));
    let mut table = Table { columns: columns.len(), text: format!("seed {}\n", run.plan.seed), rows: 0 };
    let header: Vec<_> = columns.iter().enumerate().map(|(index, name)| (index, (*name).to_owned())).collect();
    let mut row: Vec<Cell> = Vec::new();
    let mut time = None;
    for (at, entry) in entries(&run, &columns) {
        let is_new = time.is_none_or(|time| time != at);
        match entry {
            Entry::Cell(cell) => {
                if is_new || row.iter().any(|(column, _)| *column == cell.0) {
                    table.row(time, &mut row, &header);
                }
                row.push(cell);
            }
            Entry::Line(line) => {
                table.row(time, &mut row, &header);
                table.text.push_str(&line);
            }
        }
        time = Some(at);
    }
    table.row(time, &mut row, &header);
    table.text
}

/// Returns the entries in the order of their times: faults before events, and violations after them.
fn entries(run: &Run<'_>, columns: &[&str]) -> Vec<(Duration, Entry)> {
    let mut entries: Vec<(Duration, Entry)> = Vec::new();
    for window in &run.plan.faults {
        let text = format!("{} {}", window.fault.name(), window.fault.text());
        entries.push((window.start, Entry::Cell((0, format!("+ {}", text.trim_end())))));
        if window.end > window.start {
            entries.push((window.end, Entry::Cell((0, format!("- {}", text.trim_end())))));
        }
    }
    for event in run.events {
        if let Some(column) = columns.iter().position(|name| *name == event.host) {
            entries.push((event.at, Entry::Cell((column, event.text.clone()))));
        }
    }
    entries.extend(run.violations.iter().map(|violation| (violation.at, Entry::Line(format!("!!! {violation}\n")))));
    // The sort is stable, so entries of the same time keep their order.
    entries.sort_by_key(|(at, _)| *at);
    entries
}

/// The table so far.
struct Table {
    columns: usize,
    text: String,
    rows: usize,
}

impl Table {
    /// Writes the cells of a row and removes them. Long texts continue on further lines.
    fn row(&mut self, time: Option<Duration>, cells: &mut Vec<Cell>, header: &[Cell]) {
        let Some(time) = time.filter(|_| !cells.is_empty()) else { return };
        if self.rows.is_multiple_of(PAGE) {
            self.lines("time (s)", header);
            let rule = vec!["-".repeat(WIDTH); self.columns].join("-+-");
            // A write to a String cannot fail.
            let _ = writeln!(self.text, "---------+-{rule}");
        }
        self.rows += 1;
        self.lines(&format!("{:.3}", time.as_secs_f64()), cells);
        cells.clear();
    }

    fn lines(&mut self, time: &str, cells: &[Cell]) {
        let mut columns = vec![Vec::new(); self.columns];
        for (column, text) in cells {
            columns[*column] = wrap(text);
        }
        let height = columns.iter().map(Vec::len).max().unwrap_or_default();
        for index in 0..height {
            let cell = |column: &Vec<String>| format!("{:WIDTH$}", column.get(index).map_or("", String::as_str));
            let cells: Vec<_> = columns.iter().map(cell).collect();
            let line = format!("{:>8} | {}", if index == 0 { time } else { "" }, cells.join(" | "));
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }
}

/// Breaks a text at spaces into lines of at most [`WIDTH`] characters. Longer words are broken too. All lines after the
/// first are indented.
fn wrap(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        let characters: Vec<char> = word.chars().collect();
        for (index, part) in characters.chunks(WIDTH - 2).enumerate() {
            let needs_space = index == 0 && !line.trim_start().is_empty();
            if line.chars().count() + usize::from(needs_space) + part.len() > WIDTH {
                lines.push(std::mem::replace(&mut line, "  ".to_owned()));
            } else if needs_space {
                line.push(' ');
            }
            line.extend(part);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::with_run;

    #[test]
    fn events_are_side_by_side() {
        let expected = "\
seed 7
time (s) | faults                       | client-0                     | pod-1
---------+------------------------------+------------------------------+-----------------------------
   0.100 |                              | opens a connection to pod-1  | accepts a connection
   0.500 | + server.hang pod=pod-1      |                              |
   0.600 |                              | call 1 begins                |
   1.200 |                              | call 1 fails: timeout <5 s>  |
!!! deadlines: at 1.200 s: call 1 failed or ended after 600 ms, expected at most 550 ms
   1.500 | - server.hang pod=pod-1      |                              |
";
        assert_eq!(with_run(|run| table(run, &[])), expected);
    }

    #[test]
    fn hosts_can_be_left_out() {
        let text = with_run(|run| table(run, &["client-0"]));
        assert!(text.contains("call 1 begins") && !text.contains("accepts a connection"), "{text}");
    }

    #[test]
    fn long_texts_continue_on_further_lines() {
        let text = "network.partition from=client-0 to=pod-1 both=no";
        assert_eq!(wrap(text), ["network.partition", "  from=client-0 to=pod-1", "  both=no"]);
        let word = "x".repeat(60);
        let lines = wrap(&word);
        assert_eq!(lines.iter().map(|line| line.trim_start().len()).collect::<Vec<_>>(), [26, 26, 8]);
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert_eq!(wrap("on pod-1"), ["on pod-1"]);
        assert_eq!(wrap(""), [""]);
    }

    #[test]
    fn the_header_is_repeated() {
        let text = with_run(|run| {
            let events: Vec<_> = (0..120)
                .map(|index| crate::report::TraceEvent { at: Duration::from_millis(index), ..run.events[0].clone() })
                .collect();
            table(Run { events: &events, ..run }, &[])
        });
        assert_eq!(text.matches("time (s)").count(), 3);
    }
}
