//! apalis-postgres: woken by its trigger, a hundred tasks a fetch.

use apalis::prelude::{BoxDynError, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_postgres::{Config, PostgresStorage};

use crate::{
    Outcome, Payload, handled,
    peer::{Doing, For, HANDLERS, Peer, QUEUE, Running, pool09},
};

pub(crate) struct Apalis(PostgresStorage<Payload>);

impl Apalis {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let pool = pool09(url).await?;
        if install {
            PostgresStorage::setup(&pool).await?;
        }
        let config = Config::default()
            .queue(QUEUE)
            .batch_size(100)
            .lock_tasks(false);
        let storage = PostgresStorage::new(&pool).with_config(config);
        Ok(Self(storage))
    }
}

impl Peer for Apalis {
    fn name(&self) -> &'static str {
        "apalis-postgres 1.0"
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        let mut storage = self.0.clone();
        Box::pin(async move { Ok(storage.push(payload).await?) })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        let mut storage = self.0.clone();
        Box::pin(async move { Ok(storage.push_bulk(payloads).await?) })
    }

    fn handle(&self, _: For) -> Doing<'_, Running> {
        async fn handle(payload: Payload) -> Result<(), BoxDynError> {
            handled::note(&payload);
            Ok(())
        }
        let backend = self.0.clone().with_pubsub();
        Box::pin(async move {
            let worker = WorkerBuilder::new(format!("worker-{}", handled::now()))
                .backend(backend)
                .concurrency(HANDLERS)
                .build(handle);
            Ok(Running::spawn(async move |stopped| {
                let stop = async move {
                    let _ = stopped.await;
                    Ok::<_, std::io::Error>(())
                };
                Ok(worker.run_until(stop).await?)
            }))
        })
    }
}
