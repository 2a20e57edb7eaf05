//! Health: what an operator should know about the database and the queues.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::Admin;
use crate::{
    error::{Error, Result, error_chain},
    health::{Facts, Health, Part, QueueHealth},
    pool::STATEMENT_TIMEOUT,
    postgres::{health, schema, session, stats},
};

impl Admin {
    /// Returns what an operator should know: what holds back vacuum, dead rows, messages that wait for long, workers
    /// that missed their heartbeats, the schema's version, connections in use. Each [`Finding`](crate::Finding) has a
    /// severity and a remedy; [`FindingKind`](crate::FindingKind) has the thresholds. Changes nothing.
    ///
    /// Any role can call it. What the role may not see is missing, and a finding names the grant that it lacks:
    /// `pg_read_all_stats` for what sessions of other roles do, `select` on the server's views if that was revoked, and
    /// [`Access::Operator`](crate::Access::Operator) for queues and workers. A part that can't be read is missing too,
    /// and the finding says why: the tables are locked for more than two seconds, or the statement took more than five,
    /// over many dead rows.
    ///
    /// # Errors
    /// Only if the server can't be reached, or doesn't answer. If the schema isn't installed, that is a finding.
    ///
    /// # Source
    /// Some statements on the server's views, such as `pg_stat_activity`, `pg_prepared_xacts`, `pg_replication_slots`
    /// and the statistics of tables; on `pgqrs.workers`; and that of [`all_queue_stats`](Self::all_queue_stats). None of
    /// them reads a whole queue. Estimates of rows are those of the server.
    ///
    /// # Example
    /// See [`Health`].
    pub async fn health(&self) -> Result<Health> {
        let mut connection = self.store.connection().await?;
        let facts = connection
            .within(STATEMENT_TIMEOUT, async |connection| read(connection).await)
            .await?;
        Ok(Health::from(facts))
    }
}

async fn read(connection: &mut PgConnection) -> Result<Facts> {
    let (now, server) = health::server(connection).await?;
    Ok(Facts {
        now,
        server,
        horizon: part(health::horizon(connection).await)?,
        connections: part(health::connections(connection).await)?,
        tables: health::tables(connection).await?,
        schema: part(
            session::read_briefly(connection, async |connection| {
                schema::version(connection).await
            })
            .await,
        )?,
        queues: part(session::read_briefly(connection, queues).await)?,
        workers: part(session::read_briefly(connection, health::stale_workers).await)?,
    })
}

async fn queues(connection: &mut PgConnection) -> Result<Vec<QueueHealth>> {
    let consumers = health::consumers(connection).await?.into_iter();
    let mut consumers: BTreeMap<_, _> = consumers
        .map(|consumers| (consumers.queue.as_str().to_owned(), consumers))
        .collect();
    let queues = stats::count(connection, None).await?.into_iter();
    let queues = queues.map(|stats| {
        let consumers = consumers.remove(stats.queue.as_str());
        QueueHealth {
            consumers: consumers.as_ref().map_or(0, |found| found.running),
            suspended_consumers: consumers.as_ref().map_or(0, |found| found.suspended),
            settled: consumers.as_ref().map_or(0, |found| found.settled),
            settled_at: consumers.as_ref().and_then(|found| found.settled_at),
            is_paused: consumers.is_some_and(|found| found.is_paused),
            stats,
        }
    });
    Ok(queues.collect())
}

/// A part that was read, or why it is missing. An error of the connection is one of the whole call.
fn part<T>(read: Result<T>) -> Result<Part<T>> {
    match read {
        Ok(part) => Ok(Part::Read(part)),
        Err(error) if error.is_denied() => Ok(Part::Denied),
        Err(Error::NotInstalled | Error::SchemaOutdated) => Ok(Part::Absent),
        Err(error) if error.is_refusal() => Ok(Part::Failed(error_chain(&error))),
        Err(error) => Err(error),
    }
}
