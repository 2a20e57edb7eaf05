//! Tracks whether a store's server can be reached. An outage affects every call, and is reported once per store.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::postgres::PgConnectOptions;

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

/// A move from one host to another, by their names.
pub(super) struct Moved {
    pub(super) from: String,
    pub(super) to: String,
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
        if let Some(away) = self.end(outage) {
            telemetry::server_back(&away.server, away.since);
        }
    }

    /// The store has moved to another server, which ends an outage of the one that it has left.
    pub(super) fn moved(&self, outage: u64, moved: &Moved) {
        let away = self.end(outage);
        telemetry::server_changed(&moved.from, &moved.to, away.map(|away| away.since));
    }

    /// Connections that break soon after it are left over.
    fn end(&self, outage: u64) -> Option<Away> {
        let mut state = self.lock();
        // Another call may have reported the next outage meanwhile.
        if self.outage() != outage {
            return None;
        }
        self.outage.store(0, Ordering::Relaxed);
        state.back_at = Some(Instant::now());
        state.away.take()
    }

    /// A connection broke, although the server can be reached.
    pub(super) fn lost_one(&self, options: &PgConnectOptions, error: &Error) {
        let back_at = self.lock().back_at;
        if back_at.is_none_or(|at| at.elapsed() >= LEFT_OVER) {
            telemetry::connection_lost(&server_name(options), error);
        }
    }

    /// A connection could not be made, or one broke during an outage.
    pub(super) fn failed(&self, options: &PgConnectOptions, error: &Error) {
        let now = Instant::now();
        let mut state = self.lock();
        // One of a search says more than that of a single host.
        let is_of_search = |error: &Error| error.no_host().is_some();
        let last_of_search = state.last_error.as_ref().filter(|last| is_of_search(last));
        if state.away.is_none() || last_of_search.is_none() || is_of_search(error) {
            state.last_error = Some(error.clone());
        }
        let Some(away) = &mut state.away else {
            let server = server_name(options);
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

    /// Returns `None` if another call is finding out whether the server can be reached.
    pub(super) fn begin_probe(&self) -> Option<Probing<'_>> {
        let is_free = !self.is_probing.swap(true, Ordering::Relaxed);
        is_free.then(|| Probing(&self.is_probing))
    }
}

/// Whatever ends a probe, the next one can begin.
pub(super) struct Probing<'a>(&'a AtomicBool);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Host, port and database, for events.
pub(crate) fn server_name(options: &PgConnectOptions) -> String {
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

/// The error if the store has moved to another host before there was an answer.
pub(super) fn moved_on() -> Error {
    broken(
        io::ErrorKind::ConnectionReset,
        "the store has moved to another host of its URL",
    )
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
