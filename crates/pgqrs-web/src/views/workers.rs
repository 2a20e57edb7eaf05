//! Workers, and what one of them holds.

use maud::{Markup, html};
use pgqrs::{WorkerFilter, WorkerId, WorkerInfo, WorkerStatus};

use super::Problem;
use crate::{
    actions::{Action, buttons},
    app::App,
    format::{self, number},
    layout::View,
    respond::Asked,
};

/// How many workers are shown.
const SHOWN: usize = 500;
/// How many of the messages that a worker holds are shown.
const HELD: usize = 200;

pub(super) async fn list(app: &App, asked: &Asked) -> Result<View, Problem> {
    let all = app.admin.workers(&WorkerFilter::default()).await?;
    let is_ended = |worker: &&WorkerInfo| worker.status == WorkerStatus::Stopped;
    let ended = all.iter().filter(is_ended).count();
    let mut workers: Vec<_> = all.iter().filter(|worker| !is_ended(worker)).collect();
    // What needs a look first: crashed ones, then suspended ones.
    workers.sort_by_key(|worker| {
        (
            !worker.stale,
            worker.status == WorkerStatus::Ready,
            worker.id,
        )
    });
    let main = html! {
        h1 { "Workers" }
        p.facts {
            (number(workers.len() as u64)) " registered"
            @if ended > 0 { ", and " (number(ended as u64)) " that have stopped" }
            ". Calls without a registered worker aren't listed."
        }
        @if workers.is_empty() { p.empty { "None." } } @else {
            div.wide tabindex="0" role="region" aria-label="Workers" {
                table {
                    thead { tr {
                        th scope="col" { "Worker" }
                        th scope="col" { "Queue" }
                        th scope="col" { "State" }
                        th scope="col" { "Last heartbeat" }
                        th scope="col" { "Started" }
                        th scope="col" { "Host" }
                    } }
                    tbody { @for worker in workers.iter().take(SHOWN) { (row(asked, worker)) } }
                }
            }
        }
        @if workers.len() > SHOWN { p.note { "The first " (SHOWN) " of them." } }
    };
    Ok(View {
        title: "Workers".to_owned(),
        place: "Workers",
        main,
    })
}

fn row(asked: &Asked, worker: &WorkerInfo) -> Markup {
    let id = worker.id.to_string();
    html! {
        tr {
            th scope="row" { a href=(asked.link(&["workers", &id])) { (worker.kind) " " (id) } }
            td data-label="queue" { a href=(asked.link(&["queues", worker.queue.as_str()])) { (worker.queue) } }
            td data-label="state" { (state(worker)) }
            td data-label="last heartbeat" { (format::time(worker.heartbeat_at)) }
            td data-label="started" { (format::time(worker.started_at)) }
            td.text data-label="host" { (host(worker)) }
        }
    }
}

fn state(worker: &WorkerInfo) -> Markup {
    html! {
        span.badge.(worker.status.as_str()) { (worker.status) }
        @if worker.stale && worker.status != WorkerStatus::Stopped { span.badge.critical { "no heartbeat" } }
    }
}

fn possible(worker: &WorkerInfo) -> &'static [Action] {
    match worker.status {
        WorkerStatus::Ready => &[Action::SuspendWorker, Action::StopWorker],
        WorkerStatus::Suspended => &[Action::ResumeWorker, Action::StopWorker],
        WorkerStatus::Stopped => &[],
    }
}

fn host(worker: &WorkerInfo) -> String {
    if worker.port == 0 {
        return worker.hostname.clone();
    }
    format!("{}:{}", worker.hostname, worker.port)
}

pub(super) async fn view(app: &App, asked: &Asked, id: &str) -> Result<View, Problem> {
    let id: i64 = id.parse().map_err(|_| Problem::NotFound)?;
    let worker = app.admin.worker(WorkerId::from(id)).await?;
    let queue = worker.queue.as_str();
    let held = app.admin.held_messages(worker.id).await?;
    let main = html! {
        nav.crumbs aria-label="Path" { a href=(asked.link(&["workers"])) { "Workers" } }
        div.head { h1 { (worker.kind) " " (worker.id) } (state(&worker)) }
        (buttons(asked, possible(&worker), &[("worker", &worker.id.to_string())]))
        dl.facts {
            div { dt { "Queue" } dd { a href=(asked.link(&["queues", queue])) { (queue) } } }
            div { dt { "Host" } dd { (host(&worker)) } }
            div { dt { "Started" } dd { (format::time(worker.started_at)) } }
            div { dt { "Last heartbeat" } dd { (format::time(worker.heartbeat_at)) } }
        }
        h2 { "Messages that it holds " span.count { (number(held.len() as u64)) } }
        @if held.is_empty() { p.empty { "None." } } @else {
            div.wide tabindex="0" role="region" aria-label="Messages that it holds" {
                table {
                    thead { tr {
                        th scope="col" { "Message" }
                        th.number scope="col" { "Attempt" }
                        th scope="col" { "Lease ends" }
                    } }
                    tbody {
                        @for message in held.iter().take(HELD) {
                            @let id = message.id.to_string();
                            tr {
                                th scope="row" { a href=(asked.link(&["queues", queue, "messages", &id])) { (id) } }
                                td.number data-label="attempt" { (message.attempt) }
                                td data-label="lease ends" { (format::time(message.lease_expires_at)) }
                            }
                        }
                    }
                }
            }
        }
        @if held.len() > HELD { p.note { "The first " (HELD) " of them." } }
    };
    Ok(View {
        title: format!("{} {}", worker.kind, worker.id),
        place: "Workers",
        main,
    })
}
