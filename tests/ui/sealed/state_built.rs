//! A builder's state built by hand
//!
//! The types in `pgqrs::state` are what the compiler keeps its account with. They are named in the
//! documentation, and made by the builders' methods alone.
//!
//! Fails with: E0423
//! rustc's own words: what is private is for the compiler to say.

use pgqrs::state::NoMessage;

fn nothing() {
    // Wrong:
    let _ = NoMessage(());
    // Right:
    // let _ = pgqrs::enqueue();
}

fn main() {}
