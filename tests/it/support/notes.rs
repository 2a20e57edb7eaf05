//! The spans and events that a test causes. A subscriber notes those of its thread, which is the only one of a test's
//! runtime.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard},
};

use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};

use super::until;

/// Notes all spans and events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    spans: Vec<Span>,
    entered: Vec<usize>,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
struct Span {
    name: &'static str,
    is_ours: bool,
    level: Level,
    fields: Fields,
}

/// An event of the crate, or of a test.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// The name of the span that it happened in.
    pub(crate) within: Option<&'static str>,
    pub(crate) fields: Fields,
}

impl Event {
    /// Its text, without its fields.
    pub(crate) fn message(&self) -> &str {
        self.fields.get("message").unwrap_or_default()
    }

    /// As a log shows it.
    pub(crate) fn line(&self) -> String {
        let mut line = format!("{:<5} {}", self.level, self.message());
        for (name, value, is_text) in &self.fields.0 {
            match (*name, is_text) {
                ("message", _) => {}
                (name, true) => line += &format!(" {name}={value:?}"),
                (name, false) => line += &format!(" {name}={value}"),
            }
        }
        line
    }
}

/// Names and values in the order in which they were recorded, and whether each is a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(Vec<(&'static str, String, bool)>);

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, ..)| *found == name);
        found.map(|(_, value, _)| value.as_str())
    }

    fn set(&mut self, name: &'static str, value: String, is_text: bool) {
        self.0.retain(|(found, ..)| *found != name);
        self.0.push((name, value, is_text));
    }

    /// The fields by name, as `name=value`.
    pub(crate) fn sorted(&self) -> Vec<String> {
        let fields = self.0.iter();
        let mut fields: Vec<_> = fields
            .map(|(name, value, _)| format!("{name}={value}"))
            .collect();
        fields.sort();
        fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field.name(), format!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.to_owned(), true);
    }
}

impl Subscriber for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut noted = self.lock();
        noted.spans.push(Span {
            name: metadata.name(),
            is_ours: metadata.target() == "pgqrs",
            level: *metadata.level(),
            fields,
        });
        Id::from_u64(noted.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut noted = self.lock();
        values.record(&mut noted.spans[span.into_u64() as usize - 1].fields);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut noted = self.lock();
        let within = noted.entered.last().map(|span| noted.spans[*span].name);
        noted.events.push(Event {
            level: *metadata.level(),
            target: metadata.target(),
            within,
            fields,
        });
    }

    fn enter(&self, span: &Id) {
        self.lock().entered.push(span.into_u64() as usize - 1);
    }

    fn exit(&self, _: &Id) {
        self.lock().entered.pop();
    }
}

impl Notes {
    pub(crate) fn start() -> (Self, DefaultGuard) {
        let notes = Self::default();
        let guard = tracing::subscriber::set_default(notes.clone());
        (notes, guard)
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("not poisoned")
    }

    /// The spans of the crate since the last call, with this name.
    pub(crate) fn take(&self, name: &str) -> Vec<Fields> {
        let mut noted = self.lock();
        // Not taken out: spans are known by their place.
        let spans = noted
            .spans
            .iter_mut()
            .filter(|span| span.is_ours && span.name == name);
        spans
            .map(|span| {
                span.is_ours = false;
                span.fields.clone()
            })
            .collect()
    }

    /// Whether the crate has begun a span of this name that is exported at `info`.
    pub(crate) fn has_span(&self, name: &str) -> bool {
        let noted = self.lock();
        let mut ours = noted.spans.iter().filter(|span| span.is_ours);
        ours.any(|span| span.name == name && span.level <= Level::INFO)
    }

    /// All events.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// The crate's events that an operator sees: those at `info` and above.
    pub(crate) fn log(&self) -> Vec<Event> {
        let events = self.events().into_iter();
        events
            .filter(|event| event.target.starts_with("pgqrs") && event.level <= Level::INFO)
            .collect()
    }

    /// The lines of the log that contain a text.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let lines = self.log().into_iter().map(|event| event.line());
        lines.filter(|line| line.contains(text)).collect()
    }

    /// Waits until as many lines of the log contain a text.
    pub(crate) async fn until(&self, text: &str, many: usize) {
        until(text, async || self.lines(text).len() >= many).await;
    }

    /// All that was noted, as text.
    pub(crate) fn all(&self) -> String {
        format!("{:?}", self.lock())
    }
}
