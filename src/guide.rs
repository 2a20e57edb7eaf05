//! Guides: what happens when something fails, and the compiler's messages for mistakes.

#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}
