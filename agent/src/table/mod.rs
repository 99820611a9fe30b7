#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Objects as tables, in the columns and words that kubectl prints.
//!
//! Must never fetch anything or read a clock. Tests: in each file.

pub mod age;
pub mod endpoints;
pub mod events;
pub mod objects;
pub mod pods;
pub mod services;

/// Spaces between columns, and the least width of one, as kubectl has them.
const PADDING: usize = 3;
const LEAST: usize = 6;

pub struct Column {
    pub name: &'static str,
    /// Printed with `-o wide` only.
    pub wide: bool,
}

pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The first `narrow` names always, the rest with `-o wide`.
    pub fn new(names: &[&'static str], narrow: usize) -> Table {
        let column = |(i, name): (usize, &&'static str)| Column { name, wide: i >= narrow };
        Table { columns: names.iter().enumerate().map(column).collect(), rows: Vec::new() }
    }

    /// Puts a column before all others.
    pub fn prepend(&mut self, name: &'static str, cells: impl IntoIterator<Item = String>) {
        self.columns.insert(0, Column { name, wide: false });
        for (row, cell) in self.rows.iter_mut().zip(cells) {
            row.insert(0, cell);
        }
    }

    /// Width of each column's text.
    pub fn widths(&self) -> Vec<usize> {
        let cell = |i: usize| self.rows.iter().map(move |r| r[i].chars().count()).max().unwrap_or(0);
        self.columns.iter().enumerate().map(|(i, c)| cell(i).max(c.name.len())).collect()
    }

    /// Lines with their ends; columns at least as wide as `widths`.
    pub fn text(&self, wide: bool, header: bool, widths: &[usize]) -> String {
        let own = self.widths();
        let shown: Vec<usize> = (0..self.columns.len()).filter(|i| wide || !self.columns[*i].wide).collect();
        let mut out = String::new();
        let names: Vec<String> = self.columns.iter().map(|c| c.name.to_owned()).collect();
        for row in header.then_some(&names).into_iter().chain(&self.rows) {
            for (n, i) in shown.iter().enumerate() {
                out.push_str(&row[*i]);
                if n + 1 < shown.len() {
                    let width = own[*i].max(widths.get(*i).copied().unwrap_or(0)) + PADDING;
                    let fill = width.max(LEAST).saturating_sub(row[*i].chars().count());
                    out.extend(std::iter::repeat_n(' ', fill));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// `<none>` for nothing.
pub fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// `a=b,c=d`, or `<none>`.
pub fn selector(labels: &std::collections::BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    or_none(&pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_wide_ones_wait_to_be_asked_for() {
        let mut t = Table::new(&["NAME", "AGE", "NODE"], 2);
        t.rows = vec![vec!["web".into(), "3s".into(), "n1".into()], vec!["database".into(), "10d".into(), "n1".into()]];
        assert_eq!(t.text(false, true, &[]), "NAME       AGE\nweb        3s\ndatabase   10d\n");
        assert_eq!(t.text(true, false, &[]), "web        3s    n1\ndatabase   10d   n1\n");
        t.prepend("NAMESPACE", ["a".into(), "b".into()]);
        assert_eq!(t.text(false, true, &[]), "NAMESPACE   NAME       AGE\na           web        3s\nb           database   10d\n");
    }
}
