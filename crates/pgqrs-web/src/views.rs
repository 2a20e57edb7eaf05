//! The views, and which one a path leads to.

pub(crate) mod dead;
pub(crate) mod groups;
mod health;
mod message;
pub(crate) mod messages;
mod overview;
mod schedules;
mod workers;

use maud::{Markup, html};
use pgqrs::{Error, QueueInfo, QueueStats};

use crate::{
    actions::{self, Action, buttons},
    app::App,
    format::{self, duration},
    layout::View,
    respond::Asked,
};

/// Why there is no view.
#[derive(Debug)]
pub(crate) enum Problem {
    NotFound,
    /// The database took too long, or doesn't answer.
    TooSlow,
    Of(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Of(error)
    }
}

pub(crate) async fn view(app: &App, asked: &Asked, parts: &[&str]) -> Result<View, Problem> {
    match parts {
        [] => overview::view(app, asked).await,
        ["queues", queue] => messages::view(app, asked, queue).await,
        ["queues", queue, "dead"] => dead::view(app, asked, queue).await,
        ["queues", queue, "groups"] => groups::view(app, asked, queue).await,
        ["queues", queue, "find"] => message::find(app, asked, queue).await,
        ["queues", queue, "messages", id] => message::view(app, asked, queue, id).await,
        ["workers"] => workers::list(app, asked).await,
        ["workers", id] => workers::view(app, asked, id).await,
        ["schedules"] => schedules::list(app, asked).await,
        ["schedules", name] => schedules::view(app, asked, name).await,
        ["health"] => health::view(app).await,
        ["actions"] if asked.allowed.any() => Ok(actions::view(app, asked)),
        _ => Err(Problem::NotFound),
    }
}

pub(crate) fn problem(asked: &Asked, problem: &Problem) -> Markup {
    html! {
        h1 { (problem.title()) }
        div.note.critical #problem {
            @match problem {
                Problem::NotFound => { p { "There is nothing here." } }
                Problem::TooSlow => { p { "The database took longer than five seconds." } }
                Problem::Of(error) => {
                    p { (error) }
                    @for cause in causes(error) { p.faint { (cause) } }
                    @if is_timeout(error) {
                        p { "It took longer than two seconds, and the server cancelled it. Fewer conditions, or another
                            order, may be faster." }
                    }
                }
            }
        }
        p { a href=(asked.link(&[])) { "All queues" } }
    }
}

/// What lies behind an error, from the outside to the inside.
fn causes(error: &Error) -> Vec<String> {
    let source = std::error::Error::source(error);
    std::iter::successors(source, |cause| cause.source())
        .map(ToString::to_string)
        .collect()
}

/// Whether the server has cancelled a statement that took too long.
pub(crate) fn is_timeout(error: &Error) -> bool {
    let Error::Database(source) = error else {
        return false;
    };
    let refusal = source.as_database_error();
    refusal.and_then(|refusal| refusal.code()).as_deref() == Some("57014")
}

/// The head of all views of a queue: its name, its state, its tabs.
fn queue_head(asked: &Asked, info: &QueueInfo, stats: &QueueStats, here: &str) -> Markup {
    let queue = info.name.as_str();
    let tabs = [
        ("ready", stats.ready.to_string()),
        ("delayed", stats.delayed.to_string()),
        ("leased", stats.leased.to_string()),
        ("dead", stats.dead.to_string()),
    ];
    html! {
        nav.crumbs aria-label="Path" { a href=(asked.link(&[])) { "Queues" } }
        div.head {
            h1 { (queue) }
            (badges(info))
            (buttons(asked, &[if info.is_paused || info.slowed_until.is_some() { Action::ResumeQueue } else { Action::PauseQueue }], &[("queue", queue)]))
        }
        p.facts {
            @if let Some(oldest) = stats.oldest_ready {
                "The oldest ready message waits for " b { (format::about(oldest)) } ". "
            }
            "At most " (info.max_attempts) " attempts. "
            @if let Some(lease) = info.lease { "Leases of " (duration(lease)) ". " }
            @if info.archive_on_ack { "Acknowledged messages are archived. " }
            @if let Some(kept) = info.dead_letters_for { "Dead letters are kept for " (duration(kept)) ". " }
            @if let Some(rate) = info.rate { "At most " (rate.messages()) " attempts start in " (duration(rate.per())) ". " }
            @if info.sensitive { "Payloads are hidden. " }
        }
        nav.tabs aria-label="Messages by state" {
            @for (name, count) in tabs {
                @let link = match name {
                    "dead" => asked.link(&["queues", queue, "dead"]),
                    state => format!("{}?state={state}", asked.link(&["queues", queue])),
                };
                a href=(link) aria-current=[(name == here).then_some("page")] {
                    (name) " " span.count { (count) }
                }
            }
            @if info.groups.is_some() || !stats.parked.is_zero() {
                a href=(asked.link(&["queues", queue, "groups"])) aria-current=[(here == "groups").then_some("page")] {
                    "groups " span.count { (stats.parked) " parked" }
                }
            }
        }
    }
}

fn badges(info: &QueueInfo) -> Markup {
    html! {
        @if info.is_paused {
            span.badge.warning {
                "paused"
                @if let Some(until) = info.paused_until { " until " (format::time(until)) }
            }
        }
        @if let Some(until) = info.slowed_until {
            span.badge.warning { "slowed down until " (format::time(until)) }
        }
        @if info.closed_at.is_some() { span.badge.warning { "closed" } }
    }
}

/// A search for one message, by its id or its key.
fn find_form(asked: &Asked, queue: &str, text: &str) -> Markup {
    html! {
        form.find action=(asked.link(&["queues", queue, "find"])) role="search" {
            label for="find" { "Id or key" }
            input #find name="q" value=(text) autocomplete="off" spellcheck="false";
            button { "Find" }
        }
    }
}

/// Conditions of a search, as they are typed in.
struct Conditions<'a> {
    group: &'a str,
    header: &'a str,
    path: &'a str,
    value: &'a str,
    error: &'a str,
}

impl<'a> Conditions<'a> {
    fn of(asked: &'a Asked) -> Self {
        Self {
            group: asked.value("group"),
            header: asked.value("header"),
            path: asked.value("path"),
            value: asked.value("value"),
            error: asked.value("error"),
        }
    }

    fn is_empty(&self) -> bool {
        [self.group, self.header, self.path, self.error]
            .iter()
            .all(|text| text.is_empty())
    }

    fn pairs(&self) -> [(&'static str, &'a str); 5] {
        [
            ("group", self.group),
            ("header", self.header),
            ("path", self.path),
            ("value", self.value),
            ("error", self.error),
        ]
    }

    /// The name and the value of a header, from `name: value`.
    fn header(&self) -> Option<(&'a str, &'a str)> {
        if self.header.is_empty() {
            return None;
        }
        // Without a value it finds nothing, rather than everything.
        let (name, value) = self
            .header
            .split_once([':', '='])
            .unwrap_or((self.header, ""));
        Some((name.trim(), value.trim()))
    }

    /// The names on the way to a value, from `user.id`. In a hidden payload nothing is found: an answer would tell what is
    /// in it, and without this condition, everything would match.
    fn path(&self, is_hidden: bool) -> Option<Vec<String>> {
        if self.path.is_empty() {
            return None;
        }
        if is_hidden {
            return Some(vec![format!("{:x}", rand::random::<u128>())]);
        }
        Some(self.path.split('.').map(str::to_owned).collect())
    }

    fn fields(&self, is_hidden: bool, has_groups: bool) -> Markup {
        html! {
            @if has_groups || !self.group.is_empty() {
                div { label for="group" { "Group" }
                    input #group name="group" value=(self.group) spellcheck="false"; }
            }
            div { label for="header" { "Header" }
                input #header name="header" value=(self.header) placeholder="tenant: acme" spellcheck="false"; }
            @if !is_hidden {
                div { label for="path" { "Path in the payload" }
                    input #path name="path" value=(self.path) placeholder="user.id" spellcheck="false"; }
                div { label for="value" { "Its value" }
                    input #value name="value" value=(self.value) placeholder="42" spellcheck="false"; }
            }
            div { label for="error" { "Error contains" }
                input #error name="error" value=(self.error) spellcheck="false"; }
            button { "Search" }
        }
    }
}

/// How a list ends: the next page, and whether the search has looked at all.
fn list_end(next: Option<String>, is_cut: bool, shown: usize) -> Markup {
    html! {
        @if is_cut {
            p.note { "Searched 50,000 messages in this state, and no more at once." }
        }
        @if shown == 0 && !is_cut { p.empty { "None." } }
        @if let Some(next) = next {
            p { a.button href=(next) rel="next" {
                @if is_cut { "Search the next 50,000" } @else { "Next page" }
            } }
        }
    }
}
