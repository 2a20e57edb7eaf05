//! What can be done with a delivery, and what became of it.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tracing::{Instrument, Span};

use super::lease::Lease;
use crate::{
    error::{Error, Result},
    executor::{self, Executor},
    message::{Receipt, Visible},
    postgres::settle::{
        self,
        fail::fail,
        failures::{Failed, Failure, USED_UP},
        grouped::{self, LockWait},
    },
    queue::QueueName,
    store::Store,
    telemetry::{self, Messages, Subject, Timer},
    transaction::SentTo,
};

/// Settles a delivery itself, in a statement of its own.
pub(crate) async fn settle_lease(
    lease: &Arc<Lease>,
    settlement: Result<Settlement>,
    on: impl Executor,
) -> Result<()> {
    let (receipt, subject) = (lease.receipt(), lease.subject());
    let verb = settlement.as_ref().map_or("nack", Settlement::verb);
    let under_way = UnderWay::begin(lease, verb);
    let call = async {
        let settlement = settlement?;
        lease.set_settling(true);
        // Others are ready only after the settlement of a message with a group, or of a queue that limits what runs.
        let settings = subject.origin.settings;
        let is_limited = settings.is_limited || settings.has_group_rates && receipt.is_grouped;
        let (store, sent_to) = if receipt.is_grouped || is_limited {
            (on.store(), on.sent_to())
        } else {
            (None, None)
        };
        let settled = executor::run(on, async |connection| {
            let settled = settlement.carry_out(connection, receipt).await?;
            if lease.is_in_transaction()
                && let Some(transaction) = settle::note_settled(connection, receipt).await?
            {
                lease.set_settled_in(transaction);
            }
            Ok(settled)
        });
        let Settled {
            outcome: settled,
            is_next_ready,
        } = settled.await?;
        if is_next_ready || is_limited {
            wake(store, sent_to, &subject.origin.queue);
        }
        settlement.report(settled, subject);
        match settled {
            Outcome::LeaseLost => Err(Error::LeaseLost {
                message: receipt.id,
            }),
            Outcome::AsAsked | Outcome::Dead => Ok(()),
        }
    };
    let settled = call.instrument(under_way.span.clone()).await;
    under_way.end(lease, &settled);
    settled
}

/// A settlement of one delivery, as telemetry sees it.
pub(super) struct UnderWay {
    pub(super) verb: &'static str,
    pub(super) span: Span,
    timer: Timer,
}

impl UnderWay {
    pub(super) fn begin(lease: &Lease, verb: &'static str) -> Self {
        let queue = Some(lease.subject().origin.queue.as_str());
        let message = Messages::One(Some(lease.receipt().id));
        Self {
            verb,
            span: telemetry::settle(verb, queue, message),
            timer: Timer::start(),
        }
    }

    /// Reports how it ended, and has the lease know it.
    pub(super) fn end(self, lease: &Lease, settled: &Result<()>) {
        let queue = Some(lease.subject().origin.queue.as_str());
        let error = settled.as_ref().err();
        telemetry::settled(self.verb, queue, 1, self.timer, error);
        match error {
            None => lease.settled(),
            Some(error) => {
                lease.set_settling(false);
                telemetry::failed(&self.span, error);
            }
        }
    }
}

/// Wakes the consumers of a queue at once, or when the transaction is committed. On a connection of the caller's, they
/// find the messages at their next poll.
pub(super) fn wake(store: Option<Store>, sent_to: Option<SentTo>, queue: &QueueName) {
    if let Some(store) = store {
        store.notifier().wake(queue);
    } else if let Some(sent_to) = sent_to {
        sent_to.add(queue.clone());
    }
}

/// What a settlement did.
#[derive(Clone, Copy)]
struct Settled {
    outcome: Outcome,
    /// Whether another message of its group is ready now.
    is_next_ready: bool,
}

/// What became of the message.
#[derive(Clone, Copy)]
enum Outcome {
    AsAsked,
    /// The message is a dead letter.
    Dead,
    LeaseLost,
}

pub(crate) enum Settlement {
    Ack,
    Archive,
    Retry(Duration),
    Later(Duration),
    SlowDown(Duration),
    DeadLetter(String),
}

impl Outcome {
    fn as_asked_if(is_held: bool) -> Self {
        if is_held {
            Self::AsAsked
        } else {
            Self::LeaseLost
        }
    }

    fn of(failed: Option<&Failed<'_>>) -> Self {
        match failed {
            Some(failed) if failed.dead => Self::Dead,
            failed => Self::as_asked_if(failed.is_some()),
        }
    }
}

impl From<Outcome> for Settled {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            is_next_ready: false,
        }
    }
}

impl Settlement {
    /// Of a message that was handled.
    pub(crate) fn acknowledgement(subject: &Subject) -> Self {
        if subject.origin.settings.archive_on_ack {
            Self::Archive
        } else {
            Self::Ack
        }
    }

    pub(super) fn retry_in(wait: Duration) -> Result<Self> {
        Visible::after(wait).map(|_| Self::Retry(wait))
    }

    pub(crate) fn later(wait: Duration) -> Result<Self> {
        Visible::after(wait).map(|_| Self::Later(wait))
    }

    pub(super) fn slow_down(wait: Duration) -> Result<Self> {
        Visible::after(wait).map(|_| Self::SlowDown(wait))
    }

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Archive => "archive",
            Self::Retry(_) => "nack",
            Self::Later(_) => "later",
            Self::SlowDown(_) => "slow_down",
            Self::DeadLetter(_) => "dead_letter",
        }
    }

    async fn carry_out(&self, connection: &mut PgConnection, receipt: Receipt) -> Result<Settled> {
        let failure = match self {
            Self::Ack | Self::Archive if receipt.is_grouped => {
                let archives = matches!(self, Self::Archive);
                let archiving = if archives {
                    &[receipt.queue_id][..]
                } else {
                    &[]
                };
                let receipts = [receipt];
                let waits = LockWait::Unlimited;
                let settled = grouped::ack(connection, &receipts, archiving, waits).await?;
                return Ok(Settled {
                    outcome: Outcome::as_asked_if(!settled.ids.is_empty()),
                    is_next_ready: !settled.ready_queues.is_empty(),
                });
            }
            Self::Ack => {
                let is_held = settle::ack(connection, receipt).await?;
                return Ok(Outcome::as_asked_if(is_held).into());
            }
            Self::Archive => {
                let archived = settle::archive(connection, &[receipt]).await?;
                return Ok(Outcome::as_asked_if(!archived.is_empty()).into());
            }
            Self::Retry(wait) => Failure::retry(receipt, *wait, ""),
            Self::Later(wait) => Failure::later(receipt, *wait),
            Self::SlowDown(wait) => Failure::slow_down(receipt, *wait),
            Self::DeadLetter(reason) => Failure::dead(receipt, reason),
        };
        if receipt.is_grouped {
            let failed = grouped::fail(connection, &[&failure], LockWait::Unlimited).await?;
            return Ok(Settled {
                outcome: Outcome::of(failed.failed.first()),
                is_next_ready: failed.is_next_ready,
            });
        }
        let failure = [failure];
        let failed = fail(connection, &failure).await?;
        Ok(Outcome::of(failed.first()).into())
    }

    /// Reports what an operator wants to know of it.
    fn report(&self, settled: Outcome, subject: &Subject) {
        let asked = "another attempt was asked for";
        match (settled, self) {
            (Outcome::LeaseLost, _) => telemetry::lease_lost(subject, self.verb()),
            (Outcome::Dead, Self::DeadLetter(reason)) => {
                telemetry::dead_lettered(subject, reason, None);
            }
            (Outcome::Dead, _) => {
                telemetry::attempt_failed(subject, asked, None);
                telemetry::dead_lettered(subject, USED_UP, None);
            }
            (Outcome::AsAsked, Self::Retry(wait)) => {
                telemetry::attempt_failed(subject, asked, Some(*wait));
            }
            (Outcome::AsAsked, Self::Later(_) | Self::SlowDown(_)) => telemetry::snoozed(subject),
            (Outcome::AsAsked, _) => {}
        }
    }
}
