//! Indented lines of names and values, in columns.

#[derive(Default)]
pub struct Text {
    lines: Vec<Line>,
}

struct Line {
    indent: usize,
    key: String,
    /// None: a heading, or text without a name.
    value: Option<String>,
}

impl Text {
    /// `Name:   value`
    pub fn pair(&mut self, indent: usize, key: &str, value: impl Into<String>) {
        self.lines.push(Line { indent, key: format!("{key}:"), value: Some(value.into()) });
    }

    /// A line as it is.
    pub fn line(&mut self, indent: usize, text: impl Into<String>) {
        self.lines.push(Line { indent, key: text.into(), value: None });
    }

    /// `Labels:  a=b`, and further values below the first.
    pub fn list(&mut self, indent: usize, key: &str, values: impl IntoIterator<Item = String>) {
        let mut values = values.into_iter();
        self.pair(indent, key, values.next().unwrap_or_else(|| "<none>".into()));
        self.lines.extend(values.map(|v| Line { indent, key: String::new(), value: Some(v) }));
    }

    /// Two columns under a heading each.
    pub fn lines_of(&mut self, indent: usize, head: (&str, &str), rows: impl Iterator<Item = (String, String)>) {
        let mut all = vec![(head.0.to_owned(), head.1.to_owned())];
        all.extend(rows);
        self.lines.extend(all.into_iter().map(|(key, value)| Line { indent, key: format!("{key} "), value: Some(value) }));
    }

    /// Values of neighbours stand below each other.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let mut i = 0;
        while i < self.lines.len() {
            let block = self.lines[i..].iter().take_while(|l| l.indent == self.lines[i].indent && l.value.is_some()).count();
            let width = self.lines[i..i + block].iter().map(|l| l.key.chars().count()).max().unwrap_or(0);
            for l in &self.lines[i..i + block.max(1)] {
                let line = match &l.value {
                    Some(v) => format!("{:indent$}{:width$}  {v}", "", l.key, indent = l.indent),
                    None => format!("{:indent$}{}", "", l.key, indent = l.indent),
                };
                out.push_str(line.trim_end());
                out.push('\n');
            }
            i += block.max(1);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_line_up() {
        let mut t = Text::default();
        t.pair(0, "Name", "web");
        t.list(0, "Annotations", ["a=b".to_owned(), "c=d".to_owned()]);
        t.line(0, "Containers:");
        t.pair(2, "Image", "");
        t.pair(2, "Id", "1");
        let want = "Name:         web\nAnnotations:  a=b\n              c=d\nContainers:\n  Image:\n  Id:     1\n";
        assert_eq!(t.render(), want);
    }
}
