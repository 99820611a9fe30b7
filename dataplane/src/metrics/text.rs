//! The Prometheus text format.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use super::histogram::Histogram;

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    pub fn into_string(self) -> String {
        self.0
    }

    /// Begins a metric; its samples follow.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub fn sample(&mut self, name: &str, labels: Labels, value: impl std::fmt::Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        self.line(format_args!(" {value}\n"));
    }

    /// A metric of one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    pub fn histogram(&mut self, name: &str, labels: Labels, histogram: &Histogram) {
        let mut total = 0;
        let bounds = histogram.bounds.iter().map(ToString::to_string).chain(["+Inf".to_string()]);
        for (bound, count) in bounds.zip(&histogram.counts) {
            total += count;
            self.line(format_args!("{name}_bucket"));
            self.labels(labels, Some(("le", &bound)));
            self.line(format_args!(" {total}\n"));
        }
        self.line(format_args!("{name}_sum"));
        self.labels(labels, None);
        self.line(format_args!(" {}\n{name}_count", histogram.sum));
        self.labels(labels, None);
        self.line(format_args!(" {total}\n"));
    }

    fn labels(&mut self, labels: Labels, last: Option<(&str, &str)>) {
        let mut first = true;
        for (name, value) in labels.iter().copied().chain(last) {
            self.0.push(if first { '{' } else { ',' });
            first = false;
            self.line(format_args!("{name}=\""));
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !first {
            self.0.push('}');
        }
    }

    fn line(&mut self, text: std::fmt::Arguments) {
        self.0.write_fmt(text).expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn samples_have_labels_that_are_escaped() {
        let mut page = Page::default();
        page.metric("m_total", "counter", "Things.");
        page.sample("m_total", &[("a", "x\"y\\z\n"), ("b", "")], 3);
        page.single("g", "gauge", "One.", 1.5);
        let wanted = "# HELP m_total Things.\n# TYPE m_total counter\nm_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 3\n\
            # HELP g One.\n# TYPE g gauge\ng 1.5\n";
        assert_eq!(page.into_string(), wanted);
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        static BOUNDS: [f64; 2] = [0.001, 1.0];
        let mut histogram = Histogram::new(&BOUNDS);
        [0, 500, 2_000].into_iter().for_each(|ms| histogram.observe(Duration::from_millis(ms)));
        let mut page = Page::default();
        page.histogram("h", &[("ip_family", "IPv4")], &histogram);
        let wanted = "h_bucket{ip_family=\"IPv4\",le=\"0.001\"} 1\nh_bucket{ip_family=\"IPv4\",le=\"1\"} 2\n\
            h_bucket{ip_family=\"IPv4\",le=\"+Inf\"} 3\nh_sum{ip_family=\"IPv4\"} 2.5\nh_count{ip_family=\"IPv4\"} 3\n";
        assert_eq!(page.into_string(), wanted);
    }
}
