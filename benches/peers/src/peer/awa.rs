//! awa: its default storage, and its COPY for many at once.

use std::time::Duration;

use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage,
    QueueStorageConfig,
};
use serde::{Deserialize, Serialize};
use sqlx08::PgPool;

use crate::{
    Outcome, Payload, handled,
    peer::{Doing, For, HANDLERS, Peer, QUEUE, Running, pool08},
};

#[derive(Debug, Serialize, Deserialize, JobArgs)]
struct Message {
    payload: Payload,
}

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Awa {
    pool: PgPool,
    storage: QueueStorage,
}

fn options() -> InsertOpts {
    InsertOpts {
        queue: QUEUE.to_owned(),
        ..InsertOpts::default()
    }
}

fn client(pool: &PgPool) -> Outcome<Client> {
    let config = QueueConfig {
        max_workers: u32::try_from(HANDLERS)?,
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone())
        .queue(QUEUE, config)
        .register::<Message, _, _>(|message, _| async move {
            handled::note(&message.payload);
            Ok(JobResult::Completed)
        })
        .build()?;
    Ok(client)
}

impl Awa {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let pool = pool08(url).await?;
        if install {
            awa::migrations::run(&pool).await?;
            // Its storage is chosen when a client first starts on an empty schema; with jobs in it, it would
            // stay with that of an older version.
            let client = client(&pool)?;
            client.start().await?;
            client.shutdown(SHUTDOWN_TIMEOUT).await;
        }
        let storage = QueueStorage::new(QueueStorageConfig::default())?;
        Ok(Self { pool, storage })
    }
}

impl Peer for Awa {
    fn name(&self) -> &'static str {
        "awa 0.6"
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            awa::insert_with(&self.pool, &Message { payload }, options()).await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            let mut messages = Vec::with_capacity(payloads.len());
            for payload in payloads {
                messages.push(InsertParams {
                    kind: Message::kind().to_owned(),
                    args: serde_json::to_value(Message { payload })?,
                    opts: options(),
                });
            }
            let sent = self.storage.enqueue_params_copy(&self.pool, &messages);
            sent.await?;
            Ok(())
        })
    }

    fn handle(&self, _: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let client = client(&self.pool)?;
            client.start().await?;
            Ok(Running::spawn(async move |stopped| {
                let _ = stopped.await;
                client.shutdown(SHUTDOWN_TIMEOUT).await;
                Ok(())
            }))
        })
    }
}
