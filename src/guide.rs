//! Guides: what is guaranteed and what happens when something fails, what an operator should know and can do, how payloads
//! change, how to test, and the compiler's messages for mistakes.

#[expect(
    rustdoc::invalid_rust_codeblocks,
    reason = "some are the one line to write instead"
)]
#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

/// [chunk]: crate::Chunk
/// [drivers]: https://docs.rs/crate/pgqrs/latest/source/examples/drivers/src/bin
/// [tower]: https://docs.rs/crate/pgqrs/latest/source/examples/tower.rs
// The first definition of a link counts.
#[doc = include_str!("../docs/handlers.md")]
pub mod handlers {}

/// [access]: crate::Access
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/health.rs
/// [finding_kind]: crate::FindingKind
/// [performance]: https://docs.rs/crate/pgqrs/latest/source/docs/performance.md
/// [telemetry]: crate::guide::telemetry#metrics
// The first definition of a link counts.
#[doc = include_str!("../docs/health.md")]
pub mod health {}

#[doc = include_str!("../docs/reliability.md")]
pub mod reliability {}

/// [alerts]: https://docs.rs/crate/pgqrs/latest/source/docs/alerts.yml
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/observed_worker.rs
/// [grafana]: https://docs.rs/crate/pgqrs/latest/source/docs/grafana.json
/// [health]: crate::guide::health
/// [observing]: crate::guide::health#observing
/// [telemetry]: crate::guide::telemetry
#[doc = include_str!("../docs/operating.md")]
pub mod operating {}

/// [delivery_cancelled]: crate::Delivery::cancelled
/// [delivery_is_cancelled]: crate::Delivery::is_cancelled
/// [error_leaselost]: crate::Error::LeaseLost
/// [error_queueclosed]: crate::Error::QueueClosed
/// [retrypolicy]: crate::RetryPolicy
/// [run_cancel_grace]: crate::Run::cancel_grace
/// [run_concurrency]: crate::Run::concurrency
/// [run_listen]: crate::Run::listen
/// [run_poll_interval]: crate::Run::poll_interval
/// [run_prefetch]: crate::Run::prefetch
/// [statement_check]: crate::Statement::check
// The first definition of a link counts.
#[doc = include_str!("../docs/queues.md")]
pub mod queues {}

/// [rolling_deploy]: https://docs.rs/crate/pgqrs/latest/source/examples/rolling_deploy.rs
// The first definition of a link counts.
#[doc = include_str!("../docs/rolling-deploys.md")]
pub mod rolling_deploys {}

/// [admin]: crate::Admin
/// [cron]: crate::cron!
/// [cron_type]: crate::Cron
/// [missed]: crate::Missed
/// [schedule_type]: crate::Schedule
/// [scheduler]: crate::Store::scheduler
/// [telemetry]: crate::guide::telemetry#metrics
/// [unique]: crate::guide::unique
/// [unique_by]: crate::Queue::unique_by
// The first definition of a link counts.
#[cfg(feature = "schedules")]
#[doc = include_str!("../docs/schedules.md")]
pub mod schedules {}

/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/observed_worker.rs
/// [observing]: crate::guide::health#observing
/// [operating]: crate::guide::operating
#[doc = include_str!("../docs/telemetry.md")]
pub mod telemetry {}

/// [advance]: crate::testing::advance
/// [drain]: crate::testing::drain
/// [for_test]: crate::Delivery::for_test
/// [postgres]: crate::testing::postgres
/// [run_in_transaction]: crate::Consumer::run_in_transaction
/// [schedules]: crate::schedule
/// [shop]: https://docs.rs/crate/pgqrs/latest/source/examples/shop/tests/shop.rs
// The first definition of a link counts.
#[cfg(all(feature = "schedules", feature = "testing", unix))]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/unique.md")]
pub mod unique {}
