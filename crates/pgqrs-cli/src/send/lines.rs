//! Reads messages from standard input, a line each, in a thread of its own: while a batch is being stored, the next one
//! is read. At most a few batches are in memory.

use std::{
    io::{BufRead, BufReader, Read},
    thread,
};

use serde_json::value::RawValue;
use tokio::sync::mpsc;

/// As many as one statement stores.
pub(super) const BATCH_MESSAGES: usize = 1_000;
/// A batch of large messages is cut after this.
pub(super) const BATCH_BYTES: usize = 8 << 20;
/// The largest message that a store accepts.
const LINE_LIMIT: usize = 64 << 20;
/// What is read at once.
const BUFFER: usize = 256 << 10;
/// How many batches wait to be stored.
const AHEAD: usize = 2;

/// A line that isn't empty.
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    pub(super) payload: Result<Box<RawValue>, String>,
}

/// What was read: lines, and how far this has come.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// Of the lines' text.
    pub(super) bytes: usize,
    /// How many bytes of the input were read, this batch included.
    pub(super) position: u64,
}

/// Starts to read. Ends after the last line, or with the error of reading.
pub(super) fn read(
    from: impl Read + Send + 'static,
    skip: u64,
) -> mpsc::Receiver<Result<Batch, String>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    thread::spawn(move || {
        let mut lines = Lines {
            input: BufReader::with_capacity(BUFFER, from),
            number: 0,
            position: 0,
        };
        loop {
            let batch = match lines.batch(skip) {
                Ok(batch) if batch.lines.is_empty() => return,
                batch => batch,
            };
            let is_last = batch.is_err();
            // If nobody listens any more, the command has ended.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    position: u64,
}

impl<R: Read> Lines<R> {
    /// The next lines: as many as are there already, but at least one. So a message that somebody types, or that a
    /// program writes now and then, is sent at once. Empty at the end.
    fn batch(&mut self, skip: u64) -> Result<Batch, String> {
        let mut batch = Batch::default();
        let mut text = Vec::new();
        loop {
            text.clear();
            let limit = LINE_LIMIT as u64 + 2;
            let read = (&mut self.input).take(limit).read_until(b'\n', &mut text);
            let read = read.map_err(|error| format!("the input can't be read: {error}"))?;
            if read == 0 {
                break;
            }
            self.number += 1;
            self.position += read as u64;
            let is_cut = read as u64 == limit && text.last() != Some(&b'\n');
            if is_cut {
                self.skip_rest()?;
            }
            batch.position = self.position;
            if self.number > skip {
                let payload = if is_cut {
                    Some(Err("has more than 64 MiB".to_owned()))
                } else {
                    parse(&text)
                };
                if let Some(payload) = payload {
                    batch.bytes += text.len();
                    batch.lines.push(Line {
                        number: self.number,
                        payload,
                    });
                }
            }
            let is_full = batch.lines.len() >= BATCH_MESSAGES || batch.bytes >= BATCH_BYTES;
            let would_wait = !self.input.buffer().contains(&b'\n');
            if is_full || would_wait && !batch.lines.is_empty() {
                break;
            }
        }
        Ok(batch)
    }

    /// The rest of a line that is too long, which is not kept.
    fn skip_rest(&mut self) -> Result<(), String> {
        let skipped = self
            .input
            .skip_until(b'\n')
            .map_err(|error| format!("the input can't be read: {error}"))?;
        self.position += skipped as u64;
        Ok(())
    }
}

/// A line's payload, as it is written; `None` if the line is empty.
fn parse(line: &[u8]) -> Option<Result<Box<RawValue>, String>> {
    let line = match std::str::from_utf8(line) {
        Ok(line) => line.trim(),
        Err(_) => return Some(Err("is not UTF-8".to_owned())),
    };
    if line.is_empty() {
        return None;
    }
    let payload = serde_json::from_str(line);
    Some(payload.map_err(|error| format!("is not JSON: {}", problem(&error))))
}

/// What is wrong with a text of one line, and at which column.
pub(super) fn problem(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, skip: u64) -> Vec<(u64, Result<String, String>)> {
        let mut receiver = read(text.as_bytes(), skip);
        let mut found = Vec::new();
        while let Some(batch) = receiver.blocking_recv() {
            let batch = batch.expect("memory can be read");
            found.extend(batch.lines.into_iter().map(|line| {
                let payload = line.payload.map(|payload| payload.get().to_owned());
                (line.number, payload)
            }));
        }
        found
    }

    #[test]
    fn each_line_is_a_message_and_keeps_its_digits_and_its_number() {
        let found = lines("{\"a\": 1.10}\n\n  2e5\r\n\"x\"", 0);
        let expected = [(1, "{\"a\": 1.10}"), (3, "2e5"), (4, "\"x\"")];
        let expected = expected.map(|(number, text)| (number, Ok(text.to_owned())));
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_that_were_sent_before_are_skipped_without_being_read() {
        let found = lines("oops\n2\n3\n", 1);
        let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 3]);
        assert!(found.iter().all(|(_, payload)| payload.is_ok()));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_without_its_text() {
        let found = lines("secret words\n", 0);
        let error = found[0].1.clone().expect_err("it is not JSON");
        assert!(error.starts_with("is not JSON: "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    /// Hands out one line for each read, as a slow producer does.
    struct Slow(std::collections::VecDeque<&'static str>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some(line) = self.0.pop_front() else {
                return Ok(0);
            };
            buffer[..line.len()].copy_from_slice(line.as_bytes());
            Ok(line.len())
        }
    }

    #[test]
    fn what_is_there_is_sent_without_waiting_for_a_full_batch() {
        let mut receiver = read(Slow(["1\n", "2\n", "3\n4\n"].into()), 0);
        let mut sizes = Vec::new();
        while let Some(batch) = receiver.blocking_recv() {
            sizes.push(batch.expect("it can be read").lines.len());
        }
        assert_eq!(sizes, [1, 1, 2]);
    }
}
