//! The dead letters of a queue, by their reasons.

use maud::{Markup, html};
use pgqrs::{DeadLetter, DeadLetterReason, Found, SearchDeadLetters};

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
    let reasons = app.admin.dead_letter_reasons(queue.clone()).await?;
    let found = search(app, asked, &queue).await?;
    let conditions = Conditions::of(asked);
    let (reason, key) = (asked.value("reason"), asked.value("key"));
    let link = |reason: &str, after: &str| {
        let mut pairs = vec![("reason", reason), ("key", key), ("after", after)];
        pairs.extend(conditions.pairs());
        format!(
            "{}{}",
            asked.link(&["queues", &queue, "dead"]),
            path::query(&pairs)
        )
    };
    let mut matching = vec![("queue", queue.as_str()), ("reason", reason), ("key", key)];
    matching.extend(conditions.pairs());
    let next = found.next.map(|next| link(reason, &next.to_string()));
    let main = html! {
        (queue_head(asked, &info, &stats, "dead"))
        (find_form(asked, &queue, ""))
        (groups(&reasons, reason, &link))
        details.filter #filter open[!conditions.is_empty() || !key.is_empty()] {
            summary { "Search these dead letters" }
            form action=(asked.link(&["queues", &queue, "dead"])) {
                input type="hidden" name="reason" value=(reason);
                div { label for="key" { "Unique key" } input #key name="key" value=(key) spellcheck="false"; }
                (conditions.fields(app.hides(&info), info.groups.is_some()))
            }
        }
        @if !reason.is_empty() {
            p.order { "Only those because of " b { (reason) } ". " a href=(link("", "")) { "All" } }
        }
        @if !found.items.is_empty() {
            (for_all(asked, &[Action::Requeue, Action::DeleteDeadLetter], &matching))
        }
        (table(asked, &queue, &found))
        (list_end(next, found.is_cut, found.items.len()))
    };
    Ok(View {
        title: format!("{queue}: dead letters"),
        place: "Queues",
        main,
    })
}

/// The page of dead letters that a request asks for.
pub(crate) async fn search(
    app: &App,
    asked: &Asked,
    queue: &str,
) -> Result<Found<DeadLetter>, Problem> {
    let is_hidden = app.hides_in(queue).await?;
    Ok(wanted(app, asked, queue, is_hidden).await?)
}

/// The search that a request asks for.
pub(crate) fn wanted(app: &App, asked: &Asked, queue: &str, is_hidden: bool) -> SearchDeadLetters {
    let mut search = app.admin.search_dead_letters(queue.to_owned());
    let conditions = Conditions::of(asked);
    if !asked.value("reason").is_empty() {
        search = search.reason(asked.value("reason"));
    }
    if !asked.value("key").is_empty() {
        search = search.key(asked.value("key"));
    }
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

fn groups(
    reasons: &[DeadLetterReason],
    here: &str,
    link: &impl Fn(&str, &str) -> String,
) -> Markup {
    if reasons.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Reasons" }
        div.wide tabindex="0" role="region" aria-label="Reasons" {
            table {
                thead { tr {
                    th scope="col" { "Reason" }
                    th.number scope="col" { "Dead letters" }
                    th scope="col" { "First" }
                    th scope="col" { "Last" }
                    th scope="col" { "Newest error" }
                } }
                tbody {
                    @for group in reasons {
                        @let is_here = group.reason == here;
                        tr {
                            th.text scope="row" {
                                a href=(link(&group.reason, "")) aria-current=[is_here.then_some("true")] {
                                    @if group.reason.trim().is_empty() { "(none)" } @else { (head(&group.reason)) }
                                }
                            }
                            td.number data-label="dead letters" { (group.letters) }
                            td data-label="first" { (format::time(group.first_died_at)) }
                            td data-label="last" { (format::time(group.last_died_at)) }
                            td.text data-label="newest error" {
                                (maybe(group.last_error.as_deref().map(head).as_deref()))
                            }
                        }
                    }
                }
            }
        }
        h2 { "Dead letters" }
    }
}

fn table(asked: &Asked, queue: &str, found: &Found<DeadLetter>) -> Markup {
    if found.items.is_empty() {
        return html! {};
    }
    html! {
        div.wide tabindex="0" role="region" aria-label="Dead letters" {
            table {
                thead { tr {
                    th scope="col" { "Message" }
                    th scope="col" { "Died" }
                    th.number scope="col" { "Attempts" }
                    th scope="col" { "Key" }
                    th scope="col" { "Reason" }
                    th scope="col" { "Last error" }
                } }
                tbody {
                    @for letter in &found.items {
                        @let id = letter.id.to_string();
                        @let key = letter.unique_key.as_deref().or(letter.waiting_key.as_deref());
                        tr {
                            th scope="row" { a href=(asked.link(&["queues", queue, "messages", &id])) { (id) } }
                            td data-label="died" { (format::time(letter.died_at)) }
                            td.number data-label="attempts" { (letter.attempt) }
                            td data-label="key" { (maybe(key)) }
                            td.text data-label="reason" { (head(&letter.reason)) }
                            td.text data-label="last error" {
                                (maybe(letter.last_error.as_deref().map(head).as_deref()))
                            }
                        }
                    }
                }
            }
        }
    }
}
