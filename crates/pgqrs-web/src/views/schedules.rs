//! Schedules, with what they have sent and their next times.

use maud::{Markup, html};
use pgqrs::{
    ScheduleInfo, ScheduleTime,
    chrono::{DateTime, Utc},
};

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
        dl.facts {
            div { dt { "Last time" } dd { (maybe_moment(schedule.last_at)) } }
            div { dt { "Sent" } dd { (maybe_moment(schedule.last_fired_at)) } }
            div { dt { "Late by" } dd { (late(&schedule)) } }
        }
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

fn maybe_moment(time: Option<DateTime<Utc>>) -> Markup {
    time.map_or_else(format::none, format::moment)
}
