//! New messages as the columns of an insert statement, and the limits of one statement.

use crate::{message::NewMessage, postgres::json::Json};

/// Maximum number of messages, and approximate maximum bytes of payload, of one statement.
pub(crate) const CHUNK_MESSAGES: usize = 1_000;
pub(crate) const CHUNK_BYTES: usize = 64 << 20;

/// What each message has of its own: an array for each column, all in the order of the messages.
pub(crate) struct Columns<'a> {
    pub(super) payloads: Vec<Json<'a>>,
    /// Empty if no message has headers, as most have none: then they are stored by statements without this column.
    pub(super) headers: Vec<Option<Json<'a>>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn with_capacity(messages: usize) -> Self {
        Self {
            payloads: Vec::with_capacity(messages),
            headers: Vec::new(),
        }
    }

    pub(crate) fn of(messages: &'a [NewMessage]) -> Self {
        let mut columns = Self::with_capacity(messages.len());
        columns.extend(messages);
        columns
    }

    /// Whether any message has headers.
    pub(crate) fn has_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    pub(crate) fn extend(&mut self, messages: &'a [NewMessage]) {
        let has_headers = |message: &NewMessage| message.headers().is_some();
        if self.has_headers() || messages.iter().any(has_headers) {
            self.headers.resize_with(self.payloads.len(), || None);
            let headers = messages.iter().map(|message| message.headers().map(Json));
            self.headers.extend(headers);
        }
        let payloads = messages.iter().map(|message| Json(message.payload()));
        self.payloads.extend(payloads);
    }
}

/// Splits off what fits into one statement. Takes at least one message, if there is one.
pub(crate) fn next_chunk(messages: &[NewMessage]) -> (&[NewMessage], &[NewMessage]) {
    let mut bytes = 0;
    let fitting = messages.iter().take(CHUNK_MESSAGES).take_while(|message| {
        bytes += message.bytes();
        bytes <= CHUNK_BYTES
    });
    messages.split_at(fitting.count().max(1).min(messages.len()))
}
