//! What is searched: each with few messages and a short time, so that there aren't too many states.

use super::Protocol;

pub(super) const ONE: Protocol = Protocol {
    without: None,
    at_once: 1,
    is_raised: false,
    end: 6,
    attempts: 5,
    pauses: 0,
};
pub(super) const TWO: Protocol = Protocol {
    at_once: 2,
    end: 3,
    attempts: 6,
    ..ONE
};
/// Few attempts show all that there is.
pub(super) const RAISED: Protocol = Protocol {
    is_raised: true,
    end: 3,
    attempts: 2,
    ..TWO
};
pub(super) const SLOWED: Protocol = Protocol {
    end: 1,
    attempts: 2,
    pauses: 2,
    ..TWO
};
