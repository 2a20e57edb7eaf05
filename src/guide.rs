//! The guide: a page for each topic.
//!
//! | to | read |
//! |---|---|
//! | begin | [First steps](first_steps), [Sending in your transaction](sending), [Consumers and retries](consumers) |
//! | write handlers | [Idempotent handlers](idempotent_handlers), [Handlers](handlers) |
//! | decide what is sent once, and what is handled in which order | [Unique messages](unique), [Order, limits, groups](groups) |
//! | send at regular times | [Schedules](https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/) |
//! | test | [Testing](https://docs.rs/pgqrs/latest/pgqrs/guide/testing/) |
//! | deploy | [Rolling deploys](rolling_deploys), [Upgrading](upgrading), [Behind a pooler](poolers), [Security and roles](security), [When one PostgreSQL isn't enough](scaling) |
//! | operate | [Operating](operating), [Running a queue](queues), [Health](health), [Telemetry](telemetry), [Tuning](tuning) |
//! | look at queues | [The command `pgqrs`](command), [The operators' page](page) |
//! | rely on it | [Reliability](reliability), [How it works](how_it_works) |
//! | compare | [Coming from River, Oban, Sidekiq, Celery, apalis, pgmq](https://docs.rs/pgqrs/latest/pgqrs/guide/coming_from/) |
//! | look a type up | [Names](names) |
//! | understand the compiler | [What doesn't compile](compile_errors) |

#[expect(
    rustdoc::invalid_rust_codeblocks,
    reason = "some are the one line to write instead"
)]
#[doc = include_str!("../docs/compile-errors.md")]
pub mod compile_errors {}

/// [command]: crate::guide::command
/// [consumers]: crate::guide::consumers
/// [idempotent]: crate::guide::idempotent_handlers
/// [rolling-deploys]: crate::guide::rolling_deploys
/// [sending]: crate::guide::sending
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/first-steps.md")]
pub mod first_steps {}

/// [aborted]: crate::Error::aborted_transaction
/// [drivers]: crate::Statement
/// [groups]: crate::guide::groups
/// [import]: crate::Import
/// [reliability]: crate::guide::reliability
/// [statement]: crate::Statement
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/sending.md")]
pub mod sending {}

/// [handlers]: crate::guide::handlers
/// [queue_options]: crate::QueueOptions
/// [queues-retention]: crate::guide::queues#retention
/// [report]: crate::Report
/// [retry]: crate::Run::retry
/// [run]: crate::Run
/// [service]: https://docs.rs/crate/pgqrs/latest/source/examples/service.rs
/// [tuning]: crate::guide::tuning
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/consumers.md")]
pub mod consumers {}

/// [chunk]: crate::Chunk
/// [drivers]: crate::Delivery::ack_statement
/// [queues-cancel]: crate::guide::queues#cancel
/// [tower]: https://docs.rs/crate/pgqrs/latest/source/examples/tower.rs
/// [tuning-connections]: crate::guide::tuning#connections
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/handlers.md")]
pub mod handlers {}

/// [handlers]: crate::guide::handlers
/// [testing]: https://docs.rs/pgqrs/latest/pgqrs/guide/testing/
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/idempotent-handlers.md")]
pub mod idempotent_handlers {}

/// [groups]: crate::guide::groups
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/unique.md")]
pub mod unique {}

/// [benchmarks]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [command-groups]: crate::guide::command#groups
/// [telemetry]: crate::guide::telemetry
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/groups.md")]
pub mod groups {}

/// [admin]: crate::Admin
/// [archive]: crate::guide::queues#settings
/// [benchmarks]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [cron]: crate::cron!
/// [cron_type]: crate::Cron
/// [missed]: crate::Missed
/// [page]: crate::guide::page
/// [schedule_type]: crate::Schedule
/// [scheduler]: crate::Store::scheduler
/// [telemetry]: crate::guide::telemetry#metrics
/// [unique]: crate::guide::unique
/// [unique_by]: crate::Queue::unique_by
// The first definition of a link counts.
#[cfg(feature = "schedules")]
#[doc = include_str!("../docs/guide/schedules.md")]
pub mod schedules {}

/// [rolling_deploy]: https://docs.rs/crate/pgqrs/latest/source/examples/rolling_deploy.rs
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/rolling-deploys.md")]
pub mod rolling_deploys {}

/// [advance]: crate::testing::advance
/// [drain]: crate::testing::drain
/// [for_test]: crate::Delivery::for_test
/// [groups]: crate::guide::groups
/// [postgres]: crate::testing::postgres
/// [python]: https://docs.rs/crate/pgqrs/latest/source/docs/python.md
/// [run_in_transaction]: crate::Consumer::run_in_transaction
/// [schedules]: https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/
/// [shop]: crate::testing
// The first definition of a link counts.
#[cfg(all(feature = "schedules", feature = "testing", unix))]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

/// [alerts]: https://docs.rs/crate/pgqrs/latest/source/docs/alerts.yml
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/observed_worker.rs
/// [grafana]: https://docs.rs/crate/pgqrs/latest/source/docs/grafana.json
/// [groups]: crate::guide::groups
/// [health]: crate::guide::health
/// [observing]: crate::guide::health#observing
/// [rolling-deploys]: crate::guide::rolling_deploys
/// [standby]: crate::guide::scaling#a-standby
/// [telemetry]: crate::guide::telemetry
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/operating.md")]
pub mod operating {}

/// [access]: crate::Access
/// [command]: crate::guide::command
/// [delivery_cancelled]: crate::Delivery::cancelled
/// [delivery_is_cancelled]: crate::Delivery::is_cancelled
/// [error_leaselost]: crate::Error::LeaseLost
/// [error_queueclosed]: crate::Error::QueueClosed
/// [handlers-chunks]: crate::guide::handlers#chunks
/// [handlers-in-a-transaction]: crate::guide::handlers#in-a-transaction
/// [page]: crate::guide::page
/// [retrypolicy]: crate::RetryPolicy
/// [run_cancel_grace]: crate::Run::cancel_grace
/// [run_concurrency]: crate::Run::concurrency
/// [run_listen]: crate::Run::listen
/// [run_poll_interval]: crate::Run::poll_interval
/// [run_prefetch]: crate::Run::prefetch
/// [statement_check]: crate::Statement::check
/// [telemetry]: crate::guide::telemetry
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/queues.md")]
pub mod queues {}

/// [groups]: crate::guide::groups
/// [health]: crate::guide::health
/// [page]: crate::guide::page
/// [page-actions]: crate::guide::page#actions
/// [page-messages-per-minute]: crate::guide::page#messages-per-minute
/// [queues-sensitive-payloads]: crate::guide::queues#sensitive-payloads
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/command.md")]
pub mod command {}

/// [access]: crate::Access
/// [command-what-happens-now]: crate::guide::command#what-happens-now
/// [health]: crate::guide::health
/// [history]: https://docs.rs/pgqrs/latest/pgqrs/guide/schedules/#operating
/// [image]: https://docs.rs/crate/pgqrs/latest/source/docs/page.png
/// [info]: crate::MessageInfo
/// [queued]: crate::QueuedMessage
/// [telemetry]: crate::guide::telemetry
// The first definition of a link counts.
// Its examples are of another crate, which tests them.
#[cfg_attr(not(doctest), doc = include_str!("../docs/guide/page.md"))]
pub mod page {}

/// [access]: crate::Access
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/health.rs
/// [finding_kind]: crate::FindingKind
/// [groups]: crate::guide::groups
/// [telemetry]: crate::guide::telemetry#metrics
/// [tuning]: crate::guide::tuning
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/health.md")]
pub mod health {}

/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/observed_worker.rs
/// [handlers-chunks]: crate::guide::handlers#chunks
/// [observing]: crate::guide::health#observing
/// [operating]: crate::guide::operating
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/telemetry.md")]
pub mod telemetry {}

/// [benchmarks]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [benchmarks-how-to-read-it]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [benchmarks-machine]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [benchmarks-the-figures]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [benchmarks-the-peers]: https://docs.rs/crate/pgqrs/latest/source/docs/benchmarks.md
/// [handlers-chunks]: crate::guide::handlers#chunks
/// [health]: crate::guide::health
/// [poolers]: crate::guide::poolers
/// [reliability-housekeeping]: crate::guide::reliability#housekeeping
/// [scaling]: crate::guide::scaling
/// [telemetry]: crate::guide::telemetry#metrics
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/tuning.md")]
pub mod tuning {}

/// [access]: crate::Access
/// [command]: crate::guide::command
/// [page]: crate::guide::page
/// [queues]: crate::guide::queues
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/security.md")]
pub mod security {}

/// [abandoned]: crate::guide::reliability#abandoned-statements
/// [tuning]: crate::guide::tuning
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/poolers.md")]
pub mod poolers {}

/// [decisions]: https://docs.rs/crate/pgqrs/latest/source/docs/decisions.md
/// [example]: https://docs.rs/crate/pgqrs/latest/source/examples/several_databases.rs
/// [security]: crate::guide::security
/// [tuning]: crate::guide::tuning#what-one-postgresql-can-handle
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/scaling.md")]
pub mod scaling {}

/// [rolling-deploys]: crate::guide::rolling_deploys
/// [scaling-if-they-are-distributed]: crate::guide::scaling#if-they-are-distributed-all-the-same
/// [security]: crate::guide::security
/// [standby]: crate::guide::scaling#a-standby
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/upgrading.md")]
pub mod upgrading {}

/// [unique-unique-is-not-one-at-a-time]: crate::guide::unique#unique-is-not-one-at-a-time
/// [unique-which-of-the-three]: crate::guide::unique#which-of-the-three
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/reliability.md")]
pub mod reliability {}

/// [decisions]: https://docs.rs/crate/pgqrs/latest/source/docs/decisions.md
/// [idempotent]: crate::guide::idempotent_handlers
/// [reliability]: crate::guide::reliability
/// [tuning]: crate::guide::tuning
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/how-it-works.md")]
#[doc = include_str!("../docs/guide/how-it-works.html")]
pub mod how_it_works {}

/// [around]: crate::guide::handlers#around-a-handler
/// [consumers]: crate::guide::consumers#retries
/// [groups]: crate::guide::groups
/// [operating]: crate::guide::operating#what-to-watch
/// [page]: crate::guide::page
/// [queues]: crate::guide::queues#settings
/// [rates]: crate::guide::groups#a-rate-for-a-whole-queue
/// [rolling-deploys]: crate::guide::rolling_deploys
/// [sensitive]: crate::guide::queues#sensitive-payloads
/// [tower]: https://docs.rs/crate/pgqrs/latest/source/examples/tower.rs
/// [unique]: crate::guide::unique
// The first definition of a link counts.
#[cfg(all(feature = "schedules", feature = "testing"))]
#[doc = include_str!("../docs/guide/coming-from.md")]
pub mod coming_from {}

/// [groups]: crate::guide::groups
// The first definition of a link counts.
#[doc = include_str!("../docs/guide/names.md")]
pub mod names {}
