//! The time at which messages become visible.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{error::Result, message::Visible};

/// When messages that are enqueued now become visible, by the database's clock.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    visible: Visible,
) -> Result<DateTime<Utc>> {
    let times = visible.times();
    let time = sqlx::query_scalar!(
        r#"
        select greatest(
            $1::timestamptz, statement_timestamp() + $2::bigint * interval '1 microsecond'
        ) as "time!"
        "#,
        times.not_before,
        times.delay,
    )
    .fetch_one(connection)
    .await?;
    Ok(time)
}
