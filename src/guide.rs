//! Guides: what is guaranteed and what happens when something fails, what an operator sees, and the compiler's messages
//! for mistakes.

#[expect(
    rustdoc::invalid_rust_codeblocks,
    reason = "some are the one line to write instead"
)]
#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}

#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

#[doc = include_str!("../docs/telemetry.md")]
pub mod telemetry {}
