//! A builder's state made by hand
//!
//! Only a builder's methods make the types that track what is
//! set: nothing but a message can take the place of a message.
//!
//! Fails with: E0603
//! rustc's own words: the message says what is private.

// Wrong:
use pgqrs::enqueue::NoMessage;
// Right:
// fn nothing() -> pgqrs::Enqueue {
//     pgqrs::enqueue()
// }

fn main() {}
