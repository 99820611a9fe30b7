//! Tables for people, samples for machines, and a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// What was measured of one contender with one number of services.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// From the start until services all over answer.
    pub cold: Duration,
    /// From a change to the first connection that reaches the new endpoint.
    pub change: Vec<Duration>,
    pub cpu_per_change: Duration,
    pub resident_kib: u64,
    /// Times of `connect()` to services, and straight to endpoints.
    pub first_packet: Vec<Duration>,
    pub direct: Vec<Duration>,
}

#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were measured.
    names: Vec<String>,
    cells: BTreeMap<(usize, String), Cell>,
}

fn percentile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? * percent / 100).copied()
}

fn shown(value: Option<Duration>) -> String {
    match value.map(|value| value.as_secs_f64() * 1000.0) {
        None => "-".into(),
        Some(ms) if ms < 1.0 => format!("{:.0} us", ms * 1000.0),
        Some(ms) if ms < 1000.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
    }
}

type Figure = (&'static str, fn(&Cell) -> Option<Duration>);

const FIGURES: [Figure; 9] = [
    ("all services answer after", |cell| Some(cell.cold)),
    ("one change, p50", |cell| percentile(&cell.change, 50)),
    ("one change, p90", |cell| percentile(&cell.change, 90)),
    ("one change, p99", |cell| percentile(&cell.change, 99)),
    ("CPU of one change", |cell| Some(cell.cpu_per_change)),
    ("first packet, p50", |cell| percentile(&cell.first_packet, 50)),
    ("first packet, p99", |cell| percentile(&cell.first_packet, 99)),
    ("without service, p50", |cell| percentile(&cell.direct, 50)),
    ("without service, p99", |cell| percentile(&cell.direct, 99)),
];

impl Report {
    pub fn add(&mut self, name: String, services: usize, cell: Cell) {
        if !self.names.contains(&name) {
            self.names.push(name.clone());
        }
        self.cells.insert((services, name), cell);
    }

    fn cell(&self, services: usize, name: &str) -> Option<&Cell> {
        self.cells.get(&(services, name.to_string()))
    }

    /// One table: a column for each contender, with its ratio to the first.
    pub fn print(&self, services: usize) {
        let columns: Vec<(&str, &Cell)> = self.names.iter().filter_map(|name| Some((&**name, self.cell(services, name)?))).collect();
        let Some((_, first)) = columns.first() else { return };
        print!("\n{:<28}", format!("{services} services"));
        columns.iter().for_each(|(name, _)| print!("{name:>24}"));
        println!();
        for (what, figure) in FIGURES {
            print!("  {what:<26}");
            for (_, cell) in &columns {
                let ratio = figure(cell).zip(figure(first)).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
                let ratio = ratio.filter(|ratio| ratio.is_finite()).map_or_else(String::new, |ratio| format!("x{ratio:.2}"));
                print!("{:>15} {ratio:>8}", shown(figure(cell)));
            }
            println!();
        }
        print!("  {:<26}", "resident");
        for (_, cell) in &columns {
            let mib = if cell.resident_kib == 0 { "-".into() } else { format!("{:.1} MiB", cell.resident_kib as f64 / 1024.0) };
            let ratio = cell.resident_kib as f64 / first.resident_kib as f64;
            let ratio = if cell.resident_kib == 0 || !ratio.is_finite() { String::new() } else { format!("x{ratio:.2}") };
            print!("{mib:>15} {ratio:>8}");
        }
        println!();
    }

    /// Raw samples as CSV, and a picture of the medians as SVG.
    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let (samples, picture) = (folder.join("samples.csv"), folder.join("proxy.svg"));
        std::fs::write(&samples, self.csv()).unwrap();
        std::fs::write(&picture, self.svg()).unwrap();
        println!("\nraw samples: {}\npicture: {}", samples.display(), picture.display());
    }

    fn csv(&self) -> String {
        let mut text = String::from("contender,services,what,sample,microseconds\n");
        for ((services, name), cell) in &self.cells {
            let single = [("cold", vec![cell.cold]), ("cpu_per_change", vec![cell.cpu_per_change])];
            let many = [("change", cell.change.clone()), ("first_packet", cell.first_packet.clone()), ("direct", cell.direct.clone())];
            for (what, samples) in single.into_iter().chain(many) {
                for (index, sample) in samples.iter().enumerate() {
                    let _ = writeln!(text, "{name},{services},{what},{index},{:.1}", sample.as_secs_f64() * 1e6);
                }
            }
            let _ = writeln!(text, "{name},{services},resident_kib,0,{}", cell.resident_kib);
        }
        text
    }

    fn svg(&self) -> String {
        let panels: [Figure; 3] = [
            ("one endpoint change until a connection reaches it, median", |cell| percentile(&cell.change, 50)),
            ("first packet: connect() to a service, median", |cell| percentile(&cell.first_packet, 50)),
            ("from the start until all services answer", |cell| Some(cell.cold)),
        ];
        let mut text = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1240\" height=\"420\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        );
        for (index, (title, figure)) in panels.into_iter().enumerate() {
            let _ = writeln!(text, "<g transform=\"translate({},30)\">", 20 + index * 410);
            self.panel(&mut text, title, figure);
            text.push_str("</g>\n");
        }
        text.push_str("</svg>\n");
        text
    }

    fn panel(&self, text: &mut String, title: &str, figure: fn(&Cell) -> Option<Duration>) {
        const COLOURS: [&str; 6] = ["#1f77b4", "#aec7e8", "#d62728", "#ff9896", "#2ca02c", "#9467bd"];
        let (left, top, width, height) = (50.0, 20.0, 320.0, 300.0);
        let points: Vec<(f64, f64)> = self
            .cells
            .iter()
            .filter_map(|((services, _), cell)| Some((*services as f64, figure(cell)?.as_secs_f64() * 1000.0)))
            .filter(|(_, ms)| *ms > 0.0)
            .collect();
        let bounds = |values: Vec<f64>| {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min).log10().floor();
            let high = values.iter().copied().fold(0.0, f64::max).log10().ceil();
            (low, if high > low { high } else { low + 1.0 })
        };
        if points.is_empty() {
            return;
        }
        let (x0, x1) = bounds(points.iter().map(|(x, _)| *x).collect());
        let (y0, y1) = bounds(points.iter().map(|(_, y)| *y).collect());
        let x = |services: f64| left + (services.log10() - x0) / (x1 - x0) * width;
        let y = |ms: f64| top + height - (ms.log10() - y0) / (y1 - y0) * height;
        let _ = writeln!(text, "<text x=\"{left}\" y=\"5\">{title}</text>");
        for (low, high, vertical) in [(x0, x1, false), (y0, y1, true)] {
            let mut power = low;
            while power <= high {
                let value = 10f64.powf(power);
                let (ax, ay, bx, by) =
                    if vertical { (left, y(value), left + width, y(value)) } else { (x(value), top, x(value), top + height) };
                let _ = writeln!(text, "<line x1=\"{ax:.1}\" y1=\"{ay:.1}\" x2=\"{bx:.1}\" y2=\"{by:.1}\" stroke=\"#ddd\"/>");
                let (tx, ty, anchor, unit) =
                    if vertical { (left - 5.0, ay + 4.0, "end", " ms") } else { (ax, top + height + 16.0, "middle", "") };
                let _ = writeln!(text, "<text x=\"{tx:.1}\" y=\"{ty:.1}\" text-anchor=\"{anchor}\">{value}{unit}</text>");
                power += 1.0;
            }
        }
        for (index, name) in self.names.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let of_name = self.cells.iter().filter(|((_, held), _)| held == name);
            let line: Vec<String> = of_name
                .filter_map(|((services, _), cell)| {
                    let ms = figure(cell)?.as_secs_f64() * 1000.0;
                    (ms > 0.0).then(|| format!("{:.1},{:.1}", x(*services as f64), y(ms)))
                })
                .collect();
            let _ = writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", line.join(" "));
            for point in &line {
                if let Some((px, py)) = point.split_once(',') {
                    let _ = writeln!(text, "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>");
                }
            }
            let (lx, ly) = (left + (index % 3) as f64 * 115.0, top + height + 36.0 + (index / 3) as f64 * 16.0);
            let _ = writeln!(text, "<text x=\"{lx}\" y=\"{ly}\" fill=\"{colour}\">{name}</text>");
        }
        let _ = writeln!(text, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">services</text>", left + width / 2.0, top + height + 72.0);
    }
}
