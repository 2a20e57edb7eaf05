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
        failures::{self, Failure, USED_UP},
    },
    telemetry::{self, Messages, Subject, Timer},
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
        let settled = executor::run(on, async |connection| {
            let settled = settlement.carry_out(connection, receipt).await?;
            if lease.is_in_transaction()
                && let Some(transaction) = settle::note_settled(connection, receipt).await?
            {
                lease.set_settled_in(transaction);
            }
            Ok(settled)
        });
        let settled = settled.await?;
        settlement.report(settled, subject);
        match settled {
            Settled::LeaseLost => Err(Error::LeaseLost {
                message: receipt.id,
            }),
            Settled::AsAsked | Settled::Dead => Ok(()),
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

/// What a settlement did.
#[derive(Clone, Copy)]
enum Settled {
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
    DeadLetter(String),
}

impl Settled {
    fn as_asked_if(is_held: bool) -> Self {
        if is_held {
            Self::AsAsked
        } else {
            Self::LeaseLost
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

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Archive => "archive",
            Self::Retry(_) => "nack",
            Self::Later(_) => "later",
            Self::DeadLetter(_) => "dead_letter",
        }
    }

    async fn carry_out(&self, connection: &mut PgConnection, receipt: Receipt) -> Result<Settled> {
        let failure = match self {
            Self::Ack => {
                let is_held = settle::ack(connection, receipt).await?;
                return Ok(Settled::as_asked_if(is_held));
            }
            Self::Archive => {
                let archived = settle::archive(connection, &[receipt]).await?;
                return Ok(Settled::as_asked_if(!archived.is_empty()));
            }
            Self::Retry(wait) => Failure::retry(receipt, *wait, ""),
            Self::Later(wait) => Failure::later(receipt, *wait),
            Self::DeadLetter(reason) => Failure::dead(receipt, reason),
        };
        let failure = [failure];
        let failed = failures::fail(connection, &failure).await?;
        Ok(match failed.first() {
            Some(failed) if failed.dead => Settled::Dead,
            failed => Settled::as_asked_if(failed.is_some()),
        })
    }

    /// Reports what an operator wants to know of it.
    fn report(&self, settled: Settled, subject: &Subject) {
        let asked = "another attempt was asked for";
        match (settled, self) {
            (Settled::LeaseLost, _) => telemetry::lease_lost(subject, self.verb()),
            (Settled::Dead, Self::DeadLetter(reason)) => {
                telemetry::dead_lettered(subject, reason, None);
            }
            (Settled::Dead, _) => {
                telemetry::attempt_failed(subject, asked, None);
                telemetry::dead_lettered(subject, USED_UP, None);
            }
            (Settled::AsAsked, Self::Retry(wait)) => {
                telemetry::attempt_failed(subject, asked, Some(*wait));
            }
            (Settled::AsAsked, Self::Later(_)) => telemetry::snoozed(subject),
            (Settled::AsAsked, _) => {}
        }
    }
}
