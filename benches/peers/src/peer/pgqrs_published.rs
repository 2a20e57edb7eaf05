//! The published library of this name. A managed producer, since each send without one leaves a worker's row
//! behind; its limit of a thousand sends a second taken off. It can't be woken, so it polls often.

use std::time::Duration;

use pgqrs_published::{Config, Producer, store::AnyStore};
use tokio::task::JoinSet;

use crate::{
    Outcome, Payload, handled,
    peer::{CONNECTIONS, Doing, For, PUBLISHED, Peer, QUEUE, Running},
};

/// Each handles a batch at a time.
const CONSUMERS: usize = 8;

pub(crate) struct Published {
    store: AnyStore,
    producer: Producer,
}

impl Published {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let mut config = Config::from_dsn(url).with_max_connections(CONNECTIONS);
        config.validation_config.max_enqueue_per_second = None;
        config.validation_config.max_enqueue_burst = None;
        let store = pgqrs_published::connect_with_config(&config).await?;
        if install {
            pgqrs_published::admin(&store).install().await?;
            pgqrs_published::admin(&store).create_queue(QUEUE).await?;
        }
        let name = format!("producer-{}", handled::now());
        let producer = pgqrs_published::producer(&name, QUEUE)
            .create(&store)
            .await?;
        Ok(Self { store, producer })
    }
}

impl Peer for Published {
    fn name(&self) -> &'static str {
        PUBLISHED
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            pgqrs_published::enqueue()
                .message(&payload)
                .worker(&self.producer)
                .execute(&self.store)
                .await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            pgqrs_published::enqueue()
                .messages(&payloads)
                .worker(&self.producer)
                .execute(&self.store)
                .await?;
            Ok(())
        })
    }

    fn handle(&self, how: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let (consumers, batch) = match how {
                For::Throughput => (CONSUMERS, 100),
                For::Latency => (1, 1),
            };
            let mut running = JoinSet::new();
            for n in 0..consumers {
                // A name serves once: a stopped worker can't be started again.
                let name = format!("consumer-{n}-{}", handled::now());
                let consumer = pgqrs_published::consumer(&name, QUEUE)
                    .create(&self.store)
                    .await?;
                let store = self.store.clone();
                running.spawn(async move {
                    pgqrs_published::dequeue()
                        .worker(&consumer)
                        .batch(batch)
                        .poll_interval(Duration::from_millis(10))
                        .handle_batch(|messages: Vec<pgqrs_published::QueueMessage>| async move {
                            for message in messages {
                                handled::note(&serde_json::from_value(message.payload)?);
                            }
                            Ok(())
                        })
                        .poll(&store)
                        .await
                });
            }
            Ok(Running::spawn(async move |stopped| {
                tokio::select! {
                    // They poll until they are stopped, or fail.
                    Some(ended) = running.join_next() => ended??,
                    _ = stopped => {}
                }
                Ok(())
            }))
        })
    }
}
