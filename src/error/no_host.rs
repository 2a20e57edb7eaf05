//! Why a URL that names several hosts leads to none of them.

use std::{fmt, io, sync::Arc, time::Duration};

use super::{Error, GENERAL_REMEDY, connect_remedy, error_chain};

/// No host of a URL can be taken. It is the source of an [`Error::Connect`].
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

    pub(crate) fn into_error(self) -> Error {
        let is_transient = self.hosts.iter().any(|(_, reason)| reason.is_transient());
        let kind = if is_transient {
            io::ErrorKind::NotConnected
        } else {
            io::ErrorKind::InvalidInput
        };
        let error = io::Error::new(kind, self);
        Error::Connect(Arc::new(sqlx::Error::Io(error)))
    }

    /// That of an error, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn remedy(&self) -> &'static str {
        let mut remedies = self.hosts.iter().map(|(_, reason)| match reason {
            Unsuitable::Failed(error) => connect_remedy(error),
            _ => GENERAL_REMEDY,
        });
        let special = remedies.find(|remedy| *remedy != GENERAL_REMEDY);
        let is_up = |reason: &Unsuitable| {
            !matches!(reason, Unsuitable::Failed(_) | Unsuitable::NoAnswer { .. })
        };
        match special {
            Some(remedy) => remedy,
            None if self.hosts.iter().any(|(_, reason)| is_up(reason)) => {
                "none of the URL's hosts accepts writes: promote a standby, or add the primary to the URL"
            }
            None => "check the URL, and that one of its hosts runs and accepts connections",
        }
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
    fn is_transient(&self) -> bool {
        match self {
            Self::Failed(error) => Error::Connect(Arc::clone(error)).is_retryable(),
            _ => true,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn no_host(reasons: impl IntoIterator<Item = Unsuitable>) -> Error {
        let named = ["a:5432/app", "b:5433/app"].map(str::to_owned);
        NoHost::new(named.into_iter().zip(reasons).collect()).into_error()
    }

    fn refused() -> Unsuitable {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        Unsuitable::Failed(Arc::new(sqlx::Error::Io(error)))
    }

    fn invalid() -> Unsuitable {
        Unsuitable::Failed(Arc::new(sqlx::Error::Configuration("a reason".into())))
    }

    #[test]
    fn an_error_names_each_host_and_says_what_to_do() {
        let within = Duration::from_secs(2);
        for (reasons, text) in [
            (
                [refused(), Unsuitable::NoAnswer { within }],
                "can't connect to PostgreSQL; check the URL, and that one of its hosts runs and accepts connections: \
                 error communicating with database: a:5432/app: error communicating with database: connection refused; \
                 b:5433/app: no answer within 2s",
            ),
            (
                [Unsuitable::Standby, Unsuitable::ReadOnly],
                "can't connect to PostgreSQL; none of the URL's hosts accepts writes: promote a standby, or add the \
                 primary to the URL: error communicating with database: a:5432/app: it is a standby; b:5433/app: its \
                 transactions are read-only",
            ),
        ] {
            assert_eq!(error_chain(&no_host(reasons)), text);
        }
    }

    #[test]
    fn trying_again_helps_unless_every_host_refuses_for_good() {
        assert!(no_host([refused(), invalid()]).is_retryable());
        assert!(no_host([Unsuitable::Standby, invalid()]).is_retryable());
        assert!(!no_host([invalid(), invalid()]).is_retryable());
    }
}
