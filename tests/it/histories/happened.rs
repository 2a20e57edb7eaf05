//! What must have happened in histories for them to be of use.

use std::{collections::BTreeMap, env};

/// What the histories are of no use without: so frequent that chance alone doesn't leave it out.
pub(super) fn assert_happened(happened: &BTreeMap<&'static str, usize>, what: &[&str]) {
    // Fewer cases than usual may leave something out.
    if env::var_os("PROPTEST_CASES").is_none() {
        for what in what {
            let times = happened.get(what).copied().unwrap_or(0);
            assert!(times > 0, "never happened: {what}");
        }
    }
}

pub(super) const USUAL: [&str; 16] = [
    "returned",
    "refused",
    "settled",
    "put off",
    "delivered again",
    "several delivered at once",
    "handled by a loop",
    "cancelled while it waited",
    "cancelled while it ran",
    "a worker's step",
    "a new one with a key",
    "a duplicate",
    "replaced",
    "expired",
    "parked",
    "let in",
];
