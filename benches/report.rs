//! Tables of measured rows, and the files generated from them. A table's rows are measured in turn, round after round,
//! so that a slow moment of the machine affects all of them; a ratio is the median of the ratios of single rounds.
//! Shared with `benches/peers`.

use std::{
    env, fs,
    io::{IsTerminal, stderr},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Outcome, chart,
    figures::{Samples, Spread},
    meter::{Cost, Meter},
};

/// The results of one subject.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) subject: String,
    /// Whether this was a quick run, which is noisier.
    pub(crate) quick: bool,
    pub(crate) tables: Vec<Table>,
    pub(crate) facts: Vec<(String, String)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) checks: Vec<Check>,
    /// Whether the chart shows the speed of each row.
    pub(crate) compared: bool,
}

/// Values that couldn't be measured or have no meaning are `None`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Microseconds per message.
    pub(crate) time: Option<Spread>,
    /// How many times as fast as the table's first row.
    pub(crate) speed: Option<Spread>,
    /// Milliseconds of a single call.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Bytes of WAL per message.
    pub(crate) wal: Option<f64>,
    /// Transactions that wrote, per message.
    pub(crate) commits: Option<f64>,
    /// Microseconds of processor time per message.
    pub(crate) server: Option<f64>,
    pub(crate) client: Option<f64>,
}

/// A ratio and its goal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) ratio: Spread,
    pub(crate) goal: Goal,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Check {
    pub(crate) fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtLeast(goal) => self.ratio.median >= goal,
            Goal::AtMost(goal) => self.ratio.median <= goal,
        }
    }
}

/// A table whose rows are being measured.
pub(crate) struct Rounds<'m> {
    meter: &'m Meter,
    title: String,
    rows: Vec<Measured>,
    round: usize,
    of: usize,
    /// Number of first rounds that don't count, since they prepare statements and fill caches.
    warm_up: usize,
    compared: bool,
    checks: Vec<Check>,
    /// When the progress was last printed.
    printed: Instant,
}

#[derive(Default)]
struct Measured {
    name: String,
    /// Seconds per message, one value for each round.
    rounds: Vec<f64>,
    calls: Samples,
    messages: usize,
    cost: Option<Cost>,
}

impl<'m> Rounds<'m> {
    pub(crate) fn new(meter: &'m Meter, title: impl Into<String>, of: usize) -> Self {
        Self {
            meter,
            title: title.into(),
            rows: Vec::new(),
            round: 0,
            of,
            warm_up: 1,
            compared: false,
            checks: Vec::new(),
            printed: Instant::now(),
        }
    }

    /// Shows the rows' speeds in the chart.
    pub(crate) fn compared(mut self) -> Self {
        self.compared = true;
        self
    }

    /// For rows that are warm already, or are reported as they are.
    pub(crate) fn without_warm_up(mut self) -> Self {
        self.warm_up = 0;
        self
    }

    /// Whether there is another round to measure. Prints the progress.
    pub(crate) fn next(&mut self) -> bool {
        let more = self.round < self.of + self.warm_up;
        let (round, of) = (self.round + 1, self.of + self.warm_up);
        match (stderr().is_terminal(), more) {
            // The line is erased afterwards: the table follows on standard output.
            (true, true) => eprint!("\r\x1b[K{}: round {round} of {of}", self.title),
            (true, false) => eprint!("\r\x1b[K"),
            (false, true) if self.printed.elapsed() > Duration::from_secs(30) => {
                eprintln!("{}: round {round} of {of}", self.title);
                self.printed = Instant::now();
            }
            (false, _) => {}
        }
        self.round += usize::from(more);
        more
    }

    fn row(&mut self, name: &str) -> &mut Measured {
        let at = self.rows.iter().position(|row| row.name == name);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Measured {
                name: name.to_owned(),
                ..Measured::default()
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// Measures one round of one row, of about `messages` messages. The work itself records the times of its calls.
    pub(crate) async fn measure<T>(
        &mut self,
        name: &str,
        messages: usize,
        work: impl AsyncFnOnce(&mut Samples) -> Outcome<T>,
    ) -> Outcome<T> {
        let mut calls = Samples::default();
        let before = self.meter.read().await?;
        let started = Instant::now();
        let done = work(&mut calls).await?;
        let took = started.elapsed();
        let cost = before.until(&self.meter.read().await?);
        self.add(name, messages, took, calls, Some(cost));
        Ok(done)
    }

    /// Records a round that was measured elsewhere; without a time if that has no meaning.
    pub(crate) fn add(
        &mut self,
        name: &str,
        messages: usize,
        took: Duration,
        calls: Samples,
        cost: Option<Cost>,
    ) {
        let counts = self.round > self.warm_up;
        let row = self.row(name);
        if !counts {
            return;
        }
        if took > Duration::ZERO {
            row.rounds.push(took.as_secs_f64() / messages as f64);
        }
        row.calls.extend(calls);
        row.messages += messages;
        if let Some(cost) = cost {
            *row.cost.get_or_insert_default() += cost;
        }
    }

    /// A row for a program that can't do this.
    pub(crate) fn leave_empty(&mut self, name: &str) {
        self.row(name);
    }

    /// How many times as fast one row is as another, from the ratios of rounds.
    fn speed(&self, of: &str, to: &str) -> Option<Spread> {
        let find = |name: &str| self.rows.iter().find(|row| row.name == name);
        let (of, to) = (find(of)?, find(to)?);
        let ratios: Vec<f64> = to
            .rounds
            .iter()
            .zip(&of.rounds)
            .map(|(to, of)| to / of)
            .collect();
        Spread::of(&ratios)
    }

    /// Sets a goal: a row at least `goal` times as fast as another.
    pub(crate) fn at_least(&mut self, goal: f64, of: &str, to: &str, what: impl Into<String>) {
        if let Some(ratio) = self.speed(of, to) {
            self.check(what, ratio, Goal::AtLeast(goal));
        }
    }

    /// Sets a goal: a row takes at most `goal` times as long as another.
    pub(crate) fn at_most(&mut self, goal: f64, of: &str, to: &str, what: impl Into<String>) {
        if let Some(ratio) = self.speed(to, of) {
            self.check(what, ratio, Goal::AtMost(goal));
        }
    }

    /// Sets a goal: a quantile of a row's calls is at most `goal` times another's.
    pub(crate) fn quantile_at_most(
        &mut self,
        goal: f64,
        q: f64,
        of: &str,
        to: &str,
        what: impl Into<String>,
    ) {
        let quantile = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name)?;
            row.calls.quantile(q)
        };
        if let (Some(of), Some(to)) = (quantile(of), quantile(to)) {
            let ratio = of.as_secs_f64() / to.as_secs_f64();
            let ratio = Spread {
                low: ratio,
                median: ratio,
                high: ratio,
            };
            self.check(what, ratio, Goal::AtMost(goal));
        }
    }

    fn check(&mut self, what: impl Into<String>, ratio: Spread, goal: Goal) {
        let what = what.into();
        self.checks.push(Check { what, ratio, goal });
    }

    /// Prints the table, and returns it for the report.
    pub(crate) fn finish(self) -> Table {
        let first = self.rows.first().map_or("", |row| &row.name).to_owned();
        let speeds: Vec<_> = self
            .rows
            .iter()
            .map(|row| self.speed(&row.name, &first))
            .collect();
        let rows = self.rows.into_iter().zip(speeds);
        let table = Table {
            title: self.title,
            rounds: self.of,
            rows: rows.map(|(row, speed)| row.finish(speed)).collect(),
            checks: self.checks,
            compared: self.compared,
        };
        println!("{}", table.markdown());
        table
    }
}

impl Measured {
    fn finish(self, speed: Option<Spread>) -> Row {
        let micros: Vec<f64> = self.rounds.iter().map(|seconds| seconds * 1e6).collect();
        let quantile = |q| self.calls.quantile(q).map(|time| time.as_secs_f64() * 1e3);
        let each = |total: f64| total / self.messages as f64;
        let cost = self.cost;
        let time = |of: fn(&Cost) -> Duration| {
            let time = of(cost.as_ref()?);
            (time > Duration::ZERO).then(|| each(time.as_secs_f64() * 1e6))
        };
        Row {
            time: Spread::of(&micros),
            speed,
            p50: quantile(0.5),
            p99: quantile(0.99),
            wal: cost.map(|cost| each(cost.wal as f64)),
            commits: cost.map(|cost| each(cost.transactions as f64)),
            server: time(|cost| cost.server),
            client: time(|cost| cost.client),
            name: self.name,
        }
    }
}

const HEAD: [&str; 9] = [
    "",
    "us a message",
    "speed",
    "p50 ms",
    "p99 ms",
    "log, bytes",
    "commits",
    "server us",
    "client us",
];

impl Table {
    /// As Markdown that is also readable as plain text.
    pub(crate) fn markdown(&self) -> String {
        let mut lines = vec![HEAD.map(str::to_owned)];
        for row in &self.rows {
            let number = |value: Option<f64>| value.map_or_else(String::new, figure);
            let spread = |value: Option<Spread>| {
                value.map_or_else(String::new, |Spread { low, median, high }| {
                    format!("{} ({}-{})", figure(median), figure(low), figure(high))
                })
            };
            lines.push([
                row.name.clone(),
                spread(row.time),
                spread(row.speed),
                number(row.p50),
                number(row.p99),
                row.wal
                    .map_or_else(String::new, |bytes| format!("{bytes:.0}")),
                number(row.commits),
                number(row.server),
                number(row.client),
            ]);
        }
        // Columns without any value are omitted.
        let kept: Vec<usize> = (0..HEAD.len())
            .filter(|&at| at == 0 || lines[1..].iter().any(|line| !line[at].is_empty()))
            .collect();
        let width = |at: usize| {
            lines
                .iter()
                .map(|line| line[at].chars().count())
                .max()
                .unwrap_or(0)
        };
        let mut text = format!("**{}** ({})\n\n", self.title, many(self.rounds, "round"));
        for (n, line) in lines.iter().enumerate() {
            let cells: Vec<String> = kept
                .iter()
                .map(|&at| match at {
                    0 => format!("{:<width$}", line[at], width = width(at)),
                    _ => format!("{:>width$}", line[at], width = width(at)),
                })
                .collect();
            text += &format!("| {} |\n", cells.join(" | "));
            if n == 0 {
                let rule = kept.iter().map(|&at| match at {
                    0 => "-".repeat(width(at).max(3)),
                    _ => format!("{}:", "-".repeat(width(at).max(3) - 1)),
                });
                text += &format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
            }
        }
        if !self.checks.is_empty() {
            text += "\n";
        }
        for check in &self.checks {
            let Spread { low, median, high } = check.ratio;
            let (word, goal) = match check.goal {
                Goal::AtLeast(goal) => ("at least", goal),
                Goal::AtMost(goal) => ("at most", goal),
            };
            let range = if low == high {
                String::new()
            } else {
                format!(" ({}-{})", figure(low), figure(high))
            };
            let met = if check.is_met() {
                ""
            } else {
                ": **not reached**"
            };
            text += &format!(
                "- {}: {}{range}, {word} {goal}{met}\n",
                check.what,
                figure(median)
            );
        }
        text
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn many(n: usize, of: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {of}{s}")
}

/// Rounded to three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 0.1 || x == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl Report {
    pub(crate) fn new(subject: &str, quick: bool) -> Self {
        Self {
            subject: subject.to_owned(),
            quick,
            tables: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Writes the results, and regenerates the table and the chart of all subjects.
    pub(crate) fn write(&self) -> Outcome {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let json = serde_json::to_string_pretty(self)?;
        fs::write(folder.join(format!("{}.json", self.subject)), json)?;
        let mut reports = Vec::new();
        for subject in SUBJECTS {
            if let Ok(json) = fs::read_to_string(folder.join(format!("{subject}.json"))) {
                // Results written by an older version of this program are ignored.
                reports.extend(serde_json::from_str::<Report>(&json));
            }
        }
        let markdown: Vec<String> = reports.iter().map(Report::markdown).collect();
        fs::write(folder.join("results.md"), markdown.join("\n"))?;
        fs::write(folder.join("chart.svg"), chart::draw(&reports))?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let quick = if self.quick { ", of a quick run" } else { "" };
        let mut text = format!("### {}{quick}\n\n", self.subject);
        if !self.facts.is_empty() {
            text += "| | |\n|---|---|\n";
        }
        for (what, fact) in &self.facts {
            text += &format!("| {what} | {fact} |\n");
        }
        if !self.facts.is_empty() && !self.tables.is_empty() {
            text.push('\n');
        }
        let tables: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        text + &tables.join("\n")
    }
}

/// The order of the subjects in the report.
pub(crate) const SUBJECTS: [&str; 17] = [
    "machine",
    "enqueue",
    "once",
    "payload",
    "claim",
    "lifecycle",
    "drain",
    "chunks",
    "unique",
    "groups",
    "latency",
    "growth",
    "pgbouncer",
    "schedules",
    "telemetry",
    "citus",
    "peers",
];

/// The output folder: `target/bench`, as in xtask.
fn folder() -> PathBuf {
    env::var_os("PGQRS_BENCH_OUTPUT").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from)
}
