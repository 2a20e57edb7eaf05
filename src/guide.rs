//! Guides: what is guaranteed and what happens when something fails, what an operator should know, how payloads change, and
//! the compiler's messages for mistakes.

#[expect(
    rustdoc::invalid_rust_codeblocks,
    reason = "some are the one line to write instead"
)]
#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

/// [access]: crate::Access
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/health.rs
/// [finding_kind]: crate::FindingKind
/// [performance]: https://docs.rs/crate/pgqrs/latest/source/docs/performance.md
// The first definition of a link counts.
#[doc = include_str!("../docs/health.md")]
pub mod health {}

#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}

#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

/// [rolling_deploy]: https://docs.rs/crate/pgqrs/latest/source/examples/rolling_deploy.rs
// The first definition of a link counts.
#[doc = include_str!("../docs/rolling-deploys.md")]
pub mod rolling_deploys {}

#[doc = include_str!("../docs/telemetry.md")]
pub mod telemetry {}
