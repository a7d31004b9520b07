//! Tables for people: columns as wide as their widest cell, the last one as long as it is.

use std::io::{self, Write};

use super::format::safe;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under headings. Cells are made safe for a terminal.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// An empty cell is shown as `-`.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { safe(&cell) }));
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let headings = self.columns.map(|(heading, _)| heading.to_owned());
        let lines: Vec<&[String; N]> = std::iter::once(&headings).chain(&self.rows).collect();
        let mut widths = [0; N];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line.iter()) {
                *width = cell.chars().count().max(*width);
            }
        }
        for line in lines {
            let mut text = String::new();
            for ((cell, width), (_, align)) in line.iter().zip(widths).zip(self.columns) {
                match align {
                    Align::Left => text.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => text.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_are_dashes() {
        let mut table = Table::new([("SITE", Align::Left), ("READY", Align::Right), ("REASON", Align::Left)]);
        table.row(["mx.example".to_owned(), "7".to_owned(), String::new()]);
        table.row(["é".to_owned(), "1234567".to_owned(), "421 \u{1b}busy".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let expected = "SITE          READY  REASON\nmx.example        7  -\né           1234567  421 ?busy\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
