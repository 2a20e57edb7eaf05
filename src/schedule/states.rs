//! The states of a schedule's builder, and the bounds by which its methods are available.

use crate::{error::Result, message::NewMessage, timing::ScheduleTime};

/// No time yet.
#[derive(Debug)]
pub struct Untimed(pub(super) ());

/// A time is set, by `.cron(..)` or `.every(..)`.
#[derive(Debug)]
pub struct Timed(pub(super) Result<ScheduleTime>);

/// No message yet.
#[derive(Debug)]
pub struct WithoutMessage(pub(super) ());

/// A message is set.
#[derive(Debug)]
pub struct WithMessage(pub(super) Result<NewMessage>);

mod sealed {
    use crate::{error::Result, message::NewMessage, timing::ScheduleTime};

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::schedule(\"name\", \"queue\").every(interval).message(&payload)`"
    )]
    pub trait Unset {}

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::schedule(\"name\", \"queue\").every(interval).message(&payload)`"
    )]
    pub trait Time {
        fn into_time(self) -> Result<ScheduleTime>;
    }

    #[diagnostic::on_unimplemented(
        message = "the states of pgqrs's builders can't be implemented outside of pgqrs",
        label = "only the builder's own methods change its state",
        note = "call them: `pgqrs::schedule(\"name\", \"queue\").every(interval).message(&payload)`"
    )]
    pub trait Message {
        fn into_message(self) -> Result<NewMessage>;
    }
}

/// The schedule has its time.
#[diagnostic::on_unimplemented(
    message = "this schedule has no time",
    label = "call `.cron(cron!(\"0 9 * * *\"))` or `.every(interval)` before `.install(..)`"
)]
pub trait ScheduleHasTime: sealed::Time {}

impl sealed::Time for Timed {
    fn into_time(self) -> Result<ScheduleTime> {
        self.0
    }
}
#[diagnostic::do_not_recommend]
impl ScheduleHasTime for Timed {}

/// The schedule has no time yet.
#[diagnostic::on_unimplemented(
    message = "this schedule already has its time",
    label = "a second `.cron(..)` or `.every(..)`",
    note = "for two times, install two schedules, or write one expression with a list: `0 9,17 * * *`"
)]
pub trait ScheduleHasNoTime: sealed::Unset {}

impl sealed::Unset for Untimed {}
#[diagnostic::do_not_recommend]
impl ScheduleHasNoTime for Untimed {}

/// The schedule has its message.
#[diagnostic::on_unimplemented(
    message = "this schedule has no message",
    label = "call `.message(&payload)` before `.install(..)`"
)]
pub trait ScheduleHasMessage: sealed::Message {}

impl sealed::Message for WithMessage {
    fn into_message(self) -> Result<NewMessage> {
        self.0
    }
}
#[diagnostic::do_not_recommend]
impl ScheduleHasMessage for WithMessage {}

/// The schedule has no message yet.
#[diagnostic::on_unimplemented(
    message = "this schedule already has its message",
    label = "a second `.message(..)`",
    note = "a schedule sends one message each time: for two, install two schedules"
)]
pub trait ScheduleHasNoMessage: sealed::Unset {}

impl sealed::Unset for WithoutMessage {}
#[diagnostic::do_not_recommend]
impl ScheduleHasNoMessage for WithoutMessage {}
