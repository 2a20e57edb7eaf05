//! The messages that a client sends. See "Message Formats" in PostgreSQL's manual.

/// A message of the frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Authentication, or the end of a session.
    Session,
    Parse,
    Describe,
    Bind,
    Execute,
    Close,
    Sync,
    Flush,
    /// The simple protocol: statements as one text.
    Query,
}

impl Sent {
    fn of_kind(kind: u8) -> Self {
        match kind {
            b'P' => Self::Parse,
            b'D' => Self::Describe,
            b'B' => Self::Bind,
            b'E' => Self::Execute,
            b'C' => Self::Close,
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            b'Q' => Self::Query,
            _ => Self::Session,
        }
    }
}

/// Finds the messages in the bytes of one connection.
#[derive(Default)]
pub(super) struct Frames {
    header: Vec<u8>,
    /// Bytes of the current message that are still to come.
    body: usize,
    is_started: bool,
}

impl Frames {
    /// Calls `found` for each message that begins in these bytes, with its length. A start-up message has no type.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Option<Sent>, usize)) {
        const TLS_REQUEST: usize = 8;
        while let Some((first, rest)) = bytes.split_first() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len());
                self.body -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            // The first message has no type; and a request for TLS goes ahead of it.
            let kind = usize::from(self.is_started);
            if let [a, b, c, d] = self.header[kind.min(self.header.len())..] {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                self.body = length.saturating_sub(4);
                found(
                    self.is_started.then(|| Sent::of_kind(self.header[0])),
                    length,
                );
                self.is_started |= length != TLS_REQUEST;
                self.header.clear();
            }
        }
    }
}
