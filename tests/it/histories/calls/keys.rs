//! Sends of messages with keys and limits of their own, and the end of both.

use std::collections::BTreeMap;

use pgqrs::Sent;
use serde_json::json;

use super::*;
use crate::model::{Asks, KeyKind};

impl History {
    pub(super) async fn call_about_keys(&mut self, store: &Store, call: Call) -> Checked {
        match call {
            Call::SendEach {
                queue,
                priority,
                messages,
                delayed,
                on,
            } => {
                let payloads = self.new_payloads(messages.len());
                let envelope = Envelope {
                    queue,
                    producer: None,
                    priority,
                    delayed,
                    header: header(&payloads),
                };
                let messages: Vec<_> = payloads.into_iter().zip(messages).collect();
                let sending = SendingEach {
                    envelope,
                    messages: &messages,
                };
                let returned = match on {
                    On::Store => sending.execute(store).await,
                    On::Pool => sending.execute(store.pool()).await,
                    On::Connection => match store.pool().acquire().await {
                        Ok(mut connection) => sending.execute(&mut connection).await,
                        Err(error) => Err(error.into()),
                    },
                    On::Commit | On::Rollback => {
                        let whole = async {
                            let mut tx = store.pool().begin().await?;
                            let sent = sending.execute(&mut tx).await?;
                            end(tx, on == On::Commit).await?;
                            Ok(sent)
                        };
                        whole.await
                    }
                };
                self.compare_send_each(envelope, &messages, returned, on)
                    .await
            }
            Call::WindowPasses(which) => {
                let seen = self.world.seen();
                if seen.is_empty() {
                    return Ok(());
                }
                let (queue, key) = *which.get(&seen);
                self.calm().await?;
                let over = "update pgqrs.seen s set until = now() from pgqrs.queues q
                            where q.id = s.queue_id and q.name = $1 and s.key = $2";
                let over = sqlx::query(over).bind(queue).bind(key.to_string());
                over.execute(&self.direct).await.map_err(failed)?;
                self.compare(Ok(()), |world| {
                    world.window_passes(queue, key);
                    Ok(())
                })
                .await
            }
            Call::Expires(which) => {
                let expiring = self.world.expiring();
                if expiring.is_empty() {
                    return Ok(());
                }
                let (queue, id) = *which.get(&expiring);
                self.calm().await?;
                let over = "update pgqrs.messages set expires_at = now() where id = $1";
                let over = sqlx::query(over).bind(id.get());
                over.execute(&self.direct).await.map_err(failed)?;
                self.compare(Ok(()), |world| {
                    world.expires(queue, id);
                    Ok(())
                })
                .await
            }
            _ => Ok(()),
        }
    }

    async fn compare_send_each(
        &mut self,
        envelope: Envelope,
        messages: &[(usize, Asks)],
        returned: Result<Vec<Sent>, Error>,
        on: On,
    ) -> Checked {
        let time = self.time;
        let payloads: Vec<_> = messages.iter().map(|(payload, _)| *payload).collect();
        let stored = self.stored_as(&payloads).await?;
        match &returned {
            Err(Error::NotStored { .. }) => prop_assert!(stored.is_empty()),
            // It has all the time that it takes, whatever breaks.
            Err(error) if on == On::Store => prop_assert!(!error.is_retryable(), "{:?}", error),
            Ok(_) if on == On::Rollback => prop_assert!(stored.is_empty()),
            _ => {}
        }
        let ids = match &returned {
            Ok(sent) => payloads
                .iter()
                .copied()
                .zip(sent.iter().map(|sent| sent.id))
                .collect(),
            Err(_) => stored,
        };
        let returned = returned.map(|sent| {
            let sent = sent.into_iter();
            sent.map(|sent| (sent.id, sent.new, sent.same_payload))
                .collect()
        });
        let rolled_back = on == On::Rollback && returned.is_ok();
        let effect = |world: &mut World| {
            if rolled_back {
                let mut elsewhere = world.clone();
                return elsewhere.send_each(time, &envelope, messages, &ids);
            }
            world.send_each(time, &envelope, messages, &ids)
        };
        self.compare_flushed(returned, effect, !rolled_back).await
    }

    /// The ids of those that are stored, by payload.
    async fn stored_as(&mut self, payloads: &[usize]) -> Checked<BTreeMap<usize, MessageId>> {
        self.calm().await?;
        let payloads: Vec<_> = payloads.iter().map(usize::to_string).collect();
        let stored: Vec<(i64, String)> = sqlx::query_as(
            "select m.id, p.payload from unnest($1::text[]) p (payload)
             join pgqrs.messages m on p.payload = any (string_to_array(btrim(m.payload::text, '[]'), ','))",
        )
        .bind(payloads)
        .fetch_all(&self.direct)
        .await
        .map_err(failed)?;
        let stored = stored.into_iter().map(|(id, payload)| {
            let payload = payload.parse().map_err(failed)?;
            Ok((payload, MessageId::from(id)))
        });
        stored.collect()
    }
}

struct SendingEach<'a> {
    envelope: Envelope,
    messages: &'a [(usize, Asks)],
}

impl SendingEach<'_> {
    async fn execute<E: Executor>(&self, on: E) -> pgqrs::Result<Vec<Sent>> {
        let Envelope {
            queue,
            priority,
            delayed,
            ..
        } = self.envelope;
        let payloads: Vec<_> = self
            .messages
            .iter()
            .map(|(payload, asks)| match asks.key {
                Some((KeyKind::Appends, _)) => json!([payload]),
                _ => json!(payload),
            })
            .collect();
        let messages = self
            .messages
            .iter()
            .zip(&payloads)
            .map(|((_, asks), payload)| {
                let mut message = pgqrs::message(payload);
                if let Some(attempts) = asks.max_attempts {
                    message = message.max_attempts(attempts);
                }
                if let Some(drops) = asks.expires {
                    message = message.expires_in(LONG);
                    if drops {
                        message = message.drop_if_expired();
                    }
                }
                if let Some(group) = asks.group {
                    return message.group(group.to_string()).into();
                }
                let Some((kind, key)) = asks.key else {
                    return message;
                };
                let key = key.to_string();
                match kind {
                    KeyKind::Unique => message.unique(key),
                    KeyKind::Waiting => message.unique_until_claimed(key).or_keep(),
                    KeyKind::Replaces => message.unique_until_claimed(key).or_replace(),
                    KeyKind::Postpones => message.unique_until_claimed(key).or_postpone(LONG * 2),
                    KeyKind::Appends => message.unique_until_claimed(key).or_append(),
                    KeyKind::Within => message.once_within(key, LONG),
                }
            });
        let enqueue = pgqrs::enqueue()
            .to(queue)
            .batch(messages)
            .priority(priority)
            .headers(self.envelope.headers());
        let sent = if delayed {
            enqueue.delay(LONG).execute(on).await?
        } else {
            enqueue.execute(on).await?
        };
        Ok(sent.outcomes().collect())
    }
}
