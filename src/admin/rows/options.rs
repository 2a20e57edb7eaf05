//! Settings of a queue, put together.

use super::QueueOptions;

/// Puts settings together, for callers that decide at run time which ones they change. Of two that are set differently,
/// the later one counts.
impl FromIterator<Self> for QueueOptions {
    fn from_iter<I: IntoIterator<Item = Self>>(options: I) -> Self {
        options
            .into_iter()
            .fold(Self::default(), |before, after| Self {
                max_attempts: after.max_attempts.or(before.max_attempts),
                lease: after.lease.or(before.lease),
                retry_min: after.retry_min.or(before.retry_min),
                retry_max: after.retry_max.or(before.retry_max),
                archive_on_ack: after.archive_on_ack.or(before.archive_on_ack),
                sensitive: after.sensitive.or(before.sensitive),
                archive_for: after.archive_for.or(before.archive_for),
                dead_letters_for: after.dead_letters_for.or(before.dead_letters_for),
                groups: after.groups.or(before.groups),
                max_running: after.max_running.or(before.max_running),
            })
    }
}
