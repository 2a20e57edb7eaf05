//! How a queue handles messages of groups, and what administrative calls return about groups.

use chrono::{DateTime, Utc};
use serde::Serialize;
use typed_builder::TypedBuilder;

use super::rate::Rate;
use crate::{
    error::{Error, Result},
    message::MessageId,
};

/// How a queue handles messages of [groups](crate::Enqueue::group).
///
/// | setting | meaning | default |
/// |---|---|---|
/// | `at_once` | how many messages of a group are on their way at a time | 1 |
/// | `after_dead_letter` | whether a group goes on after one of its messages became a dead letter | `Continue` |
/// | `rate` | how many attempts of each group start within a time | `None`: no limit |
///
/// # Example
/// ```
/// use pgqrs::{AfterDeadLetter, Groups};
///
/// let in_order = Groups::default();
/// let limited = Groups::builder().at_once(8).build();
/// let strict = Groups::builder().after_dead_letter(AfterDeadLetter::Stop).build();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, TypedBuilder)]
#[builder(builder_type(
    doc = "Settings of [`Groups`], each with its default; made by [`Groups::builder`]."
))]
pub struct Groups {
    #[builder(
        default = 1,
        setter(
            doc = "How many messages of a group are ready, delayed, leased or waiting for another attempt at a time: from 1 to 2,147,483,647; defaults to 1, and then they are handled strictly in order. If it is raised, more are let in as others are settled, and by [`Admin::promote_groups`](crate::Admin::promote_groups) at once; if it is lowered, those that are on their way stay."
        )
    )]
    pub(crate) at_once: u32,
    #[builder(
        default,
        setter(
            doc = "Whether a group goes on after one of its messages became a dead letter; defaults to `Continue`."
        )
    )]
    pub(crate) after_dead_letter: AfterDeadLetter,
    #[builder(
        default,
        setter(
            into,
            doc = "How many attempts of each group start within a time, or `None`, which sets no limit; defaults to `None`. It spaces the times at which messages of a group become ready. Those that then had to wait for a consumer start as soon as there is one, at most `at_once` together."
        )
    )]
    pub(crate) rate: Option<Rate>,
}

impl Default for Groups {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Groups {
    /// Returns how many messages of a group are on their way at a time.
    pub fn at_once(&self) -> u32 {
        self.at_once
    }

    /// Returns whether a group goes on after one of its messages became a dead letter.
    pub fn after_dead_letter(&self) -> AfterDeadLetter {
        self.after_dead_letter
    }

    /// Returns how many attempts of each group start within a time; `None` if there is no limit.
    pub fn rate(&self) -> Option<Rate> {
        self.rate
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_at_once(self.at_once)?;
        self.rate.map_or(Ok(()), |rate| rate.check())
    }
}

/// As the database stores it.
pub(crate) fn check_at_once(at_once: u32) -> Result<i32> {
    match i32::try_from(at_once) {
        Ok(at_once @ 1..) => Ok(at_once),
        _ => Err(Error::InvalidSetting {
            setting: "at_once",
            value: at_once.to_string(),
            expected: "from 1 to 2147483647",
        }),
    }
}

/// What a group does after one of its messages became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterDeadLetter {
    /// It goes on with the next message.
    #[default]
    Continue,
    /// It waits until the dead letter is [requeued](crate::Admin::requeue) or [purged](crate::Admin::purge_dead_letters),
    /// or an operator [resumes](crate::Admin::resume_group) the group.
    Stop,
}

/// A group that has messages, or that an operator has set something for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GroupInfo {
    /// The group.
    pub group: String,
    /// Its messages that are ready, delayed, leased, or waiting for another attempt.
    pub live: u64,
    /// Its messages that wait for one of those to be settled.
    pub parked: u64,
    /// How many messages are on their way at a time, if it has a limit of its own.
    pub at_once: Option<u32>,
    /// How many of its attempts start within a time, if it has a rate of its own.
    pub rate: Option<Rate>,
    /// Since when nothing is let in any more, by the database's clock; `None` if it isn't stopped.
    pub stopped_at: Option<DateTime<Utc>>,
    /// The dead letter that has stopped it; `None` if an operator has.
    pub stopped_by: Option<MessageId>,
    /// When the parked message that is next was enqueued, by the database's clock.
    pub oldest_parked: Option<DateTime<Utc>>,
}

/// In which order groups are listed, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GroupOrder {
    /// Those with the most parked messages first.
    #[default]
    Parked,
    /// Those whose next parked message was enqueued first. It looks that up for each group that has parked messages.
    Oldest,
    /// Only those that are stopped, the ones that stopped first in front.
    Stopped,
}
