//! sqlxmq: it has no call for many at once, so a batch is single ones in one transaction. Its documentation
//! asks to copy its migrations, and so they are here.

use std::error::Error;

use sqlx08::PgPool;
use sqlxmq::{CurrentJob, JobRegistry};

use crate::{
    Outcome, Payload, handled,
    peer::{Doing, For, HANDLERS, Peer, Running, pool08},
};

const MIGRATIONS: [&str; 5] = [
    include_str!("../../sqlxmq/20210316025847_setup.up.sql"),
    include_str!("../../sqlxmq/20210921115907_clear.up.sql"),
    include_str!("../../sqlxmq/20211013151757_fix_mq_latest_message.up.sql"),
    include_str!("../../sqlxmq/20220208120856_fix_concurrent_poll.up.sql"),
    include_str!("../../sqlxmq/20220713122907_fix-clear_all-keep-nil-message.up.sql"),
];

#[sqlxmq::job(channel_name = "bench")]
async fn handler(mut job: CurrentJob) -> Result<(), Box<dyn Error + Send + Sync>> {
    handled::note(&job.json()?.ok_or("no payload")?);
    job.complete().await?;
    Ok(())
}

pub(crate) struct Sqlxmq(PgPool);

impl Sqlxmq {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let pool = pool08(url).await?;
        if install {
            for migration in MIGRATIONS {
                sqlx08::raw_sql(migration).execute(&pool).await?;
            }
        }
        Ok(Self(pool))
    }
}

impl Peer for Sqlxmq {
    fn name(&self) -> &'static str {
        "sqlxmq 0.6"
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            let mut job = handler.builder();
            job.set_json(&payload)?.spawn(&self.0).await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            let mut tx = self.0.begin().await?;
            for payload in payloads {
                let mut job = handler.builder();
                job.set_json(&payload)?.spawn(&mut *tx).await?;
            }
            tx.commit().await?;
            Ok(())
        })
    }

    fn handle(&self, _: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let mut runner = JobRegistry::new(&[handler])
                .runner(&self.0)
                // It fetches when there are fewer than the first, up to the second.
                .set_concurrency(HANDLERS, 2 * HANDLERS)
                .run()
                .await?;
            Ok(Running::spawn(async move |stopped| {
                let _ = stopped.await;
                runner.stop().await;
                Ok(())
            }))
        })
    }
}
