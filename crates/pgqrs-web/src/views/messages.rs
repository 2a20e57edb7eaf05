//! The messages of a queue in one state.

use maud::{Markup, html};
use pgqrs::{Found, MessageState, QueuedMessage, SearchMessages};

use super::{Conditions, Problem, find_form, list_end, queue_head};
use crate::{
    actions::{Action, for_all},
    app::App,
    format::{self, head, maybe},
    layout::View,
    path,
    respond::Asked,
};

pub(super) async fn view(app: &App, asked: &Asked, queue: &str) -> Result<View, Problem> {
    let queue = queue.to_owned();
    let info = app.admin.queue(queue.clone()).await?;
    let stats = app.admin.queue_stats(queue.clone()).await?;
    let found = search(app, asked, &queue).await?;
    let (state, is_oldest_first) = (state(asked), is_oldest_first(asked));
    let conditions = Conditions::of(asked);
    let link = |order: &str, after: &str| {
        let shown = state.to_string();
        let mut pairs = vec![
            ("state", shown.as_str()),
            ("order", order),
            ("after", after),
        ];
        pairs.extend(conditions.pairs());
        format!("{}{}", asked.link(&["queues", &queue]), path::query(&pairs))
    };
    let order = if is_oldest_first { "oldest" } else { "newest" };
    let shown = state.to_string();
    let mut matching = vec![
        ("queue", queue.as_str()),
        ("state", shown.as_str()),
        ("order", order),
    ];
    matching.extend(conditions.pairs());
    let next = found.next.map(|next| link(order, &next.to_string()));
    let main = html! {
        (queue_head(asked, &info, &stats, &state.to_string()))
        (find_form(asked, &queue, ""))
        details.filter #filter open[!conditions.is_empty()] {
            summary { "Search these messages" }
            form action=(asked.link(&["queues", &queue])) {
                input type="hidden" name="state" value=(state);
                input type="hidden" name="order" value=(order);
                (conditions.fields(app.hides(&info), info.groups.is_some()))
            }
        }
        p.order {
            "Order: "
            @for (name, shown) in [("newest", newest_name(state)), ("oldest", oldest_name(state))] {
                @if name == order { b { (shown) } } @else { a href=(link(name, "")) { (shown) } }
                " "
            }
        }
        @if !found.items.is_empty() { (for_all(asked, all_of(state), &matching)) }
        (table(asked, &queue, state, &found))
        (list_end(next, found.is_cut, found.items.len()))
    };
    Ok(View {
        title: format!("{queue}: {state}"),
        place: "Queues",
        main,
    })
}

/// The page of messages that a request asks for.
pub(crate) async fn search(
    app: &App,
    asked: &Asked,
    queue: &str,
) -> Result<Found<QueuedMessage>, Problem> {
    let is_hidden = app.hides_in(queue).await?;
    Ok(wanted(app, asked, queue, is_hidden).await?)
}

/// The search that a request asks for.
pub(crate) fn wanted(app: &App, asked: &Asked, queue: &str, is_hidden: bool) -> SearchMessages {
    let mut search = app.admin.search(queue.to_owned(), state(asked));
    if is_oldest_first(asked) {
        search = search.oldest_first();
    }
    let conditions = Conditions::of(asked);
    if !conditions.group.is_empty() {
        search = search.group(conditions.group);
    }
    if let Some((name, value)) = conditions.header() {
        search = search.header(name, value);
    }
    if let Some(path) = conditions.path(is_hidden) {
        search = search.payload_at(path, conditions.value);
    }
    if !conditions.error.is_empty() {
        search = search.error(conditions.error);
    }
    if let Ok(after) = asked.value("after").parse() {
        search = search.after(after);
    }
    search
}

fn all_of(state: MessageState) -> &'static [Action] {
    match state {
        MessageState::Delayed => &[Action::RunNow, Action::Reschedule, Action::Cancel],
        MessageState::Ready => &[Action::Reschedule, Action::Cancel],
        _ => &[Action::Cancel],
    }
}

fn state(asked: &Asked) -> MessageState {
    match asked.value("state") {
        "delayed" => MessageState::Delayed,
        "leased" => MessageState::Leased,
        _ => MessageState::Ready,
    }
}

/// Those that are leased are the oldest ones, and of those that are delayed the next ones matter.
fn is_oldest_first(asked: &Asked) -> bool {
    match asked.value("order") {
        "oldest" => true,
        "newest" => false,
        _ => state(asked) != MessageState::Ready,
    }
}

fn newest_name(state: MessageState) -> &'static str {
    if state == MessageState::Delayed {
        "last due first"
    } else {
        "newest first"
    }
}

fn oldest_name(state: MessageState) -> &'static str {
    if state == MessageState::Delayed {
        "next due first"
    } else {
        "oldest first"
    }
}

fn table(asked: &Asked, queue: &str, state: MessageState, found: &Found<QueuedMessage>) -> Markup {
    if found.items.is_empty() {
        return html! {};
    }
    let time_of = if state == MessageState::Leased {
        "lease ends"
    } else {
        "due"
    };
    html! {
        div.wide tabindex="0" role="region" aria-label="Messages" {
            table {
                thead { tr {
                    th scope="col" { "Message" }
                    th.first scope="col" { (time_of) }
                    th scope="col" { "Enqueued" }
                    th.number scope="col" { "Attempt" }
                    th scope="col" { "Priority" }
                    th scope="col" { "Key" }
                    th scope="col" { "Last error" }
                } }
                tbody {
                    @for message in &found.items {
                        @let id = message.id.to_string();
                        @let at = message.lease_expires_at.unwrap_or(message.visible_at);
                        @let key = message.unique_key.as_deref().or(message.waiting_key.as_deref());
                        tr {
                            th scope="row" { a href=(asked.link(&["queues", queue, "messages", &id])) { (id) } }
                            td data-label=(time_of) { (format::time(at)) }
                            td data-label="enqueued" { (format::time(message.enqueued_at)) }
                            td.number data-label="attempt" { (message.attempt) }
                            td data-label="priority" { (format!("{:?}", message.priority).to_lowercase()) }
                            td data-label="key" { (maybe(key)) }
                            td.text data-label="last error" {
                                (maybe(message.last_error.as_deref().map(head).as_deref()))
                            }
                        }
                    }
                }
            }
        }
    }
}
