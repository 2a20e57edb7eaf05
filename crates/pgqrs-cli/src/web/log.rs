//! Prints what the page's users do, as the page logs it.

use std::fmt;

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::output::{Output, printable};

/// Prints each action to standard error, for the rest of the process.
pub(super) fn print_actions(output: Output) {
    // Nothing else in this process has set one.
    let _ = tracing::subscriber::set_global_default(Printer(output));
}

/// Events of the page's actions, a line each.
struct Printer(Output);

impl Subscriber for Printer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "pgqrs_web"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut action = Action::default();
        event.record(&mut action);
        self.0.note(&printable(&action.to_string()));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What an event says.
#[derive(Default)]
struct Action {
    action: String,
    on: String,
    by: String,
    reason: String,
    /// What became of it; `None` if it begins.
    ended: Option<String>,
}

impl Visit for Action {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.to_owned();
        match field.name() {
            "action" => self.action = value,
            "on" => self.on = value,
            "by" => self.by = value,
            "reason" => self.reason = value,
            "outcome" => self.ended = Some(value),
            "error" => self.ended = Some(format!("failed: {value}")),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ");
        let (by, action, on) = (&self.by, &self.action, &self.on);
        let ended = self.ended.as_deref().unwrap_or("begins");
        write!(f, "{now}  {by}: {action}, {on}: {ended}")?;
        if !self.reason.is_empty() {
            write!(f, " (why: {})", self.reason)?;
        }
        Ok(())
    }
}
