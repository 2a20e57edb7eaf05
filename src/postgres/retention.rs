//! Deletes what is older than a queue keeps it. The statements are in a function of the schema, which has its owner's
//! rights.

use sqlx::PgConnection;

use crate::{error::Result, queue::QueueName};

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    pub(crate) archived: u64,
    pub(crate) dead: u64,
}

/// Deletes at most `limit` archived messages, and as many dead letters. Nothing, if another process is at it.
pub(crate) async fn prune(
    connection: &mut PgConnection,
    queue: &QueueName,
    limit: u32,
) -> Result<Pruned> {
    let pruned = sqlx::query!(
        r#"select archived as "archived!", dead as "dead!" from pgqrs.prune($1, $2)"#,
        queue.as_str(),
        i32::try_from(limit).unwrap_or(i32::MAX),
    )
    .fetch_one(connection)
    .await?;
    Ok(Pruned {
        archived: pruned.archived.unsigned_abs(),
        dead: pruned.dead.unsigned_abs(),
    })
}
