//! Helpers for the tests of those who use this crate, on a transaction of the test's own: what was sent can be asserted,
//! handlers run on it, and all of it is rolled back at the end. Enabled by the feature `testing`, as a
//! dev-dependency:
//!
//! ```toml
//! [dev-dependencies]
//! pgqrs = { version = "0.1", features = ["testing"] }
//! ```
//!
//! | to | use |
//! |---|---|
//! | see what a queue has | [`enqueued`], [`assert_enqueued!`], [`refute_enqueued!`] |
//! | see what a block of code has sent | [`capture`] |
//! | run a handler on what is ready | [`drain`], [`drain_in_transaction`] |
//! | call a handler without a database | [`Delivery::for_test`](crate::Delivery::for_test) |
//! | have time pass | [`advance`] |
//! | have a PostgreSQL without starting one | [`postgres`] |
//! | wait until a consumer has handled all | [`wait_until_empty`] |
//!
//! Tests that roll back can run at the same time on one database: none sees what another one has sent. What is
//! *committed*, all of them see; so a test that commits should have a database of its own, as `#[sqlx::test]` makes it.
//!
//! The helpers change rows of all tables of pgqrs, so they need the privileges of its owner.
//!
//! # Example
//! ```no_run
//! use pgqrs::{Delivery, Queue, testing};
//!
//! const EMAILS: Queue<String> = Queue::new("emails");
//!
//! async fn register(name: &str, tx: &mut pgqrs::Transaction) -> pgqrs::Result<()> {
//!     pgqrs::enqueue().message(&name.to_owned()).to(EMAILS).execute(tx).await?;
//!     Ok(())
//! }
//!
//! async fn send(delivery: Delivery<String>) -> Result<(), String> {
//!     println!("to {}", delivery.payload());
//!     Ok(())
//! }
//!
//! # async fn example(store: pgqrs::Store) -> Result<(), Box<dyn std::error::Error>> {
//! let mut tx = store.begin().await?;
//! register("ada", &mut tx).await?;
//! testing::assert_enqueued!(tx, EMAILS, |name| name == "ada");
//! let drained = testing::drain(&mut tx, EMAILS, send).await?;
//! assert_eq!(drained.done.len(), 1);
//! testing::refute_enqueued!(tx, EMAILS);
//! # Ok(())
//! # }
//! ```

mod assertions;
mod captured;
mod drain;
mod empty;
mod enqueued;
mod for_test;
#[cfg(unix)]
mod server;
mod time;

#[doc(hidden)]
pub use self::assertions::{any, none};
#[cfg(unix)]
pub use self::server::{PostgresError, TestDatabase, postgres};
pub use self::{
    assertions::{assert_enqueued, refute_enqueued},
    captured::{Captured, capture},
    drain::{
        Drain, drain,
        in_transaction::drain_in_transaction,
        outcome::{DrainError, Drained, FailedDelivery},
    },
    empty::{LeftInQueue, NotEmpty, wait_until_empty},
    enqueued::{EnqueuedMessage, enqueued},
    for_test::TestDelivery,
    time::advance,
};
