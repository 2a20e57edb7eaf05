//! A mistake in words, also for the compiler: a `const fn` can't format.

use super::check::Mistake;

/// Maximum length of a sentence, in bytes.
const LONGEST: usize = 256;
/// How much of the text a sentence shows, in bytes.
const SHOWN: usize = 60;

/// A mistake in words. Of a fixed size, since the compiler evaluates it.
pub(super) struct Sentence {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Sentence {
    pub(super) const fn of(text: &str, mistake: Mistake) -> Self {
        let mut sentence = Self {
            bytes: [0; LONGEST],
            length: 0,
        };
        let pattern = mistake.kind.sentence().as_bytes();
        let mut at = 0;
        while at < pattern.len() {
            if pattern[at] != b'{' {
                sentence.push(pattern, at, at + 1);
                at += 1;
                continue;
            }
            match pattern[at + 1] {
                b'f' => sentence.push_all(mistake.field.name()),
                b'r' => sentence.push_all(mistake.field.range()),
                _ => sentence.push_shown(text.as_bytes(), mistake.start, mistake.end),
            }
            while pattern[at] != b'}' {
                at += 1;
            }
            at += 1;
        }
        sentence
    }

    pub(super) const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            // What is shown of the text ends at a character's boundary.
            Err(_) => "invalid",
        }
    }

    const fn push(&mut self, from: &[u8], start: usize, end: usize) {
        let mut at = start;
        while at < end && self.length < LONGEST {
            self.bytes[self.length] = from[at];
            self.length += 1;
            at += 1;
        }
    }

    const fn push_all(&mut self, text: &str) {
        self.push(text.as_bytes(), 0, text.len());
    }

    /// The beginning of what is very long. A part of the text begins and ends beside ASCII, and so at a boundary.
    const fn push_shown(&mut self, text: &[u8], start: usize, end: usize) {
        if end - start <= SHOWN {
            return self.push(text, start, end);
        }
        let mut shown = start + SHOWN;
        while text[shown] & 0b1100_0000 == 0b1000_0000 {
            shown -= 1;
        }
        self.push(text, start, shown);
        self.push_all("…");
    }
}
