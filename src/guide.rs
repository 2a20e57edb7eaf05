//! Pages beside the reference: what happens when something breaks, and what the compiler says to mistakes.

#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}
