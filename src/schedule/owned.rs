//! `store.schedules("billing").replace([..])`: the schedules of an owner, exactly these.

use super::{ScheduleSpec, Settings, check_name, check_version, install};
#[cfg(doc)]
use crate::error::Error;
use crate::{error::Result, store::Store};

impl Store {
    /// Returns the schedules of an owner, such as a service or a module, which declares all of them together.
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    /// use pgqrs::{Queue, cron};
    ///
    /// const INVOICES: Queue<u32> = Queue::new("invoices");
    ///
    /// # async fn example(store: pgqrs::Store) -> pgqrs::Result<()> {
    /// let changes = store
    ///     .schedules("billing")
    ///     .version(7)
    ///     .replace([
    ///         pgqrs::schedule("monthly-invoices", INVOICES).cron(cron!("0 6 1 * *")).message(&1).spec(),
    ///         pgqrs::schedule("reminders", "mails").every(Duration::from_secs(3600)).message(&"due").spec(),
    ///     ])
    ///     .await?;
    /// println!("{} are new, {} are gone", changes.created.len(), changes.deleted.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn schedules(&self, owner: impl Into<String>) -> OwnedSchedules {
        OwnedSchedules {
            store: self.clone(),
            owner: owner.into(),
            version: 0,
        }
    }
}

/// The schedules of an owner; made by [`Store::schedules`].
#[derive(Debug)]
#[must_use = "it does nothing until `.replace([..]).await`"]
pub struct OwnedSchedules {
    store: Store,
    owner: String,
    version: u32,
}

impl OwnedSchedules {
    /// Sets the version of all of them: each counts as being of at least this one. Defaults to the highest one of theirs.
    ///
    /// Raise it with each change, such as one that removes a schedule: if the owner has schedules of a higher version, an
    /// older deployment changes nothing.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Makes these the owner's schedules, exactly: those that are missing are created, those of a lower version replaced,
    /// and the owner's others deleted. Those of other owners, and those without an owner, are left as they are.
    ///
    /// All of it is done, or nothing.
    ///
    /// # Errors
    /// As for [`Schedule::install`](crate::Schedule::install). [`Error::ScheduleTaken`] if one of the names belongs to
    /// another owner, or to none; [`Error::InvalidSetting`] if two of them have the same name.
    ///
    /// # Source
    /// The database's time is read; then one statement on `pgqrs.schedules`.
    pub async fn replace(
        self,
        schedules: impl IntoIterator<Item = ScheduleSpec>,
    ) -> Result<ScheduleChanges> {
        let owner = check_name("owner", self.owner)?;
        let mut version = check_version(self.version)?;
        let mut new = Vec::new();
        for ScheduleSpec(schedule) in schedules {
            new.push(schedule?);
        }
        new.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(twice) = new.windows(2).find(|two| two[0].name == two[1].name) {
            return Err(crate::error::Error::InvalidSetting {
                setting: "schedule",
                value: format!("{:?}, twice", twice[0].name),
                expected: "a name of its own for each",
            });
        }
        version = new.iter().map(|new| new.version).fold(version, i32::max);
        if self.version > 0 {
            for schedule in &mut new {
                schedule.version = schedule.version.max(check_version(self.version)?);
            }
        }
        let settings = Settings {
            owner: Some(&owner),
            overwrites: false,
            is_all_of_version: Some(version),
        };
        let installed = install(&self.store, new, settings).await?;
        Ok(ScheduleChanges {
            created: installed.created,
            replaced: installed.replaced,
            deleted: installed.deleted,
            is_outdated: installed.is_older,
        })
    }
}

/// What [`OwnedSchedules::replace`] has changed: names, unordered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleChanges {
    /// Schedules that there were none of.
    pub created: Vec<String>,
    /// Schedules of which there was a lower version.
    pub replaced: Vec<String>,
    /// Schedules of the owner that were not among the new ones.
    pub deleted: Vec<String>,
    /// Whether nothing was changed, since the owner has schedules of a higher version: a newer deployment's.
    pub is_outdated: bool,
}
