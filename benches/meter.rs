//! What a round costs besides time: WAL, commits, and processor time on both sides. Read before and after, over a
//! separate connection. Shared with `benches/peers`.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use sqlx::{PgPool, Row, postgres::PgPoolOptions};

use crate::Outcome;

pub(crate) struct Meter {
    pool: PgPool,
    /// How long a commit waits for the disk, once it was measured.
    pub(crate) commit: Duration,
}

impl Meter {
    pub(crate) async fn new(url: &str) -> Outcome<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect(url)
            .await?;
        let commit = Duration::ZERO;
        Ok(Self { pool, commit })
    }

    pub(crate) async fn read(&self) -> Outcome<Reading> {
        // The statistics views are up to a second late. The next transaction id is not, and counts the transactions
        // that wrote something.
        let row = sqlx::query(
            "select (pg_current_wal_insert_lsn() - '0/0')::bigint as wal,
                 pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next,
                 array(select pid from pg_stat_activity where pid <> pg_backend_pid()) as processes",
        )
        .fetch_one(&self.pool)
        .await?;
        let processes: Vec<i32> = row.get("processes");
        let server = processes.into_iter().filter_map(|process| {
            let folder = format!("/proc/{process}");
            Some((process, on_processor(Path::new(&folder))?))
        });
        Ok(Reading {
            wal: row.get("wal"),
            transactions: row.get("next"),
            server: server.collect(),
            client: tasks(),
        })
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

pub(crate) struct Reading {
    wal: i64,
    transactions: i64,
    /// Nanoseconds of each server process; empty if the server runs on another machine.
    server: HashMap<i32, u64>,
    client: Option<u64>,
}

/// The difference between two readings, or the sum of several such.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wal: i64,
    pub(crate) transactions: i64,
    pub(crate) server: Duration,
    pub(crate) client: Duration,
}

impl Reading {
    pub(crate) fn until(&self, later: &Self) -> Cost {
        let server = later
            .server
            .iter()
            .map(|(process, now)| now - self.server.get(process).unwrap_or(&0).min(now))
            .sum();
        let client = later
            .client
            .zip(self.client)
            .map_or(0, |(b, a)| b - a.min(b));
        Cost {
            wal: later.wal - self.wal,
            transactions: later.transactions - self.transactions,
            server: Duration::from_nanos(server),
            client: Duration::from_nanos(client),
        }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.wal += other.wal;
        self.transactions += other.transactions;
        self.server += other.server;
        self.client += other.client;
    }
}

/// Processor time of all threads of this process so far; only known on Linux.
fn tasks() -> Option<u64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    Some(tasks.filter_map(|task| on_processor(&task.path())).sum())
}

/// Nanoseconds that a thread has been running.
fn on_processor(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}
