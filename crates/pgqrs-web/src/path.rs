//! Paths and queries of requests, and of links.

use std::fmt::Write;

/// The parts of a path between its slashes, decoded.
pub(crate) fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(decoded).collect()
}

fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text as a part of a path, or as a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            // A string takes any text.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// A query of these names and values, without those that are empty.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        for text in ["tasks", "a/b c", "é<script>&'\"%", "%41", "..", "+"] {
            let encoded = encoded(text);
            assert!(!encoded.contains(['/', '<', '"', '&', ' ']), "{encoded}");
            assert_eq!(parts(&format!("/x/{encoded}/")), ["x", text]);
        }
        assert_eq!(parts("/%4/%zz/%"), ["%4", "%zz", "%"]);
    }

    #[test]
    fn a_query_leaves_out_what_is_empty() {
        assert_eq!(
            query(&[("a", ""), ("b", "1 2"), ("c", "&")]),
            "?b=1%202&c=%26"
        );
        assert_eq!(query(&[("a", "")]), "");
    }
}
