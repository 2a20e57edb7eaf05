//! What was done on the page, by whom and why: in the log of the process, and the last ones on a view.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use maud::{Markup, html};
use pgqrs::chrono::{DateTime, Utc};

use super::{Action, Target};
use crate::{
    app::App,
    format::{self, number},
    layout::View,
    respond::Asked,
};

/// How many actions are on the view.
const SHOWN: usize = 200;

/// The last actions, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Mutex<VecDeque<Arc<Entry>>>,
    last: AtomicU64,
}

/// An action that was begun.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    at: DateTime<Utc>,
    who: String,
    why: String,
    action: Action,
    what: String,
    path: Vec<String>,
    /// How many messages it is done with.
    pub(crate) done: AtomicU64,
    pub(crate) is_stopped: AtomicBool,
    /// What became of it; `None` while it runs.
    outcome: Mutex<Option<Result<String, String>>>,
}

impl Log {
    /// Writes down that an action begins.
    pub(super) fn begin(&self, target: &Target, who: String, why: &str) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            id: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            at: Utc::now(),
            who,
            why: why.to_owned(),
            action: target.action,
            what: target.what(),
            path: target.path(),
            done: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
            outcome: Mutex::new(None),
        });
        tracing::info!(
            target: "pgqrs_web",
            action = entry.action.as_str(),
            on = entry.what,
            by = entry.who,
            reason = entry.why,
            "an operator begins an action"
        );
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_front(Arc::clone(&entry));
        entries.truncate(SHOWN);
        entry
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Entry>> {
        let id: u64 = id.parse().ok()?;
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|entry| entry.id == id).cloned()
    }
}

impl Entry {
    pub(super) fn end(&self, outcome: Result<String, String>) {
        match &outcome {
            Ok(outcome) => tracing::info!(
                target: "pgqrs_web",
                action = self.action.as_str(),
                on = self.what,
                by = self.who,
                reason = self.why,
                outcome,
                "an operator's action has ended"
            ),
            Err(error) => tracing::warn!(
                target: "pgqrs_web",
                action = self.action.as_str(),
                on = self.what,
                by = self.who,
                reason = self.why,
                error,
                "an operator's action has failed"
            ),
        }
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    fn row(&self, asked: &Asked) -> Markup {
        let outcome = self
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let done = self.done.load(Ordering::Relaxed);
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        let stop = format!("{}?entry={}", asked.link(&["act", "stop"]), self.id);
        html! {
            tr {
                th scope="row" { (format::time(self.at)) }
                td data-label="by" { (self.who) }
                td data-label="action" { (self.action.verb()) }
                td.text data-label="on" { a href=(asked.link(&path)) { (self.what) } }
                td.text data-label="why" { (self.why) }
                td.text data-label="outcome" {
                    @match outcome {
                        Some(Ok(outcome)) => (outcome),
                        Some(Err(error)) => span.bad { (error) },
                        None => {
                            "Running: " (number(done)) " so far. "
                            a.button href=(stop) { "Stop" }
                        }
                    }
                }
            }
        }
    }
}

/// The last actions.
pub(crate) fn view(app: &App, asked: &Asked) -> View {
    let entries = app
        .log
        .entries
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let main = html! {
        h1 { "Actions" }
        p.facts { "The last ones of this process; all of them are in its log." }
        @if entries.is_empty() { p.empty { "None yet." } } @else {
            div.wide tabindex="0" role="region" aria-label="Actions" {
                table {
                    thead { tr {
                        th scope="col" { "When" }
                        th scope="col" { "By" }
                        th scope="col" { "Action" }
                        th scope="col" { "On" }
                        th scope="col" { "Why" }
                        th scope="col" { "Outcome" }
                    } }
                    tbody { @for entry in &entries { (entry.row(asked)) } }
                }
            }
        }
    };
    View {
        title: "Actions".to_owned(),
        place: "Actions",
        main,
    }
}
