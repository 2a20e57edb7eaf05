//! Random tokens of writers and leases, from the operating system: a generator of this process would return the same
//! numbers in each of its forks.

use rand::{TryRng, rngs::SysRng};

pub(crate) fn random_token() -> i64 {
    SysRng
        .try_next_u64()
        // A system without randomness doesn't boot; and a token that repeats is refused.
        .map_or_else(|_| rand::random(), u64::cast_signed)
}
