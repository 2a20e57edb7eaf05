//! All queues.

use maud::{Markup, html};
use pgqrs::{Count, Health, QueueHealth, QueueInfo, Severity};

use super::{Problem, badges};
use crate::{
    app::App,
    charts,
    format::{self, number},
    layout::View,
    respond::Asked,
    sample::{Point, rates},
};

pub(super) async fn view(app: &App, asked: &Asked) -> Result<View, Problem> {
    let sample = app.sample().await?;
    let rates = rates(&sample.points);
    let into: Vec<_> = rates.iter().map(|rate| rate.into).collect();
    let out: Vec<_> = rates.iter().map(|rate| rate.out).collect();
    let total: Count = sample
        .health
        .queues
        .iter()
        .map(|queue| queue.stats.total())
        .sum();
    let dead: Count = sample
        .health
        .queues
        .iter()
        .map(|queue| queue.stats.dead)
        .sum();
    let main = html! {
        h1 { "Queues" }
        dl.tiles {
            (tile("Messages", &total.to_string(), html! {}))
            (tile("Dead letters", &dead.to_string(), html! {}))
            (tile("In per minute", &newest(&into), charts::line(&into, "Messages sent, per minute")))
            (tile("Out per minute", &newest(&out), charts::line(&out, "Messages done, per minute")))
        }
        (health(asked, &sample.health))
        @if sample.health.queues.is_empty() {
            p.empty { "There are no queues yet. The first one appears here once it is created." }
        } @else {
            div.wide tabindex="0" role="region" aria-label="Queues" {
                table.queues {
                    thead { tr {
                        th scope="col" { "Queue" }
                        th.number scope="col" { "Ready" }
                        th.number scope="col" { "Delayed" }
                        th.number scope="col" { "Leased" }
                        th.number scope="col" { "Dead" }
                        th.number scope="col" { "Oldest ready" }
                        th.number scope="col" { "Consumers" }
                        th scope="col" { "Last minutes" }
                    } }
                    tbody {
                        @for queue in &sample.health.queues {
                            @let name = queue.stats.queue.as_str();
                            @let info = sample.queues.iter().find(|info| info.name.as_str() == name);
                            (row(asked, queue, info, &sample.points))
                        }
                    }
                }
            }
        }
    };
    Ok(View {
        title: "Queues".to_owned(),
        place: "Queues",
        main,
    })
}

fn newest(rates: &[u64]) -> String {
    rates
        .last()
        .map_or_else(|| "…".to_owned(), |rate| number(*rate))
}

fn tile(name: &str, value: &str, chart: Markup) -> Markup {
    html! {
        div { dt { (name) } dd { span.value { (value) } (chart) } }
    }
}

/// The most severe finding, if it is one to act on.
fn health(asked: &Asked, health: &Health) -> Markup {
    let urgent = health
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Info);
    let urgent: Vec<_> = urgent.collect();
    html! {
        @if let Some(first) = urgent.first() {
            p.note.(first.severity.as_str()) {
                b { (first.severity) } " " (first)
                " " a href=(asked.link(&["health"])) {
                    @if urgent.len() > 1 { "What to do, and " (urgent.len() - 1) " more" } @else { "What to do" }
                }
            }
        }
    }
}

fn row(asked: &Asked, queue: &QueueHealth, info: Option<&QueueInfo>, points: &[Point]) -> Markup {
    let stats = &queue.stats;
    let name = stats.queue.as_str();
    let depths: Vec<_> = points
        .iter()
        .filter_map(|point| point.depth(name))
        .collect();
    let state = |state: &str, count: Count| {
        let link = format!("{}?state={state}", asked.link(&["queues", name]));
        html! { td.number data-label=(state) {
            @if count.is_zero() { span.faint { "0" } } @else { a href=(link) { (count) } }
        } }
    };
    let is_alone = queue.consumers == 0 && !stats.ready.is_zero();
    html! {
        tr {
            th scope="row" {
                a href=(asked.link(&["queues", name])) { (name) }
                @if let Some(info) = info { (badges(info)) }
                @let groups = asked.link(&["queues", name, "groups"]);
                @if !stats.parked.is_zero() { " " a.badge href=(groups) { (stats.parked) " parked" } }
                @if !stats.stopped_groups.is_zero() {
                    " " a.badge.warning href=(format!("{groups}?order=stopped")) { (stats.stopped_groups) " groups stopped" }
                }
            }
            (state("ready", stats.ready))
            (state("delayed", stats.delayed))
            (state("leased", stats.leased))
            td.number data-label="dead" {
                @if stats.dead.is_zero() { span.faint { "0" } } @else {
                    a.bad href=(asked.link(&["queues", name, "dead"])) { (stats.dead) }
                }
            }
            td.number data-label="oldest ready" {
                @match stats.oldest_ready {
                    Some(oldest) => (format::about(oldest)),
                    None => (format::none()),
                }
            }
            td.number data-label="consumers" {
                span.bad[is_alone] { (number(queue.consumers)) }
                @if queue.suspended_consumers > 0 {
                    " " span.faint { "+ " (number(queue.suspended_consumers)) " suspended" }
                }
            }
            td data-label="last minutes" { (charts::line(&depths, &format!("Messages in {name}"))) }
        }
    }
}
