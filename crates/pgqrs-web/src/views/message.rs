//! One message, with all that is known of it.

use maud::{Markup, html};
use pgqrs::{MessageInfo, MessagePlace, MessageState, WorkerId};

use super::{Problem, find_form, queue_head};
use crate::{
    actions::{Action, buttons},
    app::App,
    format::{self, number},
    layout::View,
    respond::Asked,
};

pub(super) async fn view(app: &App, asked: &Asked, queue: &str, id: &str) -> Result<View, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    match app.admin.message(queue.to_owned(), id).await? {
        Some(message) => framed(app, asked, queue, id.to_string().as_str(), &[message]).await,
        None => framed(app, asked, queue, id.to_string().as_str(), &[]).await,
    }
}

/// By its id, or by its key.
pub(super) async fn find(app: &App, asked: &Asked, queue: &str) -> Result<View, Problem> {
    let text = asked.value("q");
    let mut found = app.admin.messages_with_key(queue.to_owned(), text).await?;
    if let Ok(id) = text.parse() {
        found.extend(app.admin.message(queue.to_owned(), id).await?);
    }
    framed(app, asked, queue, text, &found).await
}

async fn framed(
    app: &App,
    asked: &Asked,
    queue: &str,
    text: &str,
    found: &[MessageInfo],
) -> Result<View, Problem> {
    // After the message: a queue that was made sensitive meanwhile hides it.
    let info = app.admin.queue(queue.to_owned()).await?;
    let stats = app.admin.queue_stats(queue.to_owned()).await?;
    let here = match found {
        [only] => place(only),
        _ => "",
    };
    let main = html! {
        (queue_head(asked, &info, &stats, here))
        (find_form(asked, queue, text))
        @if found.is_empty() {
            p.empty {
                "There is no message " b { (text) } " in this queue: it was acknowledged or deleted, or never was here."
            }
        }
        @for message in found { (shown(app, asked, message, app.hides(&info))) }
    };
    Ok(View {
        title: format!("{queue}: {text}"),
        place: "Queues",
        main,
    })
}

fn place(message: &MessageInfo) -> &'static str {
    match &message.place {
        MessagePlace::Queued {
            is_parked: true, ..
        } => "parked",
        MessagePlace::Queued { state, .. } => match state {
            MessageState::Delayed => "delayed",
            MessageState::Leased => "leased",
            _ => "ready",
        },
        MessagePlace::DeadLetters { .. } => "dead",
        _ => "archived",
    }
}

fn shown(app: &App, asked: &Asked, message: &MessageInfo, is_hidden: bool) -> Markup {
    html! {
        article {
            div.head { h2 { "Message " (message.id) } span.badge.(place(message)) { (place(message)) } }
            (buttons(asked, possible(message), &[("queue", message.queue.as_str()), ("message", &message.id.to_string())]))
            @if let MessagePlace::DeadLetters { reason, .. } = &message.place {
                p.note.critical { b { "Dead: " } (reason) }
            }
            dl.facts {
                @match &message.place {
                    MessagePlace::Queued { visible_at, lease_expires_at, .. } => {
                        (fact("Due", format::moment(*visible_at)))
                        @if let Some(lease) = lease_expires_at { (fact("Lease ends", format::moment(*lease))) }
                    }
                    MessagePlace::DeadLetters { died_at, .. } => (fact("Died", format::moment(*died_at))),
                    MessagePlace::Archive { archived_at, .. } => (fact("Archived", format::moment(*archived_at))),
                    _ => {}
                }
                (fact("Enqueued", format::moment(message.enqueued_at)))
                (fact("Attempts", html! { (message.attempt) " of " (message.max_attempts) }))
                (fact("Priority", html! { (format!("{:?}", message.priority).to_lowercase()) }))
                @if let Some(consumer) = message.consumer { (fact("Last consumer", worker(asked, consumer))) }
                @if let Some(producer) = message.producer { (fact("Producer", worker(asked, producer))) }
                @if let Some(expires) = message.expires_at { (fact("Expires", format::moment(expires))) }
                @if let Some(group) = &message.group { (fact("Group", html! { (group) })) }
                @if let Some(key) = &message.unique_key { (fact("Unique key", html! { (key) })) }
                @if let Some(key) = &message.waiting_key { (fact("Key until claimed", html! { (key) })) }
                @if message.snoozes > 0 { (fact("Put off", html! { (number(message.snoozes.into())) " times" })) }
                @if let Some(since) = message.undecodable_since { (fact("Doesn't decode since", format::moment(since))) }
                @if let Some(schedule) = message.headers.get("pgqrs-schedule") {
                    (fact("Schedule", html! { a href=(asked.link(&["schedules", schedule])) { (schedule) } }))
                }
                (trace(app, message))
            }
            @if let Some(error) = &message.last_error {
                h3 { "Last error" }
                pre.error tabindex="0" { (format::beginning(error).0) }
            }
            h3 { "Headers" }
            @if message.headers.is_empty() { p.empty { "None." } } @else {
                dl.facts.headers { @for (name, value) in message.headers.iter() { (fact(name, html! { (value) })) } }
            }
            h3 { "Payload " span.faint { (number(message.payload.len() as u64)) " bytes" } }
            (payload(message, is_hidden))
        }
    }
}

fn possible(message: &MessageInfo) -> &'static [Action] {
    match place(message) {
        "delayed" => &[
            Action::RunNow,
            Action::Reschedule,
            Action::Edit,
            Action::Cancel,
        ],
        "ready" | "parked" => &[Action::Reschedule, Action::Edit, Action::Cancel],
        "leased" => &[Action::Cancel],
        "dead" => &[Action::Requeue, Action::DeleteDeadLetter],
        _ => &[],
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn worker(asked: &Asked, worker: WorkerId) -> Markup {
    let id = worker.to_string();
    html! { a href=(asked.link(&["workers", &id])) { "worker " (id) } }
}

/// The trace that the message belongs to, from the header `traceparent`.
fn trace(app: &App, message: &MessageInfo) -> Markup {
    let parent = message.headers.get("traceparent").unwrap_or_default();
    let trace = parent.split('-').nth(1).unwrap_or_default();
    if trace.is_empty() || !trace.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return html! {};
    }
    let link = app.settings.trace_link.as_ref();
    let link = link.map(|link| link.replace("{trace_id}", trace));
    fact(
        "Trace",
        html! {
            @match link {
                Some(link) => a href=(link) rel="noreferrer" { (trace) },
                None => (trace),
            }
        },
    )
}

fn payload(message: &MessageInfo, is_hidden: bool) -> Markup {
    let (text, is_cut) = format::beginning(&message.payload);
    html! {
        @if is_hidden {
            p.note { "Payloads of this queue are hidden." }
        } @else if is_cut {
            p.note { "The first " (number(text.len() as u64)) " bytes, as they were sent." }
            pre tabindex="0" { (text) }
        } @else {
            pre tabindex="0" { (format::pretty(text)) }
        }
    }
}
