//! Groups: list, promote, stop, resume, limit, purge.

use super::{
    Admin, found,
    rows::{
        groups::{GroupInfo, GroupOrder, check_at_once},
        rate::Rate,
    },
};
#[cfg(doc)]
use crate::error::Error;
use crate::{
    error::Result,
    postgres::groups::{self, Promoted},
    queue::{IntoQueue, QueueName},
};

impl Admin {
    /// Returns groups of a queue, at most `limit` of them, in this order. Only groups that have messages are listed, and
    /// those that an operator has set something for.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    ///
    /// # Source
    /// It reads all rows of the queue in `pgqrs.groups`.
    ///
    /// # Example
    /// ```no_run
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// use pgqrs::GroupOrder;
    ///
    /// for group in pgqrs::admin(&store).groups("orders", GroupOrder::Parked, 10).await? {
    ///     println!("{}: {} wait behind {}", group.group, group.parked, group.live);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn groups(
        &self,
        queue: impl IntoQueue,
        order: GroupOrder,
        limit: u32,
    ) -> Result<Vec<GroupInfo>> {
        let queue = queue.into_name()?;
        let listed = self
            .store
            .run_long(async |connection| groups::list(connection, &queue, None, order, limit).await)
            .await?;
        self.unless_absent(queue, !listed.is_empty(), listed).await
    }

    /// Returns a group; `None` if it has no messages, and no settings of its own.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn group(
        &self,
        queue: impl IntoQueue,
        group: impl Into<String>,
    ) -> Result<Option<GroupInfo>> {
        let (queue, group) = (queue.into_name()?, group.into());
        let mut listed = self
            .store
            .run(async |connection| {
                let order = GroupOrder::Parked;
                groups::list(connection, &queue, Some(&group), order, 1).await
            })
            .await?;
        let listed = listed.pop();
        self.unless_absent(queue, listed.is_some(), listed).await
    }

    /// Lets as many parked messages of each group in as there is room for: after a queue's `at_once` was raised. Without
    /// this call, that happens as messages of the groups are settled.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn promote_groups(&self, queue: impl IntoQueue) -> Result<()> {
        let queue = queue.into_name()?;
        let promoted = self
            .store
            .run_long(async |connection| groups::promote(connection, &queue).await)
            .await?;
        self.wake_promoted(promoted, &queue);
        found(promoted.map(|_| ()), queue)
    }

    /// Stops a group: no parked message is let in any more, and all that are sent to it are parked. Those that are on their
    /// way are handled. The group needn't have messages yet.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn stop_group(&self, queue: impl IntoQueue, group: impl Into<String>) -> Result<()> {
        let (queue, group) = (queue.into_name()?, group.into());
        let is_found = self
            .store
            .run(async |connection| groups::stop(connection, &queue, &group).await)
            .await?;
        found(is_found.then_some(()), queue)
    }

    /// Resumes a group that is stopped, by an operator or by a dead letter. Returns whether it was stopped.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn resume_group(
        &self,
        queue: impl IntoQueue,
        group: impl Into<String>,
    ) -> Result<bool> {
        let (queue, group) = (queue.into_name()?, group.into());
        let resumed = self
            .store
            .run(async |connection| groups::resume(connection, &queue, &group).await)
            .await?;
        self.wake_promoted(resumed, &queue);
        self.unless_absent(queue, resumed.is_some(), resumed.is_some())
            .await
    }

    /// Sets how many messages of this group are on their way at a time, whatever its queue says; `None` removes that. If it
    /// is more than before, parked messages are let in at once; if it is less, those that are on their way stay.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::InvalidSetting`] for 0.
    pub async fn set_group_limit(
        &self,
        queue: impl IntoQueue,
        group: impl Into<String>,
        at_once: impl Into<Option<u32>>,
    ) -> Result<()> {
        let (queue, group) = (queue.into_name()?, group.into());
        let at_once = at_once.into().map(check_at_once).transpose()?;
        let set = self
            .store
            .run(async |connection| groups::set_at_once(connection, &queue, &group, at_once).await)
            .await?;
        self.wake_promoted(set, &queue);
        found(set.map(|_| ()), queue)
    }

    /// Sets how many attempts of this group start within a time, whatever its queue says; `None` removes that. It counts for
    /// messages that are let in from then on.
    ///
    /// # Errors
    /// [`Error::QueueNotFound`]; [`Error::InvalidSetting`].
    pub async fn set_group_rate(
        &self,
        queue: impl IntoQueue,
        group: impl Into<String>,
        rate: impl Into<Option<Rate>>,
    ) -> Result<()> {
        let (queue, group, rate) = (queue.into_name()?, group.into(), rate.into());
        rate.map_or(Ok(()), |rate| rate.check())?;
        let is_found = self
            .store
            .run(async |connection| groups::set_rate(connection, &queue, &group, rate).await)
            .await?;
        found(is_found.then_some(()), queue)
    }

    /// Deletes the parked messages of a group, and returns their number. Those that are on their way stay: see
    /// [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// [`Error::QueueNotFound`].
    pub async fn purge_group(
        &self,
        queue: impl IntoQueue,
        group: impl Into<String>,
    ) -> Result<u64> {
        let (queue, group) = (queue.into_name()?, group.into());
        found(
            self.store
                .run_long(async |connection| groups::purge(connection, &queue, &group).await)
                .await?,
            queue,
        )
    }

    fn wake_promoted(&self, promoted: Option<Promoted>, queue: &QueueName) {
        if promoted.is_some_and(|promoted| promoted.is_next_ready) {
            self.store.notifier().wake(queue);
        }
    }
}
