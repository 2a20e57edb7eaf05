//! Buttons, the question before an action, and its answer.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Form,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use maud::{Markup, html};
use pgqrs::{MessageInfo, MessagePlace};

use super::{Action, Allowed, Target, bulk, perform};
use crate::{
    app::App,
    format::pretty,
    layout::{self, View},
    path,
    respond::{Asked, Rendered, framed},
};

const COOKIE: &str = "pgqrs_page";

/// The actions that this request may do with something.
pub(crate) fn buttons(asked: &Asked, actions: &[Action], on: &[(&str, &str)]) -> Markup {
    let allowed: Vec<_> = actions
        .iter()
        .filter(|action| asked.allowed.has(**action))
        .collect();
    html! {
        @if !allowed.is_empty() {
            div.buttons {
                @for action in allowed {
                    @let link = format!("{}{}", asked.link(&["act", action.as_str()]), path::query(on));
                    a.button.danger[action.destroys()] href=(link) { (action.verb()) }
                }
            }
        }
    }
}

/// The same, with all that a search finds.
pub(crate) fn for_all(asked: &Asked, actions: &[Action], on: &[(&str, &str)]) -> Markup {
    let allowed: Vec<_> = actions
        .iter()
        .filter(|action| asked.allowed.has(**action))
        .collect();
    let mut on = on.to_vec();
    on.push(("all", "1"));
    html! {
        @if !allowed.is_empty() {
            div.buttons {
                @for action in allowed {
                    @let link = format!("{}{}", asked.link(&["act", action.as_str()]), path::query(&on));
                    a.button.danger[action.destroys()] href=(link) { (action.verb_of_all()) " all that match…" }
                }
            }
        }
    }
}

/// Answers a request below `act`.
pub(crate) async fn respond(app: &Arc<App>, asked: &Asked, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let session = session(&parts.headers);
    let token = app.token(session.as_deref().unwrap_or_default());
    let is_post = parts.method == Method::POST;
    if !is_post && parts.method != Method::GET {
        return problem(
            asked,
            StatusCode::METHOD_NOT_ALLOWED,
            "This is not possible.",
        );
    }
    let values = if is_post {
        let form = Request::from_parts(parts.clone(), body);
        match Form::<HashMap<String, String>>::from_request(form, &()).await {
            Ok(form) => form.0,
            Err(_) => return problem(asked, StatusCode::BAD_REQUEST, "The form can't be read."),
        }
    } else {
        asked.values().clone()
    };
    if is_post && !is_ours(&parts.headers, session.as_deref(), &token, &values) {
        let why = "The form is too old, or was sent from another page. Go back, and try again.";
        return problem(asked, StatusCode::FORBIDDEN, why);
    }
    let name = asked.parts.get(1).map_or("", String::as_str);
    if name == "stop" {
        return stop(app, asked, is_post, session, &values);
    }
    let Some(action) = Action::named(name) else {
        return problem(asked, StatusCode::NOT_FOUND, "There is no such action.");
    };
    if !asked.allowed.has(action) {
        return problem(asked, StatusCode::FORBIDDEN, "You may not do that.");
    }
    let target = Target { action, values };
    if is_post && action == Action::Reschedule && perform::time(&target).is_none() {
        let why = "That is no time. Write it as 2026-01-31T09:30:00, in UTC.";
        return problem(asked, StatusCode::BAD_REQUEST, why);
    }
    if is_post {
        begin(app, asked, &parts, target).await
    } else {
        question(app, asked, session, &target).await
    }
}

/// Whether the form is one that this page has sent to the same browser.
fn is_ours(
    headers: &HeaderMap,
    session: Option<&str>,
    token: &str,
    values: &HashMap<String, String>,
) -> bool {
    let site = headers.get("sec-fetch-site");
    let is_same = site.is_none_or(|site| site == "same-origin");
    let sent = values.get("token").map(String::as_str);
    is_same && session.is_some() && sent == Some(token)
}

/// The session of the browser, from its cookie.
fn session(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
    let mut cookies = cookies.flat_map(|cookies| cookies.split(';'));
    let ours = cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    (ours.len() == 32).then(|| ours.to_owned())
}

async fn begin(app: &Arc<App>, asked: &Asked, parts: &Parts, target: Target) -> Response {
    let who = app
        .settings
        .rules
        .as_ref()
        .map(|rules| (rules.operator)(parts));
    let why = target.value("why").to_owned();
    let entry = app.log.begin(&target, who.unwrap_or_default(), &why);
    if target.is_all() {
        tokio::spawn(bulk::run(Arc::clone(app), target, entry));
    } else {
        entry.end(perform::perform(app, &target).await);
    }
    // What others see is to be new as well.
    app.forget();
    see_actions(asked)
}

fn stop(
    app: &App,
    asked: &Asked,
    is_post: bool,
    session: Option<String>,
    values: &HashMap<String, String>,
) -> Response {
    let entry = values.get("entry").map_or("", String::as_str);
    let Some(found) = app.log.find(entry).filter(|_| asked.allowed.any()) else {
        return problem(asked, StatusCode::NOT_FOUND, "There is no such action.");
    };
    if is_post {
        found.is_stopped.store(true, Ordering::Relaxed);
        app.forget();
        return see_actions(asked);
    }
    let fields = html! { input type="hidden" name="entry" value=(entry); };
    let what = html! { p { "What is done stays done. The rest is left as it is." } };
    ask(
        app,
        asked,
        session,
        "Stop this action?",
        &what,
        &fields,
        "Stop",
        true,
    )
}

fn see_actions(asked: &Asked) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(there) = HeaderValue::from_str(&asked.link(&["actions"])) {
        response.headers_mut().insert(header::LOCATION, there);
    }
    response
}

async fn question(app: &App, asked: &Asked, session: Option<String>, target: &Target) -> Response {
    let what = if target.is_all() {
        match bulk::preview(app, target).await {
            Ok(preview) => preview_of(asked, target, &preview),
            Err(error) => {
                return problem(asked, StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
            }
        }
    } else {
        html! { p { "On " b { (target.what()) } "." } }
    };
    let shown = stored(app, target).await;
    let fields = html! {
        @for (name, value) in &target.values {
            @if !["why", "payload", "time"].contains(&name.as_str()) { input type="hidden" name=(name) value=(value); }
        }
        @if target.action == Action::Edit {
            div { label for="payload" { "Payload, as JSON" }
                textarea #payload name="payload" rows="16" cols="80" spellcheck="false" { (shown) } }
        }
        @if target.action == Action::Reschedule {
            div { label for="time" { "Due, in UTC" }
                input #time name="time" type="datetime-local" step="1" required value=(shown); }
        }
        div { label for="why" { "Why (for the log)" } input #why name="why" size="50" maxlength="500"; }
    };
    let verb = target.action.verb();
    let title = if target.is_all() {
        format!("{} all that match?", target.action.verb_of_all())
    } else {
        format!("{verb}?")
    };
    ask(
        app,
        asked,
        session,
        &title,
        &what,
        &fields,
        verb,
        target.action.destroys(),
    )
}

/// What a form begins with: the payload or the time that a message has.
async fn stored(app: &App, target: &Target) -> String {
    let queue = target.value("queue");
    if !matches!(target.action, Action::Edit | Action::Reschedule) {
        return String::new();
    }
    let Ok(id) = target.value("message").parse() else {
        return String::new();
    };
    let found = app.admin.message(queue.to_owned(), id).await;
    if target.action == Action::Reschedule {
        return found
            .ok()
            .flatten()
            .map_or_else(String::new, |found| time_of(&found));
    }
    // Asked for after the payload was read: a queue that was made sensitive meanwhile hides it.
    let is_hidden = app.hides_in(queue).await.unwrap_or(true);
    let shown = found.ok().flatten().filter(|_| !is_hidden);
    shown.map_or_else(String::new, |found| pretty(&found.payload))
}

/// As browsers want it for a field.
fn time_of(message: &MessageInfo) -> String {
    match &message.place {
        MessagePlace::Queued { visible_at, .. } => {
            visible_at.format("%Y-%m-%dT%H:%M:%S").to_string()
        }
        _ => String::new(),
    }
}

/// What a message has to meet.
fn conditions(target: &Target) -> impl Iterator<Item = (&'static str, &str)> {
    const NAMES: [(&str, &str); 8] = [
        ("state", "state"),
        ("reason", "reason"),
        ("key", "key"),
        ("group", "group"),
        ("header", "header"),
        ("path", "path"),
        ("value", "value"),
        ("error", "error contains"),
    ];
    let given = NAMES
        .iter()
        .map(|(name, shown)| (*shown, target.value(name)));
    given.filter(|(_, value)| !value.is_empty())
}

fn preview_of(asked: &Asked, target: &Target, preview: &bulk::Preview) -> Markup {
    let queue = target.value("queue");
    html! {
        p { "In queue " b { (queue) } ": " b #count { (preview.count) } " match now." }
        // What is left out here matches, too.
        p #conditions { "Conditions: "
            @for (n, (name, value)) in conditions(target).enumerate() {
                @if n > 0 { ", " }
                (name) " " b { (value) }
            }
            @if conditions(target).next().is_none() { "none" }
            "."
        }
        @if !preview.sample.is_empty() {
            p { "Among them "
                @for (n, id) in preview.sample.iter().enumerate() {
                    @let id = id.to_string();
                    @if n > 0 { ", " }
                    a href=(asked.link(&["queues", queue, "messages", &id])) { (id) }
                }
                "."
            }
        }
        p.faint { "It is done in the background, a thousand at a time, and can be stopped." }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one form")]
fn ask(
    app: &App,
    asked: &Asked,
    session: Option<String>,
    title: &str,
    what: &Markup,
    fields: &Markup,
    verb: &str,
    destroys: bool,
) -> Response {
    let is_new = session.is_none();
    let session = session.unwrap_or_else(|| app.new_session());
    let path: Vec<_> = asked.parts.iter().map(String::as_str).collect();
    let main = html! {
        h1 { (title) }
        (what)
        form method="post" action=(asked.link(&path)) {
            input type="hidden" name="token" value=(app.token(&session));
            (fields)
            button.danger[destroys] { (verb) }
            a.button href=(asked.link(&[])) { "Don't" }
        }
    };
    let view = View {
        title: title.to_owned(),
        place: "",
        main,
    };
    let rendered = Rendered::html(StatusCode::OK, layout::page(asked, &view));
    let mut response = framed(&rendered);
    if is_new {
        let path = if asked.base.is_empty() {
            "/"
        } else {
            &asked.base
        };
        let cookie = format!("{COOKIE}={session}; Path={path}; HttpOnly; SameSite=Strict");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
    }
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

fn problem(asked: &Asked, status: StatusCode, text: &str) -> Response {
    let view = View {
        title: "That failed".to_owned(),
        place: "",
        main: html! {
            h1 { "Not done" }
            div.note.critical #problem { p { (text) } }
            p { a href=(asked.link(&[])) { "All queues" } }
        },
    };
    framed(&Rendered::html(status, layout::page(asked, &view)))
}

impl Asked {
    fn values(&self) -> &HashMap<String, String> {
        &self.query
    }
}

/// Which actions a request may do.
pub(crate) fn allowed(app: &App, parts: &Parts) -> Allowed {
    Allowed::of(app.settings.rules.as_ref(), parts)
}
