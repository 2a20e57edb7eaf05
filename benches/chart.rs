//! The chart: each ratio beside its goal, and the speeds of the compared programs. Shared with `benches/peers`. Ratios
//! are on a logarithmic scale, on which twice as fast and half as fast are equally far from 1; the scale of speeds
//! starts at zero.

use std::fmt::Write;

use crate::report::{Check, Goal, Report, Table};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 430.0;
const RIGHT: f64 = 150.0;
const LINE: f64 = 20.0;

pub(crate) fn draw(reports: &[Report]) -> String {
    let mut drawing = Drawing::default();
    let checks: Vec<_> = reports
        .iter()
        .map(|report| {
            let checks = report.tables.iter().flat_map(|table| &table.checks);
            (report.subject.as_str(), checks.collect::<Vec<_>>())
        })
        .filter(|(_, checks)| !checks.is_empty())
        .collect();
    if !checks.is_empty() {
        drawing.checks(&checks);
    }
    let tables = reports.iter().flat_map(|report| &report.tables);
    for table in tables.filter(|table| table.compared) {
        drawing.speeds(table);
    }
    let height = drawing.at + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{}</svg>\n",
        drawing.text
    )
}

#[derive(Default)]
struct Drawing {
    text: String,
    at: f64,
}

/// Horizontal position of values, between the labels and the figures.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        Self {
            low: low / 1.6,
            high: high * 1.05,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

impl Drawing {
    fn head(&mut self, text: &str) {
        self.at += LINE * 1.4;
        self.words(12.0, "start", "font-weight=\"bold\" font-size=\"14\"", text);
        self.at += 4.0;
    }

    fn words(&mut self, x: f64, anchor: &str, more: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let y = self.at;
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{text}</text>"
        );
    }

    fn bar(&mut self, to: f64, colour: &str) {
        let (y, width) = (self.at - 11.0, to - LEFT);
        let _ = writeln!(
            self.text,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"14\" fill=\"{colour}\"/>"
        );
    }

    fn upright(&mut self, x: f64) {
        let (top, bottom) = (self.at - 14.0, self.at + 6.0);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"#000\" stroke-width=\"2\"/>"
        );
    }

    fn checks(&mut self, groups: &[(&str, Vec<&Check>)]) {
        self.head("Ratios, and what they aim at (the upright line)");
        let all = groups.iter().flat_map(|(_, checks)| checks);
        let scale = Scale::of(all.flat_map(|check| [check.ratio.median, goal(check)]));
        for (subject, checks) in groups {
            self.at += LINE;
            self.words(12.0, "start", "font-weight=\"bold\"", subject);
            for check in checks {
                self.at += LINE;
                let colour = if check.is_met() { "#3a7d44" } else { "#d08c2f" };
                self.words(LEFT - 8.0, "end", "", &check.what);
                let end = scale.place(check.ratio.median);
                self.bar(end, colour);
                let mark = scale.place(goal(check));
                self.upright(mark);
                let word = match check.goal {
                    Goal::AtLeast(_) => "at least",
                    Goal::AtMost(_) => "at most",
                };
                let figure = format!("{:.2}, {word} {}", check.ratio.median, goal(check));
                self.words(end.max(mark) + 8.0, "start", "", &figure);
            }
        }
    }

    fn speeds(&mut self, table: &Table) {
        let speeds: Vec<(&str, f64)> = table
            .rows
            .iter()
            .filter_map(|row| Some((row.name.as_str(), 1e6 / row.time?.median)))
            .collect();
        self.head(&format!("{}: messages a second", table.title));
        let fastest = speeds.iter().map(|(_, speed)| *speed).fold(0.0, f64::max);
        for (name, speed) in &speeds {
            self.at += LINE;
            self.words(LEFT - 8.0, "end", "", name);
            let end = LEFT + speed / fastest * (WIDTH - LEFT - RIGHT);
            self.bar(end, "#4a6fa5");
            self.words(end + 8.0, "start", "", &format!("{speed:.0}"));
        }
    }
}

fn goal(check: &Check) -> f64 {
    match check.goal {
        Goal::AtLeast(goal) | Goal::AtMost(goal) => goal,
    }
}
