//! A builder's state built by hand
//!
//! The types that the compiler keeps its account with are made by the builders' methods alone. They have no
//! public name, so nobody can build one, and nothing but a message counts as a message.
//!
//! Fails with: E0603
//! rustc's own words: what is private is for the compiler to say.

// Wrong:
use pgqrs::enqueue::NoMessage;
// Right:
// fn nothing() -> pgqrs::Enqueue {
//     pgqrs::enqueue()
// }

fn main() {}
