//! Settings of a queue, checked and put together.

use std::time::Duration;

use super::QueueOptions;
use crate::error::{Error, Result};

impl QueueOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let (attempts, running) = (self.max_attempts, self.max_running.flatten());
        for (setting, value) in [("max_attempts", attempts), ("max_running", running)] {
            if value.is_some_and(|value| value == 0 || i32::try_from(value).is_err()) {
                return Err(Error::InvalidSetting {
                    setting,
                    value: value.unwrap_or_default().to_string(),
                    expected: "from 1 to 2147483647",
                });
            }
        }
        if let Some(groups) = self.groups.flatten() {
            groups.check()?;
        }
        if let Some(rate) = self.rate.flatten() {
            rate.check()?;
        }
        match (self.retry_min.flatten(), self.retry_max.flatten()) {
            (Some(min), Some(max)) if max < min => Err(Self::retry_max_too_short(max)),
            _ => Ok(()),
        }
    }

    fn retry_max_too_short(max: Duration) -> Error {
        Error::InvalidSetting {
            setting: "retry_max",
            value: format!("{max:?}"),
            expected: "at least `retry_min`",
        }
    }

    /// The error of the database's own check, if only one of the two was set, as one about the setting.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self.retry_max.or(self.retry_min).flatten() {
            Some(wait) if error.is_retry_max_too_short() => Self::retry_max_too_short(wait),
            _ => error,
        }
    }
}

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
                rate: after.rate.or(before.rate),
            })
    }
}
