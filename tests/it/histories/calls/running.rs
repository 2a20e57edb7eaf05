//! A run of a consumer, until there is nothing left for it, or for one message.

use super::*;

impl History {
    pub(super) async fn run(&mut self, store: &Store, queue: &'static str, most: usize) -> Checked {
        let time = self.time;
        let consumer = match pgqrs::consumer(queue).create(store).await {
            Ok(consumer) => consumer,
            Err(error) => {
                return self
                    .registered(WorkerKind::Consumer, queue, 0, Err(error))
                    .await;
            }
        };
        let (handle, worker) = (consumer.handle(), consumer.id());
        let handled = Arc::new(AtomicUsize::new(0));
        let (counter, first) = (Arc::clone(&handled), handle.clone());
        let run = consumer.run(move |delivery: Delivery<Value>| {
            counter.fetch_add(1, Ordering::SeqCst);
            let payload = payload_of(&delivery);
            std::future::ready(if most == 1 {
                first.stop();
                slowing_outcome(payload)
            } else {
                outcome(payload)
            })
        });
        let mut run = run.lease(LONG).poll_interval(Duration::from_millis(5));
        if most == 1 {
            run = run.concurrency(1).prefetch(0);
        }
        let run = tokio::spawn(run.into_future());
        let direct = &self.direct;
        let over = until_within(Duration::from_secs(30), async || {
            if run.is_finished() {
                return true;
            }
            let left: Result<i64, _> = sqlx::query_scalar(
                "select count(*) from pgqrs.messages m join pgqrs.queues q on q.id = m.queue_id
                 where q.name = $1 and (
                     greatest(q.paused_until, q.slowed_until, m.visible_at, m.lease_until) <= now()
                         and not exists (
                             select from pgqrs.rates r
                             where r.queue_id = q.id and q.rate_n is not null and r.arrives_at > now()
                         )
                     or m.consumer_id = $2
                 )",
            )
            .bind(queue)
            .bind(worker.get())
            .fetch_one(direct)
            .await;
            left.is_ok_and(|left| left == 0)
        });
        prop_assert!(over.await, "a loop doesn't come to its end");
        handle.stop();
        let report = run.await.map_err(failed)?.map_err(failed)?;
        prop_assert_eq!(report.lost + report.released, 0);
        let handled = handled.load(Ordering::SeqCst);
        // Its last word is that it has ended, which can fail as well as any other call.
        let mut after = self.world.clone();
        let before = after.happened.get("handled by a loop").copied();
        let verdict = if most == 1 { slowing_verdict } else { verdict };
        let expected = after.run(time, queue, worker, most, verdict);
        let now = after.happened.get("handled by a loop").copied();
        prop_assert_eq!(handled, now.unwrap_or(0) - before.unwrap_or(0));
        let mut still_ready = after.clone();
        if let Some(worker) = still_ready.workers.get_mut(&worker) {
            worker.status = WorkerStatus::Ready;
        }
        prop_assert_eq!(expected, Ok(()));
        self.world.happened = after.happened.clone();
        let worlds = [after, still_ready].into_iter();
        let worlds = worlds.take(if self.shaken { 2 } else { 1 });
        let worlds = worlds.map(|world| Base {
            world,
            undone: false,
        });
        self.adopt(worlds.collect(), false).await
    }
}
