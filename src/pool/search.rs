//! Waiting for a connection, and what is done meanwhile: finding out whether the server can be reached, and which host of
//! several to move to.

use std::{
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection, Postgres, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    connection::Connections,
    hosts::Hosts,
    server::{PING_TIMEOUT, no_answer},
};
use crate::error::{Error, Result};

/// A wait for a connection that is longer than this has a reason: the server is away, or the pool too small.
const SUSPICIOUS_WAIT: Duration = Duration::from_secs(1);
/// Pause between two searches of a call that waits for a host.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// Why the server is probed.
pub(super) enum Suspicion {
    /// A call waits for a connection.
    Wait,
    /// A connection broke.
    Lost(Error),
    /// The server has become read-only, or its notifications have ended.
    Changed,
}

impl Connections {
    /// Waits for a connection. If that takes long, finds out whether the server is away or the pool too small, which the
    /// pool doesn't say; and whether another host is to be used.
    pub(super) async fn explained<A>(
        &self,
        acquire: impl Fn() -> A,
    ) -> Result<PoolConnection<Postgres>>
    where
        A: Future<Output = Result<PoolConnection<Postgres>>>,
    {
        let before = self.0.server.outages();
        let acquired = match &self.0.hosts {
            None => self.acquired(acquire()).await,
            // Boxed: it is large, and would be part of every call.
            Some(hosts) => Box::pin(self.acquired_of(hosts, acquire)).await,
        };
        let explain = |error| {
            let options = self.0.pool.connect_options();
            self.0.server.explain(&options, error, before)
        };
        acquired.map_err(explain)
    }

    fn suspicious_wait(&self) -> Duration {
        SUSPICIOUS_WAIT.min(self.acquire_timeout() / 2)
    }

    async fn acquired(
        &self,
        acquiring: impl Future<Output = Result<PoolConnection<Postgres>>>,
    ) -> Result<PoolConnection<Postgres>> {
        let mut acquiring = pin!(acquiring);
        match timeout(self.suspicious_wait(), acquiring.as_mut()).await {
            Ok(acquired) => acquired,
            Err(_) => {
                // Boxed: it is large, and would be part of every call.
                let probing = Box::pin(self.probe(Suspicion::Wait));
                tokio::select! {
                    biased;
                    acquired = acquiring.as_mut() => acquired,
                    _ = probing => acquiring.await,
                }
            }
        }
    }

    /// Searches until a host is found. What waits for another one then begins again.
    async fn acquired_of<A>(
        &self,
        hosts: &Hosts,
        acquire: impl Fn() -> A,
    ) -> Result<PoolConnection<Postgres>>
    where
        A: Future<Output = Result<PoolConnection<Postgres>>>,
    {
        let after = self.acquire_timeout();
        let ends_at = Instant::now() + after;
        let mut moves = hosts.moves();
        let mut acquiring = pin!(acquire());
        let is_away = self.0.server.outage() != 0;
        let suspicious = if is_away {
            Duration::ZERO
        } else {
            self.suspicious_wait()
        };
        let first = timeout(suspicious, acquiring.as_mut()).await;
        match first {
            Ok(Err(error)) if is_of_host(&error) => acquiring.set(acquire()),
            Ok(acquired) => return acquired,
            Err(_) => {}
        }
        let searched = async {
            let mut searching = Box::pin(self.search_until_found());
            loop {
                tokio::select! {
                    biased;
                    acquired = acquiring.as_mut() => match acquired {
                        Err(error) if is_of_host(&error) => {
                            let pause = timeout(SEARCH_INTERVAL, hosts.moved(moves));
                            tokio::select! {
                                _ = pause => {}
                                () = &mut searching => {}
                            }
                        }
                        acquired => return acquired,
                    },
                    () = hosts.moved(moves) => {}
                    () = &mut searching => {}
                }
                moves = hosts.moves();
                acquiring.set(acquire());
            }
        };
        timeout_at(ends_at, searched)
            .await
            .unwrap_or(Err(Error::AcquireTimeout { after }))
    }

    /// Never ends: the caller waits for its connection meanwhile.
    async fn search_until_found(&self) {
        while !self.probe(Suspicion::Wait).await {
            sleep(SEARCH_INTERVAL).await;
        }
        pending().await
    }

    /// How often the store has moved from one host to another.
    pub(super) fn moves(&self) -> u64 {
        self.0.hosts.as_ref().map_or(0, |hosts| hosts.moves())
    }

    /// Waits for a move beyond this number of them.
    pub(super) async fn moved(&self, before: u64) {
        match &self.0.hosts {
            None => pending().await,
            Some(hosts) => hosts.moved(before).await,
        }
    }

    pub(super) fn has_several_hosts(&self) -> bool {
        self.0.hosts.is_some()
    }

    /// Finds out whether the server can be reached, and moves to another host if that is the one to be used: makes
    /// connections outside of the pool, unless another call is doing so. Returns whether it has found a server.
    pub(super) async fn probe(&self, why: Suspicion) -> bool {
        let server = &self.0.server;
        let Some(_guard) = server.begin_probe() else {
            return false;
        };
        let outage = server.outage();
        let options = self.0.pool.connect_options();
        let found = match &self.0.hosts {
            None => match timeout(PING_TIMEOUT, options.connect()).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(Error::Connect(Arc::new(error))),
                Err(_) => Err(no_answer()),
            },
            Some(hosts) => match hosts
                .search(outage != 0 || !matches!(why, Suspicion::Wait))
                .await
            {
                Ok(chosen) => {
                    self.move_to(hosts, chosen.place, outage);
                    Ok(chosen.candidate.connection)
                }
                Err(none) => Err(Error::of_hosts(none)),
            },
        };
        match found {
            Ok(connection) => {
                server.answered(outage);
                if let Suspicion::Lost(error) = why
                    && outage == 0
                {
                    server.lost_one(&options, &error);
                }
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
                true
            }
            Err(error) => {
                server.failed(&options, &error);
                false
            }
        }
    }

    fn move_to(&self, hosts: &Hosts, place: usize, outage: u64) {
        let Some(moved) = hosts.move_to(place) else {
            return;
        };
        self.0.pool.set_connect_options(hosts.options(place));
        self.reserve().set_connect_options(hosts.options(place));
        hosts.announce_move();
        self.0.server.moved(outage, &moved);
    }

    /// A connection broke, or a statement was not answered in time. Whether that is an outage, a new connection tells.
    pub(super) fn connection_lost(&self, error: &Error) {
        if self.0.server.outage() != 0 && self.0.hosts.is_none() {
            let options = self.0.pool.connect_options();
            return self.0.server.failed(&options, error);
        }
        self.probe_later(Suspicion::Lost(error.clone()));
    }

    /// Another host may be the primary by now.
    pub(super) fn became_read_only(&self) {
        if self.has_several_hosts() {
            self.probe_later(Suspicion::Changed);
        }
    }

    fn probe_later(&self, why: Suspicion) {
        if let Ok(runtime) = Handle::try_current() {
            let connections = self.clone();
            runtime.spawn(async move { connections.probe(why).await });
        }
    }
}

/// Whether another host may be reached.
fn is_of_host(error: &Error) -> bool {
    matches!(error, Error::Connect(_)) && error.is_retryable()
}
