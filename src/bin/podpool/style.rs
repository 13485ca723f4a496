//! Tables and colors.

use std::{env, io::IsTerminal as _};

/// Returns true if standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Returns the text in a color, if standard output is a terminal and `NO_COLOR` is not set. `code` is the parameter of
/// Select Graphic Rendition (ECMA-48, 8.3.117).
pub(crate) fn color(text: &str, code: u8) -> String {
    let is_plain = !is_terminal() || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if is_plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// Returns a table with aligned columns.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let all = || [&header].into_iter().chain(rows);
    let widths: Vec<_> =
        (0..N).map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "22".to_owned()], ["bbb".to_owned(), "1".to_owned()]];
        assert_eq!(super::table(["X", "YY"], &rows), "X    YY\na    22\nbbb  1\n");
    }
}
