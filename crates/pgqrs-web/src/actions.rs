//! What operators can do on the page, who may, and what they have done.

mod bulk;
mod forms;
mod groups;
mod log;
mod perform;

use std::{collections::HashMap, fmt, sync::Arc};

use axum::http::request::Parts;

pub(crate) use self::{
    forms::{allowed, buttons, for_all, respond},
    log::{Log, view},
};

/// Something that an operator can do on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Put a dead letter back into its queue.
    Requeue,
    /// Delete a dead letter.
    DeleteDeadLetter,
    /// Make a delayed message ready now.
    RunNow,
    /// Set the time of a message that no consumer holds.
    Reschedule,
    /// Cancel a message: it is deleted, also if a consumer holds it.
    Cancel,
    /// Replace the payload of a message that no consumer holds.
    Edit,
    /// Pause a queue.
    PauseQueue,
    /// Resume a queue.
    ResumeQueue,
    /// Stop a group: nothing that it has parked is let in.
    StopGroup,
    /// Resume a group.
    ResumeGroup,
    /// Let as many parked messages of all groups of a queue in as there is room for.
    PromoteGroups,
    /// Delete what a group has parked.
    PurgeGroup,
    /// Suspend a worker.
    SuspendWorker,
    /// Resume a worker.
    ResumeWorker,
    /// Stop a worker, for good.
    StopWorker,
    /// Send a schedule's message now.
    FireSchedule,
    /// Pause a schedule.
    PauseSchedule,
    /// Resume a schedule.
    ResumeSchedule,
}

impl Action {
    const ALL: [Self; 18] = [
        Self::Requeue,
        Self::DeleteDeadLetter,
        Self::RunNow,
        Self::Reschedule,
        Self::Cancel,
        Self::Edit,
        Self::PauseQueue,
        Self::ResumeQueue,
        Self::StopGroup,
        Self::ResumeGroup,
        Self::PromoteGroups,
        Self::PurgeGroup,
        Self::SuspendWorker,
        Self::ResumeWorker,
        Self::StopWorker,
        Self::FireSchedule,
        Self::PauseSchedule,
        Self::ResumeSchedule,
    ];

    /// Its name, as in paths and in the log: `requeue`, `pause-queue`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requeue => "requeue",
            Self::DeleteDeadLetter => "delete-dead-letter",
            Self::RunNow => "run-now",
            Self::Reschedule => "reschedule",
            Self::Cancel => "cancel",
            Self::Edit => "edit",
            Self::PauseQueue => "pause-queue",
            Self::ResumeQueue => "resume-queue",
            Self::StopGroup => "stop-group",
            Self::ResumeGroup => "resume-group",
            Self::PromoteGroups => "promote-groups",
            Self::PurgeGroup => "purge-group",
            Self::SuspendWorker => "suspend-worker",
            Self::ResumeWorker => "resume-worker",
            Self::StopWorker => "stop-worker",
            Self::FireSchedule => "fire-schedule",
            Self::PauseSchedule => "pause-schedule",
            Self::ResumeSchedule => "resume-schedule",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// As a button says it.
    const fn verb(self) -> &'static str {
        match self {
            Self::Requeue => "Requeue",
            Self::DeleteDeadLetter => "Delete",
            Self::RunNow => "Run now",
            Self::Reschedule => "Set the time",
            Self::Cancel => "Cancel",
            Self::Edit => "Edit the payload",
            Self::PauseQueue => "Pause the queue",
            Self::ResumeQueue => "Resume the queue",
            Self::StopGroup => "Stop the group",
            Self::ResumeGroup => "Resume the group",
            Self::PromoteGroups => "Promote",
            Self::PurgeGroup => "Delete what is parked",
            Self::SuspendWorker => "Suspend",
            Self::ResumeWorker => "Resume",
            Self::StopWorker => "Stop",
            Self::FireSchedule => "Send now",
            Self::PauseSchedule => "Pause the schedule",
            Self::ResumeSchedule => "Resume the schedule",
        }
    }

    /// Before what it is done to.
    const fn verb_of_all(self) -> &'static str {
        match self {
            Self::Reschedule => "Set the time of",
            one => one.verb(),
        }
    }

    /// Whether it can't be undone.
    const fn destroys(self) -> bool {
        matches!(
            self,
            Self::DeleteDeadLetter
                | Self::Cancel
                | Self::StopWorker
                | Self::Edit
                | Self::PurgeGroup
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

type Decide = dyn Fn(&Parts, Action) -> bool + Send + Sync;
type Operator = dyn Fn(&Parts) -> String + Send + Sync;

/// Decides what a request may do, and says whose it is.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) decide: Arc<Decide>,
    pub(crate) operator: Arc<Operator>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            decide: Arc::new(|_, _| false),
            operator: Arc::new(|_| "unknown".to_owned()),
        }
    }
}

/// The actions that a request may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Allowed(u32);

impl Allowed {
    pub(crate) fn of(rules: Option<&Rules>, request: &Parts) -> Self {
        let Some(rules) = rules else {
            return Self::default();
        };
        let allowed = Action::ALL.into_iter().enumerate();
        let allowed = allowed.filter(|(_, action)| (rules.decide)(request, *action));
        Self(allowed.fold(0, |bits, (place, _)| bits | 1 << place))
    }

    pub(crate) fn has(self, action: Action) -> bool {
        let place = Action::ALL.into_iter().position(|other| other == action);
        place.is_some_and(|place| self.0 & 1 << place != 0)
    }

    pub(crate) fn any(self) -> bool {
        self.0 != 0
    }

    /// For the key of a shared answer.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }
}

/// What an action is for: one thing, or all that a search finds.
#[derive(Debug, Clone)]
struct Target {
    action: Action,
    values: HashMap<String, String>,
}

impl Target {
    fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", |value| value.trim())
    }

    fn is_all(&self) -> bool {
        self.value("all") == "1"
    }

    /// The view of what it is for.
    fn path(&self) -> Vec<String> {
        let [queue, message, worker, schedule] =
            ["queue", "message", "worker", "schedule"].map(|name| self.value(name));
        let path: &[&str] = match self.action {
            Action::SuspendWorker | Action::ResumeWorker | Action::StopWorker => {
                &["workers", worker]
            }
            Action::FireSchedule | Action::PauseSchedule | Action::ResumeSchedule => {
                &["schedules", schedule]
            }
            _ if message.is_empty() => &["queues", queue],
            _ => &["queues", queue, "messages", message],
        };
        path.iter().map(|part| (*part).to_owned()).collect()
    }

    /// What it is for, in words.
    fn what(&self) -> String {
        let queue = self.value("queue");
        match self.action {
            Action::PauseQueue | Action::ResumeQueue => format!("queue {queue}"),
            Action::PromoteGroups => format!("all groups of queue {queue}"),
            Action::StopGroup | Action::ResumeGroup | Action::PurgeGroup => {
                format!("group {} of queue {queue}", self.value("group"))
            }
            Action::SuspendWorker | Action::ResumeWorker | Action::StopWorker => {
                format!("worker {}", self.value("worker"))
            }
            Action::FireSchedule | Action::PauseSchedule | Action::ResumeSchedule => {
                format!("schedule {}", self.value("schedule"))
            }
            _ if self.is_all() => format!("all that match in queue {queue}"),
            _ => format!("message {} of queue {queue}", self.value("message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_found_by_its_name_and_allowed_by_itself() {
        let (parts, ()) = axum::http::Request::new(()).into_parts();
        for action in Action::ALL {
            assert_eq!(Action::named(action.as_str()), Some(action));
            let rules = Rules {
                decide: Arc::new(move |_, asked| asked == action),
                operator: Arc::new(|_| String::new()),
            };
            let allowed = Allowed::of(Some(&rules), &parts);
            let allowed = Action::ALL
                .into_iter()
                .filter(|action| allowed.has(*action));
            assert_eq!(allowed.collect::<Vec<_>>(), [action]);
        }
        assert!(!Allowed::of(None, &parts).any());
        assert_eq!(Action::named("drop-table"), None);
    }
}
