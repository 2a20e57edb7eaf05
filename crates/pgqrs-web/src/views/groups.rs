//! Groups of a queue: by what they have parked, by age, or those that are stopped.

use maud::{Markup, html};
use pgqrs::{GroupInfo, GroupOrder};

use super::{Problem, queue_head};
use crate::{
    actions::{Action, buttons},
    app::App,
    format::{self, maybe_time, number},
    layout::View,
    path,
    respond::Asked,
};

/// How many are shown.
const MOST: u32 = 100;

const ORDERS: [(&str, &str); 3] = [
    ("parked", "most parked"),
    ("oldest", "oldest"),
    ("stopped", "stopped"),
];

/// The groups that a request asks for.
pub(crate) async fn list(app: &App, asked: &Asked, queue: &str) -> Result<Vec<GroupInfo>, Problem> {
    let order = match chosen(asked) {
        "oldest" => GroupOrder::Oldest,
        "stopped" => GroupOrder::Stopped,
        _ => GroupOrder::Parked,
    };
    Ok(app.admin.groups(queue, order, MOST).await?)
}

fn chosen(asked: &Asked) -> &'static str {
    let is_asked = |(name, _): &&(&str, &str)| *name == asked.value("order");
    ORDERS.iter().find(is_asked).unwrap_or(&ORDERS[0]).0
}

pub(super) async fn view(app: &App, asked: &Asked, queue: &str) -> Result<View, Problem> {
    let chosen = chosen(asked);
    let info = app.admin.queue(queue).await?;
    let stats = app.admin.queue_stats(queue).await?;
    let groups = list(app, asked, queue).await?;
    let at_once = info.groups.map(|groups| groups.at_once());
    let here = asked.link(&["queues", queue, "groups"]);
    let main = html! {
        (queue_head(asked, &info, &stats, "groups"))
        p.facts {
            @match at_once {
                Some(at_once) => { (number(at_once.into())) " of a group at a time. " }
                None => "The queue takes no messages of groups any more. ",
            }
            @if !stats.stopped_groups.is_zero() {
                b { (stats.stopped_groups) } " stopped: what they have parked waits for an operator. "
            }
        }
        (buttons(asked, &[Action::PromoteGroups], &[("queue", queue)]))
        nav.tabs aria-label="Order of the groups" {
            @for (name, text) in ORDERS {
                a href=(format!("{here}?order={name}")) aria-current=[(name == chosen).then_some("page")] { (text) }
            }
        }
        @if groups.is_empty() { p.empty { "None." } } @else {
            div.wide tabindex="0" role="region" aria-label="Groups" {
                table {
                    thead { tr {
                        th scope="col" { "Group" }
                        th.number scope="col" { "On their way" }
                        th.number scope="col" { "Parked" }
                        th.number scope="col" { "Limit of its own" }
                        th scope="col" { "Oldest parked" }
                        th scope="col" { "State" }
                        th scope="col" { "Actions" }
                    } }
                    tbody { @for group in &groups { (row(asked, queue, group)) } }
                }
            }
        }
        @if u32::try_from(groups.len()) == Ok(MOST) { p.note { "The first " (MOST) " in this order." } }
    };
    Ok(View {
        title: format!("{queue}: groups"),
        place: "Queues",
        main,
    })
}

fn row(asked: &Asked, queue: &str, group: &GroupInfo) -> Markup {
    let on = [("queue", queue), ("group", group.group.as_str())];
    html! {
        tr {
            th scope="row" { a href=(messages(asked, queue, group)) { (group.group) } }
            td.number data-label="on their way" { (number(group.live)) }
            td.number data-label="parked" { (number(group.parked)) }
            td.number data-label="limit of its own" {
                @match group.at_once { Some(limit) => (number(limit.into())), None => (format::none()) }
            }
            td data-label="oldest parked" { (maybe_time(group.oldest_parked)) }
            td data-label="state" { (state(asked, queue, group)) }
            td data-label="actions" { (buttons(asked, possible(group), &on)) }
        }
    }
}

/// Its messages: those that wait behind others, if there are any.
fn messages(asked: &Asked, queue: &str, group: &GroupInfo) -> String {
    let state = if group.parked > 0 { "delayed" } else { "ready" };
    let query = path::query(&[("state", state), ("group", &group.group)]);
    format!("{}{query}", asked.link(&["queues", queue]))
}

fn state(asked: &Asked, queue: &str, group: &GroupInfo) -> Markup {
    html! {
        @match group.stopped_at {
            Some(since) => {
                span.badge.warning { "stopped since " (format::time(since)) }
                @match group.stopped_by {
                    Some(message) => {
                        " by "
                        a href=(asked.link(&["queues", queue, "messages", &message.to_string()])) { "message " (message) }
                    }
                    None => " by an operator",
                }
            }
            None => (format::none()),
        }
    }
}

fn possible(group: &GroupInfo) -> &'static [Action] {
    match (group.stopped_at, group.parked) {
        (Some(_), 0) => &[Action::ResumeGroup],
        (Some(_), _) => &[Action::ResumeGroup, Action::PurgeGroup],
        (None, 0) => &[Action::StopGroup],
        (None, _) => &[Action::StopGroup, Action::PurgeGroup],
    }
}
