//! Why a URL that names several hosts leads to none of them.

use std::{fmt, io, sync::Arc, time::Duration};

use super::chain::error_chain;

/// No host of a URL can be taken. It is in the source of an [`Error::Connect`](super::Error::Connect).
#[derive(Debug, thiserror::Error)]
pub(crate) struct NoHost {
    /// Each host, as `host:port/database`, and its reason.
    hosts: Vec<(String, Unsuitable)>,
}

/// Why a host isn't taken.
#[derive(Debug, Clone)]
pub(crate) enum Unsuitable {
    Failed(Arc<sqlx::Error>),
    NoAnswer {
        within: Duration,
    },
    Standby,
    ReadOnly,
    /// It was the primary before, and another one has been promoted since.
    Former {
        timeline: i32,
        newest: i32,
    },
}

impl NoHost {
    pub(crate) fn new(hosts: Vec<(String, Unsuitable)>) -> Self {
        Self { hosts }
    }

    /// That of an error, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Unsuitable> {
        self.hosts.iter().map(|(_, reason)| reason)
    }
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (host, reason)) in self.hosts.iter().enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{host}: {reason}")?;
        }
        Ok(())
    }
}

impl Unsuitable {
    pub(crate) fn has_answered(&self) -> bool {
        !matches!(self, Self::Failed(_) | Self::NoAnswer { .. })
    }
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.write_str(&error_chain(&**error)),
            Self::NoAnswer { within } => write!(f, "no answer within {within:?}"),
            Self::Standby => f.write_str("it is a standby"),
            Self::ReadOnly => f.write_str("its transactions are read-only"),
            Self::Former { timeline, newest } => write!(
                f,
                "it is a former primary, on timeline {timeline}, and another has been promoted to timeline {newest}"
            ),
        }
    }
}
