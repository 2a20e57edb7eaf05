//! Draws the view. Colours only stress what the words say already.

use pgqrs_web::Rates;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState},
};

use super::state::{Line as Queue, State};
use crate::{
    output::{counted, grouped, printable},
    times::spoken_if,
};

pub(super) fn draw(frame: &mut Frame, state: &State) {
    let wide = frame.area().height >= 16;
    let detail = if wide { 8 } else { 0 };
    let [head, queues, about, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(detail),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(state), head);
    table(frame, state, queues);
    if wide {
        details(frame, state, about);
    }
    frame.render_widget(footer(state), foot);
}

fn header(state: &State) -> Line<'static> {
    let sum = |of: fn(&Queue) -> u64| state.lines.iter().map(of).sum::<u64>();
    let at_least = state.lines.iter().any(|queue| queue.stats.total().at_least);
    let plus = if at_least { "+" } else { "" };
    Line::from(vec![
        Span::from("pgqrs").bold(),
        Span::from(format!(
            "  {}  {}{plus} ready  {}{plus} leased  {}{plus} dead  {}",
            counted(state.lines.len() as u64, "queue"),
            grouped(sum(|queue| queue.stats.ready.value)),
            grouped(sum(|queue| queue.stats.leased.value)),
            grouped(sum(|queue| queue.stats.dead.value)),
            printable(&state.place),
        )),
    ])
}

fn table(frame: &mut Frame, state: &State, area: Rect) {
    let names = state
        .lines
        .iter()
        .map(|queue| queue.name.as_str().chars().count());
    let width = names.max().unwrap_or_default().clamp(5, 40);
    // Otherwise they are among the details.
    let has_rates = usize::from(area.width) >= width + 95;
    let mut widths = vec![
        Constraint::Length(u16::try_from(width).unwrap_or(40)),
        Constraint::Min(6),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let mut head = vec![
        "QUEUE", "STATE", "READY", "+/-", "DELAYED", "LEASED", "DEAD", "OLDEST",
    ];
    if has_rates {
        widths.extend([Constraint::Length(9); 2]);
        head.extend(["IN/MIN", "OUT/MIN"]);
    }
    let head = head.iter().enumerate().map(|(n, name)| match n {
        0 | 1 => Cell::from(*name),
        _ => right((*name).to_owned()),
    });
    let rows = state.lines.iter().map(|queue| {
        let stats = &queue.stats;
        let dead = right(stats.dead.to_string());
        let mut cells = vec![
            Cell::from(printable(queue.name.as_str())),
            Cell::from(queue.state.clone()),
            right(stats.ready.to_string()),
            right(queue.change.map_or(String::new(), |change| match change {
                0 => String::new(),
                change => format!("{change:+}"),
            })),
            right(stats.delayed.to_string()),
            right(stats.leased.to_string()),
            if stats.dead.is_zero() {
                dead
            } else {
                dead.style(Style::new().fg(Color::Red))
            },
            right(spoken_if(stats.oldest_ready, "-")),
        ];
        if has_rates {
            let Rates {
                in_per_minute,
                out_per_minute,
                ..
            } = queue.rates;
            cells.extend([in_per_minute, out_per_minute].map(|rate| right(rate_or_dash(rate))));
        }
        Row::new(cells)
    });
    let table = Table::new(rows, widths)
        .header(Row::new(head).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut selected = TableState::new().with_selected(state.position());
    frame.render_stateful_widget(table, area, &mut selected);
}

fn rate_or_dash(rate: Option<u64>) -> String {
    rate.map_or("-".to_owned(), grouped)
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn details(frame: &mut Frame, state: &State, area: Rect) {
    let title = state.selected().map_or(String::new(), |queue| {
        format!(" {} ", printable(queue.as_str()))
    });
    let block = Block::new().borders(Borders::TOP).title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [left, middle] =
        Layout::horizontal([Constraint::Percentage(40), Constraint::Percentage(60)]).areas(inner);
    let [label, chart] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(left);
    let history = state.history();
    let highest = history.iter().max().copied().unwrap_or_default();
    frame.render_widget(
        Line::from(format!("ready, at most {}", grouped(highest))),
        label,
    );
    // As many as fit, the newest to the right.
    let fits = usize::from(chart.width.saturating_sub(1));
    let shown = &history[history.len().saturating_sub(fits)..];
    frame.render_widget(Sparkline::default().data(shown), chart);
    frame.render_widget(Paragraph::new(facts(state)), middle);
}

fn facts(state: &State) -> Vec<Line<'static>> {
    let Some(detail) = &state.detail else {
        return Vec::new();
    };
    let running = detail.workers.iter().filter(|worker| !worker.stale);
    let consumers = running
        .filter(|worker| worker.kind == pgqrs::WorkerKind::Consumer)
        .filter(|worker| worker.status != pgqrs::WorkerStatus::Stopped)
        .count();
    let stale = detail.workers.iter().filter(|worker| worker.stale).count();
    let mut lines = vec![Line::from(match stale {
        0 => format!("{consumers} consumers"),
        stale => format!("{consumers} consumers, {stale} workers missed their heartbeats"),
    })];
    let selected = state.position().and_then(|at| state.lines.get(at));
    if let Some(queue) = selected {
        lines.push(Line::from(format!(
            "per minute: {} in, {} out",
            rate_or_dash(queue.rates.in_per_minute),
            rate_or_dash(queue.rates.out_per_minute)
        )));
    }
    if !detail.reasons.is_empty() {
        lines.push(Line::from("dead letters:").bold());
    }
    for group in detail.reasons.iter().take(4) {
        lines.push(Line::from(format!(
            "{:>8}  {}",
            group.letters.to_string(),
            printable(&group.reason)
        )));
    }
    lines
}

fn footer(state: &State) -> Line<'static> {
    if let Some(error) = &state.error {
        let error = format!("{}; trying again", printable(error));
        return Line::from(error).style(Style::new().fg(Color::Red));
    }
    let pause = if state.is_paused() {
        "PAUSED, p goes on"
    } else {
        "p pauses"
    };
    Line::from(format!(
        "by {}, s changes that   up, down select   {pause}   q ends",
        state.order.as_str()
    ))
    .style(Style::new().add_modifier(Modifier::DIM))
}
