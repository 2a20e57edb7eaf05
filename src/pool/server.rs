//! Tracks whether a store's server can be reached. An outage affects every call, and is reported once per store.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions as _, Connection, postgres::PgConnectOptions};
use tokio::{runtime::Handle, time::timeout};

use crate::{error::Error, telemetry};

pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// After the first report of an outage, the next one follows after this time, and then at twice the interval each time.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// For so long after an outage, connections that it broke are found. The pool tests them before their use only if they
/// were idle for some seconds.
const LEFT_OVER: Duration = Duration::from_secs(30);
const MAX_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Whether a store's server can be reached, as its calls find out.
#[derive(Default)]
pub(crate) struct ServerState {
    /// The number of the outage, from 1; 0 while the server can be reached.
    outage: AtomicU64,
    /// How many outages there have been.
    outages: AtomicU64,
    /// Never held across an await.
    state: Mutex<State>,
    is_probing: AtomicBool,
}

#[derive(Default)]
struct State {
    away: Option<Away>,
    /// When the last outage ended.
    back_at: Option<Instant>,
    /// The last error of the last outage.
    last_error: Option<Error>,
}

/// The outages until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outages {
    now: u64,
    all: u64,
}

struct Away {
    since: Instant,
    server: String,
    report_at: Instant,
    interval: Duration,
}

impl ServerState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outage that there is at the moment, to be compared after the answer of a statement.
    pub(super) fn outage(&self) -> u64 {
        self.outage.load(Ordering::Relaxed)
    }

    /// The outages until now, to be compared after a wait.
    pub(super) fn outages(&self) -> Outages {
        Outages {
            now: self.outage(),
            all: self.outages.load(Ordering::Relaxed),
        }
    }

    /// The server has answered a statement. If that was sent during the outage, it is over.
    pub(super) fn answered(&self, outage: u64) {
        if outage == 0 || self.outage() != outage {
            return;
        }
        let over = {
            let mut state = self.lock();
            // Another call may have reported the next outage meanwhile.
            if self.outage() != outage {
                return;
            }
            self.outage.store(0, Ordering::Relaxed);
            state.back_at = Some(Instant::now());
            state.away.take()
        };
        if let Some(away) = over {
            telemetry::server_back(&away.server, away.since);
        }
    }

    /// A connection broke, or a statement was not answered in time. Whether that is an outage, a new connection tells.
    pub(super) fn connection_lost(
        self: &Arc<Self>,
        options: &Arc<PgConnectOptions>,
        error: &Error,
    ) {
        if self.outage() != 0 {
            return self.failed(options, error);
        }
        if let Ok(runtime) = Handle::try_current() {
            let (server, options) = (Arc::clone(self), Arc::clone(options));
            let lost = Some(error.clone());
            runtime.spawn(async move { server.probe(options, lost).await });
        }
    }

    /// A connection could not be made, or one broke during an outage.
    pub(super) fn failed(&self, options: &PgConnectOptions, error: &Error) {
        let now = Instant::now();
        let mut state = self.lock();
        state.last_error = Some(error.clone());
        let Some(away) = &mut state.away else {
            let server = name(options);
            state.away = Some(Away {
                since: now,
                server: server.clone(),
                report_at: now + FIRST_INTERVAL,
                interval: FIRST_INTERVAL,
            });
            let outage = self.outages.fetch_add(1, Ordering::Relaxed) + 1;
            self.outage.store(outage, Ordering::Relaxed);
            drop(state);
            return telemetry::server_away(&server, error);
        };
        if away.report_at <= now {
            away.interval = (away.interval * 2).min(MAX_INTERVAL);
            away.report_at = now + away.interval;
            let (server, since) = (away.server.clone(), away.since);
            drop(state);
            telemetry::server_still_away(&server, since, error);
        }
    }

    /// Why no connection became free in time: there was an outage in that time, or all connections are in use, which is
    /// `error`.
    pub(super) fn explain(
        &self,
        options: &PgConnectOptions,
        error: Error,
        before: Outages,
    ) -> Error {
        let is_away = self.outage() != 0;
        let error = match error {
            Error::AcquireTimeout { .. } if is_away || self.outages() != before => {
                match self.lock().last_error.clone() {
                    Some(Error::Connect(why) | Error::ConnectionLost(why)) => Error::Connect(why),
                    _ => error,
                }
            }
            Error::Connect(_) => {
                self.failed(options, &error);
                return error;
            }
            error => error,
        };
        if is_away && matches!(error, Error::Connect(_)) {
            self.failed(options, &error);
        }
        error
    }

    /// Finds out whether the server can be reached: makes a connection outside of the pool, unless another call is doing
    /// so. `lost` is the error of a connection that broke.
    pub(super) async fn probe(&self, options: Arc<PgConnectOptions>, lost: Option<Error>) {
        if self.is_probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let _guard = Probing(&self.is_probing);
        let outage = self.outage();
        match timeout(PING_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                self.answered(outage);
                let back_at = self.lock().back_at;
                let is_left_over = back_at.is_some_and(|at| at.elapsed() < LEFT_OVER);
                if let Some(error) = lost.filter(|_| outage == 0 && !is_left_over) {
                    telemetry::connection_lost(&name(&options), &error);
                }
                let _ = timeout(PING_TIMEOUT, connection.close()).await;
            }
            Ok(Err(error)) => self.failed(&options, &Error::Connect(Arc::new(error))),
            Err(_) => self.failed(&options, &no_answer()),
        }
    }
}

/// Whatever ends a probe, the next one can begin.
struct Probing<'a>(&'a AtomicBool);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Host, port and database, for events.
pub(super) fn name(options: &PgConnectOptions) -> String {
    let database = options
        .get_database()
        .unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(folder) => format!("{}/{database}", folder.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState")
            .field("outage", &self.outage())
            .finish_non_exhaustive()
    }
}

/// The error if the server did not answer in time.
pub(crate) fn no_answer() -> Error {
    broken(io::ErrorKind::TimedOut, "the server did not answer")
}

/// The error if the runtime that ran the call has ended, and its tasks with it.
pub(crate) fn runtime_ended() -> Error {
    broken(
        io::ErrorKind::Interrupted,
        "the tokio runtime that was sending has ended",
    )
}

fn broken(kind: io::ErrorKind, reason: &'static str) -> Error {
    Error::ConnectionLost(Arc::new(sqlx::Error::Io(io::Error::new(kind, reason))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_an_outage_come_at_growing_intervals_and_end_with_it() {
        let (server, options) = (ServerState::default(), PgConnectOptions::new());
        let interval = || server.lock().away.as_ref().map(|away| away.interval);
        assert_eq!(interval(), None);
        server.failed(&options, &no_answer());
        let mut intervals = Vec::new();
        for _ in 0..9 {
            intervals.extend(interval().map(|interval| interval.as_secs()));
            // Not before it is due.
            server.failed(&options, &no_answer());
            assert_eq!(
                interval().map(|interval| interval.as_secs()),
                intervals.last().copied()
            );
            if let Some(away) = &mut server.lock().away {
                assert!(away.report_at > Instant::now());
                away.report_at = Instant::now();
            }
            server.failed(&options, &no_answer());
        }
        assert_eq!(intervals, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        // An answer to what was sent before the outage proves nothing.
        server.answered(0);
        assert!(interval().is_some());
        server.answered(server.outage());
        assert_eq!((interval(), server.outage()), (None, 0));
    }
}
