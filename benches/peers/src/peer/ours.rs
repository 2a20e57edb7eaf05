//! This library, as it is in the checkout.

use pgqrs::{ConnectOptions, Delivery, Queue, Store};

use crate::{
    Outcome, Payload, handled,
    peer::{CONNECTIONS, Doing, For, HANDLERS, OURS, Peer, Running},
};

const QUEUE: Queue<Payload> = Queue::new(super::QUEUE);

pub(crate) struct Ours(Store);

impl Ours {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let options = ConnectOptions::builder()
            .url(url)
            .max_connections(CONNECTIONS)
            .install(install)
            .build();
        let store = pgqrs::connect_with(options).await?;
        store.queue(QUEUE).await?;
        Ok(Self(store))
    }
}

impl Peer for Ours {
    fn name(&self) -> &'static str {
        OURS
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            pgqrs::enqueue()
                .message(&payload)
                .to(QUEUE)
                .execute(&self.0)
                .await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            pgqrs::enqueue()
                .messages(&payloads)
                .to(QUEUE)
                .execute(&self.0)
                .await?;
            Ok(())
        })
    }

    fn handle(&self, _: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let consumer = pgqrs::consumer(QUEUE).create(&self.0).await?;
            Ok(Running::spawn(async move |stopped| {
                consumer
                    .run(|delivery: Delivery<Payload>| async move {
                        handled::note(delivery.payload());
                        pgqrs::Outcome::Done
                    })
                    .concurrency(HANDLERS)
                    .with_graceful_shutdown(async move {
                        let _ = stopped.await;
                    })
                    .await?;
                Ok(())
            }))
        })
    }
}
