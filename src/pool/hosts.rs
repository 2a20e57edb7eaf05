//! The hosts of a URL that names several: which of them a store is connected to, and the search for the one that it
//! should be connected to.
//!
//! A server doesn't know that another one was promoted. So a host must say that it accepts writes, and of two that do,
//! the one on the newer timeline is taken.

use std::{
    cmp::Reverse,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::server::{Moved, PING_TIMEOUT, server_name};
use crate::{
    error::{Error, NoHost, Result, Unsuitable},
    postgres::session::{self, Timeline},
};

/// How long a search waits for the other hosts once it has found one: they may be on a newer timeline.
const GRACE: Duration = Duration::from_millis(500);
/// How long a search that is about the current host asks that one only.
const HEAD_START: Duration = Duration::from_millis(500);

/// What a session must be able to do, as libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionAttributes {
    Any,
    Primary,
    ReadWrite,
}

/// A host that can be taken, with what was made to find that out.
pub(crate) struct Candidate<T> {
    pub(crate) connection: T,
    pub(crate) timeline: Option<Timeline>,
}

/// The host that was taken.
pub(crate) struct Chosen<T> {
    /// Its place in the list.
    pub(crate) place: usize,
    pub(crate) candidate: Candidate<T>,
}

pub(crate) struct Hosts {
    /// In the URL's order.
    each: Vec<PgConnectOptions>,
    attributes: SessionAttributes,
    /// Never held across an await.
    state: Mutex<State>,
    /// Number of moves from one host to another.
    moves: watch::Sender<u64>,
}

struct State {
    /// The place of the host that the store is connected to.
    current: usize,
    /// When the pools were led there.
    since: Instant,
    /// The newest timeline that there was.
    newest: Option<Timeline>,
}

impl SessionAttributes {
    /// Asks a session. With [`Any`](Self::Any) there is nothing to ask.
    pub(crate) async fn check(
        self,
        connection: &mut PgConnection,
    ) -> Result<Option<Timeline>, Unsuitable> {
        if self == Self::Any {
            return Ok(None);
        }
        self.admit(connection).await?;
        // Some services don't show it.
        Ok(session::timeline(connection).await.ok())
    }

    async fn admit(self, connection: &mut PgConnection) -> Result<(), Unsuitable> {
        if self == Self::Any {
            return Ok(());
        }
        let writability = session::writability(connection).await;
        let writability = writability.map_err(|error| match error {
            Error::ConnectionLost(error) | Error::Database(error) => Unsuitable::Failed(error),
            other => Unsuitable::Failed(Arc::new(sqlx::Error::Protocol(other.to_string()))),
        })?;
        if writability.is_standby {
            Err(Unsuitable::Standby)
        } else if self == Self::ReadWrite && writability.is_read_only {
            Err(Unsuitable::ReadOnly)
        } else {
            Ok(())
        }
    }
}

impl Hosts {
    /// Connected to the host at this place.
    pub(crate) fn new(
        each: Vec<PgConnectOptions>,
        attributes: SessionAttributes,
        place: usize,
        timeline: Option<Timeline>,
    ) -> Self {
        Self {
            each,
            attributes,
            state: Mutex::new(State {
                current: place,
                since: Instant::now(),
                newest: timeline,
            }),
            moves: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self, place: usize) -> PgConnectOptions {
        self.each[place].clone()
    }

    pub(super) fn moves(&self) -> u64 {
        *self.moves.borrow()
    }

    /// Waits for a move beyond this number of them.
    pub(super) async fn moved(&self, before: u64) {
        let mut moves = self.moves.subscribe();
        // The sender is here, so there is no error.
        let _ = moves.wait_for(|moves| *moves != before).await;
    }

    /// Whether a connection of this age leads to a host that was left.
    pub(super) fn have_moved_since(&self, age: Duration) -> bool {
        self.moves() > 0 && self.lock().since.elapsed() < age
    }

    /// The options of the host that is to be used now. Asks none if there is only one, and no attributes.
    pub(super) async fn choose(self: &Arc<Self>) -> Result<PgConnectOptions> {
        if self.each.len() == 1 && self.attributes == SessionAttributes::Any {
            return Ok(self.options(0));
        }
        let chosen = self.search(true).await.map_err(Error::of_hosts)?;
        self.move_to(chosen.place);
        Ok(self.options(chosen.place))
    }

    /// Refuses a connection of the pool to a server that doesn't have the attributes any more.
    pub(crate) async fn admit(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let admitted = self.attributes.admit(connection).await;
        admitted.map_err(|why| match why {
            Unsuitable::Failed(error) => sqlx::Error::Protocol(error.to_string()),
            why => sqlx::Error::Configuration(why.to_string().into()),
        })
    }

    /// Makes a connection to each host, and takes the one that has the attributes; if several do, that on the newest
    /// timeline, and then the current one. Unless `everywhere`, the others are asked only if the current one doesn't
    /// answer.
    pub(super) async fn search(
        self: &Arc<Self>,
        everywhere: bool,
    ) -> Result<Chosen<PgConnection>, NoHost> {
        let current = self.lock().current;
        if !everywhere && let Ok(Ok(candidate)) = timeout(HEAD_START, self.ask(current)).await {
            return Ok(Chosen {
                place: current,
                candidate,
            });
        }
        let others = (0..self.each.len()).filter(|place| *place != current);
        let order: Vec<_> = [current].into_iter().chain(others).collect();
        let attempts = order.iter().map(|place| {
            let (hosts, place) = (Arc::clone(self), *place);
            async move { hosts.ask(place).await }
        });
        match first_suitable(attempts).await {
            Ok(mut chosen) => {
                chosen.place = order[chosen.place];
                let mut state = self.lock();
                state.newest = chosen.candidate.timeline.or(state.newest);
                drop(state);
                Ok(chosen)
            }
            Err(reasons) => {
                let mut reasons: Vec<_> = order.into_iter().zip(reasons).collect();
                reasons.sort_by_key(|(place, _)| *place);
                let named = |(place, reason): (usize, _)| (server_name(&self.each[place]), reason);
                Err(NoHost::new(reasons.into_iter().map(named).collect()))
            }
        }
    }

    async fn ask(&self, place: usize) -> Result<Candidate<PgConnection>, Unsuitable> {
        let asking = async {
            let connected = self.each[place].connect().await;
            let mut connection = connected.map_err(|error| Unsuitable::Failed(Arc::new(error)))?;
            let timeline = self.attributes.check(&mut connection).await?;
            self.refuse_former(timeline)?;
            Ok(Candidate {
                connection,
                timeline,
            })
        };
        let within = PING_TIMEOUT;
        timeout(within, asking)
            .await
            .unwrap_or(Err(Unsuitable::NoAnswer { within }))
    }

    /// Refuses a primary that another one has replaced, and that still accepts writes.
    fn refuse_former(&self, timeline: Option<Timeline>) -> Result<(), Unsuitable> {
        match (timeline, self.lock().newest) {
            (Some(timeline), Some(newest))
                if timeline.system == newest.system && timeline.number < newest.number =>
            {
                Err(Unsuitable::Former {
                    timeline: timeline.number,
                    newest: newest.number,
                })
            }
            _ => Ok(()),
        }
    }

    /// The store goes on with this host. Returns `None` if it is the current one.
    pub(super) fn move_to(&self, place: usize) -> Option<Moved> {
        let mut state = self.lock();
        if state.current == place {
            return None;
        }
        let from = server_name(&self.each[state.current]);
        state.current = place;
        Some(Moved {
            from,
            to: server_name(&self.each[place]),
        })
    }

    /// After the pools have the new host: calls that wait for the old one start again.
    pub(super) fn announce_move(&self) {
        self.lock().since = Instant::now();
        self.moves.send_modify(|moves| *moves += 1);
    }
}

/// Makes all attempts at the same time. The first one that succeeds ends them, after [`GRACE`].
///
/// # Errors
/// The reason of each, in their order.
pub(crate) async fn first_suitable<T, A>(
    attempts: impl IntoIterator<Item = A>,
) -> Result<Chosen<T>, Vec<Unsuitable>>
where
    T: Send + 'static,
    A: Future<Output = Result<Candidate<T>, Unsuitable>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut reasons = Vec::new();
    for (place, attempt) in attempts.into_iter().enumerate() {
        // Unless it ends with its runtime.
        reasons.push(Unsuitable::NoAnswer {
            within: Duration::ZERO,
        });
        running.spawn(async move { (place, attempt.await) });
    }
    let mut chosen: Option<Chosen<T>> = None;
    let mut ends_at = None;
    loop {
        let ended = match ends_at {
            None => running.join_next().await,
            Some(at) => timeout_at(at, running.join_next()).await.unwrap_or(None),
        };
        match ended {
            None => return chosen.ok_or(reasons),
            Some(Err(_)) => {}
            Some(Ok((place, Err(reason)))) => reasons[place] = reason,
            Some(Ok((place, Ok(candidate)))) => {
                ends_at.get_or_insert_with(|| Instant::now() + GRACE);
                let other = Chosen { place, candidate };
                if chosen
                    .as_ref()
                    .is_none_or(|chosen| other.is_better_than(chosen))
                {
                    chosen = Some(other);
                }
            }
        }
    }
}

impl<T> Chosen<T> {
    fn is_better_than(&self, other: &Self) -> bool {
        let by_place = self.place < other.place;
        match (self.candidate.timeline, other.candidate.timeline) {
            (Some(this), Some(that)) if this.system == that.system => {
                (Reverse(this.number), self.place) < (Reverse(that.number), other.place)
            }
            _ => by_place,
        }
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("hosts", &self.each.len())
            .field("current", &self.lock().current)
            .field("moves", &self.moves())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn candidate(number: i32) -> Result<Candidate<()>, Unsuitable> {
        Ok(Candidate {
            connection: (),
            timeline: Some(Timeline { system: 7, number }),
        })
    }

    async fn chosen(
        outcomes: impl IntoIterator<Item = Result<Candidate<()>, Unsuitable>>,
    ) -> Result<usize, usize> {
        let attempts = outcomes.into_iter().map(ready);
        let chosen = first_suitable(attempts).await;
        chosen
            .map(|chosen| chosen.place)
            .map_err(|reasons| reasons.len())
    }

    #[tokio::test]
    async fn of_hosts_that_accept_writes_the_one_on_the_newest_timeline_is_taken() {
        let standby = || Err(Unsuitable::Standby);
        assert_eq!(chosen([standby(), candidate(1)]).await, Ok(1));
        assert_eq!(chosen([candidate(1), candidate(2)]).await, Ok(1));
        assert_eq!(chosen([candidate(2), candidate(1)]).await, Ok(0));
        assert_eq!(chosen([standby(), candidate(1), candidate(1)]).await, Ok(1));
        assert_eq!(chosen([standby(), standby()]).await, Err(2));
        // Of another cluster.
        let mut other = candidate(1);
        if let Ok(Candidate {
            timeline: Some(timeline),
            ..
        }) = &mut other
        {
            timeline.system = 8;
        }
        assert_eq!(chosen([other, candidate(2)]).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_hangs_holds_up_no_other() {
        let hosts = [None, Some(candidate(1))];
        let attempts = hosts.into_iter().map(|outcome| async move {
            match outcome {
                None => pending().await,
                Some(outcome) => outcome,
            }
        });
        let started = Instant::now();
        let chosen = first_suitable(attempts).await.expect("one is suitable");
        assert_eq!((chosen.place, started.elapsed()), (1, GRACE));
    }

    #[test]
    fn a_former_primary_is_refused_once_a_newer_one_was_seen() {
        let at = |number| Some(Timeline { system: 7, number });
        let each = vec![PgConnectOptions::new(), PgConnectOptions::new()];
        let hosts = Hosts::new(each, SessionAttributes::ReadWrite, 0, at(2));
        assert!(hosts.refuse_former(at(1)).is_err());
        assert!(hosts.refuse_former(at(2)).is_ok());
        assert!(hosts.refuse_former(at(3)).is_ok());
        assert!(hosts.refuse_former(None).is_ok());
    }
}
