//! All queues.

use maud::{Markup, html};
use pgqrs::{Count, Health, QueueHealth, QueueInfo, Severity};

use super::{Problem, badges};
use crate::{
    app::App,
    charts,
    format::{self, number},
    layout::View,
    path,
    respond::Asked,
    sample::{History, Rates},
};

/// How many queues a page has.
const PAGE: usize = 50;

pub(super) async fn view(app: &App, asked: &Asked) -> Result<View, Problem> {
    let sample = app.sample().await?;
    let all = &sample.health.queues;
    let total: Count = all.iter().map(|queue| queue.stats.total()).sum();
    let dead: Count = all.iter().map(|queue| queue.stats.dead).sum();
    let rates = sample.history.total_rates();
    let found = page(asked, all);
    let last = found.last().map(|queue| queue.stats.queue.as_str());
    let next = last.filter(|last| matching(asked, all).any(|name| name > *last));
    let main = html! {
        h1 { "Queues" }
        dl.tiles {
            (tile("Messages", html! { (total) }, html! {}))
            (tile("Dead letters", html! { span.bad[!dead.is_zero()] { (dead) } }, html! {}))
            (rate_tile("In per minute", &rates, |rates| rates.in_per_minute, "Messages sent, per minute"))
            (rate_tile("Out per minute", &rates, |rates| rates.out_per_minute, "Messages done, per minute"))
        }
        (health(asked, &sample.health))
        @if all.is_empty() {
            p.empty { "There are no queues yet. The first one appears here once it is created." }
        } @else {
            @if all.len() > PAGE { (filter(asked, all.len())) }
            @if found.is_empty() { p.empty { "None." } } @else {
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
                            th.number scope="col" { "In per minute" }
                            th.number scope="col" { "Out per minute" }
                            th scope="col" { "Depth" }
                        } }
                        tbody {
                            @for queue in &found {
                                @let name = queue.stats.queue.as_str();
                                @let info = sample.queues.iter().find(|info| info.name.as_str() == name);
                                (row(asked, queue, info, &sample.history))
                            }
                        }
                    }
                }
            }
            @if let Some(next) = next {
                @let query = path::query(&[("name", asked.value("name")), ("after", next)]);
                p { a.button href=(format!("{}{query}", asked.link(&[]))) rel="next" { "Next page" } }
            }
            details.about #about {
                summary { "What these numbers are" }
                p.faint { "Counts stop at 10,000 of each priority. Charts are of the last ten minutes, as far as this page was
                    looked at. " b { "Out" } " is what consumers were done with, which they report every 15 seconds; without a
                    registered consumer, or with an acknowledgement by hand, nothing is counted. " b { "In" } " is that and what the queue
                    has grown by; it isn't known while more than 10,000 messages wait, and what was cancelled, purged or has
                    expired is missing from it. The numbers above the table are of all queues, as PostgreSQL
                    counts them." }
            }
        }
    };
    Ok(View {
        title: "Queues".to_owned(),
        place: "Queues",
        main,
    })
}

/// Names of queues that contain what was asked for.
fn matching<'a>(asked: &'a Asked, all: &'a [QueueHealth]) -> impl Iterator<Item = &'a str> {
    let wanted = asked.value("name");
    let names = all.iter().map(|queue| queue.stats.queue.as_str());
    names.filter(move |name| name.contains(wanted))
}

fn page<'a>(asked: &'a Asked, all: &'a [QueueHealth]) -> Vec<&'a QueueHealth> {
    let (wanted, after) = (asked.value("name"), asked.value("after"));
    let found = all.iter().filter(|queue| {
        let name = queue.stats.queue.as_str();
        name.contains(wanted) && (after.is_empty() || name > after)
    });
    found.take(PAGE).collect()
}

fn filter(asked: &Asked, queues: usize) -> Markup {
    html! {
        form.find action=(asked.link(&[])) role="search" {
            label for="name" { "One of " (number(queues as u64)) " queues" }
            input #name name="name" value=(asked.value("name")) autocomplete="off" spellcheck="false";
            button { "Find" }
        }
    }
}

fn tile(name: &str, value: Markup, chart: Markup) -> Markup {
    html! {
        div { dt { (name) } dd { span.value { (value) } (chart) } }
    }
}

fn rate_tile(
    name: &str,
    rates: &[Rates],
    of: impl Fn(&Rates) -> Option<u64>,
    description: &str,
) -> Markup {
    let values: Vec<_> = rates.iter().filter_map(of).collect();
    let newest = values
        .last()
        .map_or_else(|| "…".to_owned(), |rate| number(*rate));
    tile(name, html! { (newest) }, charts::line(&values, description))
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

fn row(asked: &Asked, queue: &QueueHealth, info: Option<&QueueInfo>, history: &History) -> Markup {
    let stats = &queue.stats;
    let name = stats.queue.as_str();
    let rates = history.all_rates(name);
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
            (rate("in per minute", &rates, |rates| rates.in_per_minute, &format!("Into {name}, per minute")))
            (rate("out per minute", &rates, |rates| rates.out_per_minute, &format!("Out of {name}, per minute")))
            td data-label="depth" { (charts::line(&history.depths(name), &format!("Messages in {name}"))) }
        }
    }
}

fn rate(
    label: &str,
    rates: &[Rates],
    of: impl Fn(&Rates) -> Option<u64>,
    description: &str,
) -> Markup {
    let values: Vec<_> = rates.iter().filter_map(&of).collect();
    html! {
        td.number.rate data-label=(label) {
            div {
                @match rates.last().and_then(of) {
                    Some(rate) => span { (number(rate)) },
                    None => (format::none()),
                }
                (charts::line(&values, description))
            }
        }
    }
}
