//! The guide: a page for each topic.
//!
//! | to | read |
//! |---|---|
//! | begin | [First steps](first_steps), [Sending in your transaction](sending), [Consumers and retries](consumers) |
//! | write handlers | [Idempotent handlers](idempotent_handlers), [Handlers](handlers), [Order, limits, groups](order), [Groups](groups), [Unique messages](unique) |
//! | test | [Testing](https://docs.rs/pgqrs/latest/pgqrs/guide/testing/) |
//! | deploy | [Rolling deploys](rolling_deploys), [Upgrading], [Behind a pooler](poolers), [Security and roles](security) |
//! | operate | [Operating](operating), [Running a queue](queues), [Health](health), [Telemetry](telemetry) |
//! | send at regular times | [Schedules](https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/) |
//! | rely on it | [Reliability](reliability), [How it works](how_it_works) |
//! | compare | [Coming from River, Oban, Sidekiq, Celery, apalis, pgmq](https://docs.rs/pgqrs/latest/pgqrs/guide/coming_from/) |
//! | look a type up | [Names](names) |
//! | understand the compiler | [What doesn't compile](compile_errors) |
//!
//! [Upgrading]: upgrading

#[expect(
    rustdoc::invalid_rust_codeblocks,
    reason = "some are the one line to write instead"
)]
#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

/// [command]: https://docs.rs/crate/pgqrs/latest/source/docs/command.md
/// [consumers]: crate::guide::consumers
/// [idempotent]: crate::guide::idempotent_handlers
/// [rolling-deploys]: crate::guide::rolling_deploys
/// [sending]: crate::guide::sending
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/first-steps.md")]
pub mod first_steps {}

/// [aborted]: crate::Error::aborted_transaction
/// [drivers]: https://docs.rs/crate/pgqrs/latest/source/examples/drivers/src/bin
/// [import]: crate::Import
/// [order]: crate::guide::order
/// [reliability]: crate::guide::reliability
/// [statement]: crate::Statement
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/sending.md")]
pub mod sending {}

/// [handlers]: crate::guide::handlers
/// [queue_options]: crate::QueueOptions
/// [queues]: crate::guide::queues
/// [report]: crate::Report
/// [retry]: crate::Run::retry
/// [run]: crate::Run
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/consumers.md")]
pub mod consumers {}

/// [handlers]: crate::guide::handlers
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/idempotent-handlers.md")]
pub mod idempotent_handlers {}

/// [groups]: crate::guide::groups
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/names.md")]
pub mod names {}

/// [groups]: crate::guide::groups
/// [rates]: crate::guide::groups#a-rate-for-a-whole-queue
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/order.md")]
pub mod order {}

/// [access]: crate::Access
/// [command]: https://docs.rs/crate/pgqrs/latest/source/docs/command.md
/// [page]: https://docs.rs/crate/pgqrs/latest/source/docs/page.md
/// [queues]: crate::guide::queues
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/security.md")]
pub mod security {}

/// [abandoned]: crate::guide::reliability#abandoned-statements
/// [performance]: https://docs.rs/crate/pgqrs/latest/source/docs/performance.md
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/poolers.md")]
pub mod poolers {}

/// [rolling-deploys]: crate::guide::rolling_deploys
/// [security]: crate::guide::security
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/upgrading.md")]
pub mod upgrading {}

/// [rolling-deploys]: crate::guide::rolling_deploys
/// [tower]: https://docs.rs/crate/pgqrs/latest/source/examples/tower.rs
// The first definition of a link counts.
#[cfg(all(feature = "schedules", feature = "testing"))]
#[doc = include_str!("../docs/guide/coming-from.md")]
pub mod coming_from {}

/// [decisions]: https://docs.rs/crate/pgqrs/latest/source/docs/decisions.md
/// [idempotent]: crate::guide::idempotent_handlers
/// [performance]: https://docs.rs/crate/pgqrs/latest/source/docs/performance.md
/// [reliability]: crate::guide::reliability
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/how-it-works.md")]
pub mod how_it_works {}

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

/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/groups.md")]
pub mod groups {}

/// [advance]: crate::testing::advance
/// [drain]: crate::testing::drain
/// [for_test]: crate::Delivery::for_test
/// [groups]: crate::guide::groups
/// [postgres]: crate::testing::postgres
/// [python]: https://docs.rs/crate/pgqrs/latest/source/python/README.md
/// [run_in_transaction]: crate::Consumer::run_in_transaction
/// [schedules]: crate::schedule
/// [shop]: https://docs.rs/crate/pgqrs/latest/source/examples/shop/tests/shop.rs
// The first definition of a link counts.
#[cfg(all(feature = "schedules", feature = "testing", unix))]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/unique.md")]
pub mod unique {}
