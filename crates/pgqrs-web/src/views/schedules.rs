//! Schedules, with what they have sent and their next times.

use maud::{Markup, html};
use pgqrs::{FiringOutcome, ScheduleFiring, ScheduleInfo, ScheduleTime};

use super::Problem;
use crate::{
    actions::{Action, buttons},
    app::App,
    format::{self, duration, maybe_time},
    layout::View,
    path,
    respond::Asked,
};

/// How many next times are shown of one schedule.
const NEXT: usize = 10;

pub(super) async fn list(app: &App, asked: &Asked) -> Result<View, Problem> {
    let schedules = app.admin.schedules().await?;
    let main = html! {
        h1 { "Schedules" }
        @if schedules.is_empty() { p.empty { "There are none." } } @else {
            div.wide tabindex="0" role="region" aria-label="Schedules" {
                table {
                    thead { tr {
                        th scope="col" { "Schedule" }
                        th scope="col" { "Queue" }
                        th scope="col" { "Times" }
                        th scope="col" { "Next" }
                        th scope="col" { "Last" }
                        th scope="col" { "Sent late by" }
                    } }
                    tbody { @for schedule in &schedules { (row(asked, schedule)) } }
                }
            }
        }
    };
    Ok(View {
        title: "Schedules".to_owned(),
        place: "Schedules",
        main,
    })
}

fn row(asked: &Asked, schedule: &ScheduleInfo) -> Markup {
    let queue = schedule.queue.as_str();
    html! {
        tr {
            th scope="row" { a href=(asked.link(&["schedules", &schedule.name])) { (schedule.name) } }
            td data-label="queue" { a href=(asked.link(&["queues", queue])) { (queue) } }
            td data-label="times" { (times(schedule)) }
            td data-label="next" {
                @if schedule.paused_at.is_some() { span.badge.warning { "paused" } } @else {
                    (format::time(schedule.next_at))
                }
            }
            td data-label="last" { (maybe_time(schedule.last_at)) }
            td data-label="sent late by" { (late(schedule)) }
        }
    }
}

fn possible(schedule: &ScheduleInfo) -> &'static [Action] {
    if schedule.paused_at.is_some() {
        return &[Action::FireSchedule, Action::ResumeSchedule];
    }
    &[Action::FireSchedule, Action::PauseSchedule]
}

fn times(schedule: &ScheduleInfo) -> Markup {
    html! {
        @match &schedule.time {
            ScheduleTime::Cron(cron) => { code { (cron) } " " span.faint { (schedule.zone) } }
            ScheduleTime::Every(interval) => { "every " (duration(*interval)) }
            other => { (format!("{other:?}")) }
        }
    }
}

fn late(schedule: &ScheduleInfo) -> Markup {
    match schedule.lateness() {
        Some(late) => html! { (duration(late)) },
        None => format::none(),
    }
}

/// Those that it has sent and that are in this state.
fn messages(asked: &Asked, schedule: &ScheduleInfo, state: &str) -> String {
    let queue = schedule.queue.as_str();
    let header = format!("pgqrs-schedule: {}", schedule.name);
    if state == "dead" {
        let query = path::query(&[("header", &header)]);
        return format!("{}{query}", asked.link(&["queues", queue, "dead"]));
    }
    let query = path::query(&[("state", state), ("header", &header)]);
    format!("{}{query}", asked.link(&["queues", queue]))
}

pub(super) async fn view(app: &App, asked: &Asked, name: &str) -> Result<View, Problem> {
    let schedule = app.admin.schedule(name).await?;
    let queue = schedule.queue.as_str();
    let upcoming = schedule.upcoming(NEXT);
    let firings = app.admin.schedule_history(name).await?;
    let main = html! {
        nav.crumbs aria-label="Path" { a href=(asked.link(&["schedules"])) { "Schedules" } }
        div.head {
            h1 { (schedule.name) }
            @if let Some(since) = schedule.paused_at {
                span.badge.warning { "paused since " (format::time(since)) }
            }
        }
        (buttons(asked, possible(&schedule), &[("schedule", &schedule.name)]))
        dl.facts {
            div { dt { "Queue" } dd { a href=(asked.link(&["queues", queue])) { (queue) } } }
            div { dt { "Times" } dd { (times(&schedule)) } }
            div { dt { "If it missed some" } dd { (format!("{:?}", schedule.missed).to_lowercase()) } }
            div { dt { "Owner" } dd { (format::maybe(schedule.owner.as_deref())) } }
            div { dt { "Version" } dd { (schedule.version) } }
            div { dt { "Unique key" } dd { (format::maybe(schedule.unique_key.as_deref())) } }
        }
        h2 { "History" }
        (history(asked, &firings))
        p { "Its messages that are still there: "
            @for (n, state) in ["ready", "delayed", "leased", "dead"].into_iter().enumerate() {
                @if n > 0 { ", " }
                a href=(messages(asked, &schedule, state)) { (state) }
            }
            "."
        }
        h2 { "Next times" }
        @match upcoming {
            Ok(times) => ol.times { @for time in times { li { (format::moment(time)) } } },
            Err(error) => p.note.warning { (error) },
        }
    };
    Ok(View {
        title: schedule.name.clone(),
        place: "Schedules",
        main,
    })
}

/// The last firings, the newest first, with what became of each.
fn history(asked: &Asked, firings: &[ScheduleFiring]) -> Markup {
    if firings.is_empty() {
        return html! { p.empty { "Not fired yet." } };
    }
    html! {
        div.wide tabindex="0" role="region" aria-label="History" {
            table {
                thead { tr {
                    th scope="col" { "Time" }
                    th scope="col" { "Late by" }
                    th scope="col" { "Message" }
                    th scope="col" { "Outcome" }
                } }
                tbody { @for firing in firings { (firing_row(asked, firing)) } }
            }
        }
        p.faint {
            "The last 100. Done: acknowledged, if nobody has cancelled or deleted it and it hasn't expired."
        }
    }
}

fn firing_row(asked: &Asked, firing: &ScheduleFiring) -> Markup {
    html! {
        tr {
            th scope="row" {
                @match firing.scheduled_for {
                    Some(time) => (format::moment(time)),
                    None => { (format::moment(firing.fired_at)) " by hand" }
                }
            }
            td data-label="late by" { @match firing.lateness() {
                Some(late) => (duration(late)),
                None => (format::none()),
            } }
            td data-label="message" { (message(asked, firing)) }
            td data-label="outcome" { span { (outcome(firing.outcome)) } }
        }
    }
}

/// The message of a firing, as a link if it is still somewhere.
fn message(asked: &Asked, firing: &ScheduleFiring) -> Markup {
    let Some(message) = firing.message else {
        return format::none();
    };
    let id = message.to_string();
    if firing.outcome == FiringOutcome::Done {
        return html! { (id) };
    }
    html! { a href=(asked.link(&["queues", firing.queue.as_str(), "messages", &id])) { (id) } }
}

fn outcome(outcome: FiringOutcome) -> Markup {
    match outcome {
        FiringOutcome::Dead => html! { span.badge.critical { (outcome) } },
        FiringOutcome::Unfinished => {
            html! { span.badge.warning { "not sent" } " the last one is unfinished" }
        }
        FiringOutcome::QueueClosed => {
            html! { span.badge.warning { "not sent" } " the queue was closed" }
        }
        _ => html! { (outcome) },
    }
}
