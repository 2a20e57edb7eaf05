//! Calls about queues and workers.

use super::*;

impl History {
    pub(super) async fn call_about_queues(&mut self, store: &Store, call: Call) -> Checked {
        let (time, admin) = (self.time, pgqrs::admin(store));
        let some = |which: Index, of: Vec<(&'static str, MessageId)>| {
            (!of.is_empty()).then(|| *which.get(&of))
        };
        match call {
            Call::Pause(queue, pauses) => {
                let returned = if pauses {
                    admin.pause_queue(queue).await
                } else {
                    admin.resume_queue(queue).await
                };
                self.compare(returned, |world| world.pause(queue, pauses))
                    .await
            }
            Call::Close(queue, closes) => {
                let returned = if closes {
                    admin.close_queue(queue).await
                } else {
                    admin.reopen_queue(queue).await
                };
                self.compare(returned, |world| world.close(queue, closes))
                    .await
            }
            Call::Cancel(which, archive) => {
                let Some((queue, id)) = some(which, self.world.known()) else {
                    return Ok(());
                };
                let returned = admin.cancel(queue, id).archive(archive).await;
                self.compare(returned, |world| world.cancel(queue, id, archive))
                    .await
            }
            Call::Reschedule(which, wait) => {
                let Some((queue, id)) = some(which, self.world.known()) else {
                    return Ok(());
                };
                let days = if wait == Wait::Long { 1 } else { -1 };
                let at = chrono::Utc::now() + TimeDelta::days(days);
                let returned = admin.reschedule(queue, id, at).await;
                self.compare(returned, |world| world.reschedule(time, queue, id, wait))
                    .await
            }
            Call::Requeue(which) => {
                // Half of the time one that can be.
                let dead = self.world.dead();
                let of = match which.index(2) {
                    0 if !dead.is_empty() => dead,
                    _ => self.world.known(),
                };
                let Some((queue, id)) = some(which, of) else {
                    return Ok(());
                };
                let returned = admin.requeue(queue, id).await;
                let returned = returned.map(|requeued| (requeued.back, requeued.held));
                self.compare(returned, |world| world.requeue(time, queue, id))
                    .await
            }
            Call::RequeueAll(queue) => {
                let returned = admin.requeue_all(queue, Duration::ZERO).await;
                let returned = returned.map(|requeued| (requeued.back, requeued.held));
                self.compare(returned, |world| world.requeue_all(time, queue))
                    .await
            }
            Call::Purge(queue, place) => {
                let returned = match place {
                    Place::Queue => admin.purge_queue(queue).await,
                    Place::DeadLetters => admin.purge_dead_letters(queue, Duration::ZERO).await,
                    Place::Archive => admin.purge_archive(queue, Duration::ZERO).await,
                };
                self.compare(returned, |world| world.purge(queue, place))
                    .await
            }
            Call::CreateQueue(queue) => {
                let returned = admin.create_queue(queue).await;
                self.compare(returned.map(drop), |world| world.create_queue(time, queue))
                    .await
            }
            Call::EnsureQueue(queue) => {
                let returned = store.queue(queue).await;
                self.compare(returned.map(drop), |world| {
                    let _ = world.create_queue(time, queue);
                    Ok(())
                })
                .await
            }
            Call::DeleteQueue(queue) => {
                let returned = admin.delete_queue(queue).await;
                self.compare(returned, |world| world.delete_queue(queue))
                    .await
            }
            Call::Configure(queue, max_attempts) => {
                let options = QueueOptions::builder().max_attempts(max_attempts).build();
                let returned = admin.configure_queue(queue, options).await;
                self.compare(returned.map(drop), |world| {
                    world.configure(queue, max_attempts)
                })
                .await
            }
            Call::List(queue) => {
                let page = Page::builder().limit(100_000).payload(true).build();
                let returned = async {
                    let mut lines = Vec::new();
                    let text = |payload: &Option<String>, headers: &Headers| {
                        let header = headers.get(HEADER).unwrap_or("none");
                        format!("{} {header}", payload.clone().unwrap_or_default())
                    };
                    for m in admin.messages(queue, page).await? {
                        let (attempt, held) = (m.attempt, m.lease_expires_at.is_some());
                        lines.push(format!(
                            "message {} {attempt} {held} {}",
                            m.id,
                            text(&m.payload, &m.headers)
                        ));
                    }
                    for d in admin.dead_letters(queue, page).await? {
                        let content = text(&d.payload, &d.headers);
                        lines.push(format!(
                            "dead {} {} {content} {}",
                            d.id, d.attempt, d.reason
                        ));
                    }
                    for a in admin.archived(queue, page).await? {
                        lines.push(format!(
                            "archived {} {} {}",
                            a.id,
                            a.attempt,
                            text(&a.payload, &a.headers)
                        ));
                    }
                    Ok(lines)
                };
                let returned = returned.await;
                self.compare(returned, |world| world.list(queue)).await?;
                let returned = async {
                    let stats = admin.queue_stats(queue).await?;
                    let dead = admin.dead_letter_count(queue).await?;
                    assert_eq!(stats.dead, dead, "{stats:?}");
                    let attempts = admin.queue(queue).await?.max_attempts;
                    let hidden = stats.delayed + stats.parked;
                    let counts = [stats.ready, hidden, stats.leased];
                    let [ready, delayed, leased] = counts.map(|count| count.value);
                    Ok((ready, delayed, leased, dead, attempts))
                };
                let returned = returned.await;
                self.compare(returned, |world| world.counts(queue)).await
            }
            Call::LookAround => {
                let returned = async {
                    let queues = admin.queues().await?.into_iter();
                    let queues: Vec<_> = queues.map(|queue| queue.name.to_string()).collect();
                    let mut workers = Vec::new();
                    for worker in admin.workers(&WorkerFilter::default()).await? {
                        let held = admin.held_messages(worker.id).await?.into_iter();
                        let mut held: Vec<_> = held.map(|held| held.id).collect();
                        held.sort_unstable();
                        workers.push((worker.id, worker.status, held));
                    }
                    Ok((queues, workers))
                };
                let returned = returned.await;
                self.compare(returned, |world| {
                    let queues = world.queues.keys().map(|queue| (*queue).to_owned());
                    let workers = world.workers.iter().map(|(id, worker)| {
                        (*id, worker.status, world.held(*id).unwrap_or_default())
                    });
                    Ok((queues.collect(), workers.collect()))
                })
                .await?;
                let returned = admin.verify().await;
                let returned =
                    returned.map(|version| matches!(version, SchemaVersion::UpToDate { .. }));
                self.compare(returned, |_| Ok(true)).await?;
                let returned = admin.install().await;
                self.compare(returned, |_| Ok(())).await
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn registered(
        &mut self,
        kind: WorkerKind,
        queue: &'static str,
        port: u16,
        returned: Result<WorkerId, Error>,
    ) -> Checked {
        self.calm().await?;
        // If the answer was lost, it exists, but its id isn't known.
        let ids: Vec<i64> = sqlx::query_scalar("select id from pgqrs.workers order by id")
            .fetch_all(&self.direct)
            .await
            .map_err(failed)?;
        let mut ids = ids.into_iter().map(WorkerId::from);
        let id = ids.rfind(|id| !self.world.workers.contains_key(id));
        if let Ok(returned) = &returned {
            prop_assert_eq!(Some(*returned), id);
        }
        self.compare(returned.map(drop), |world| {
            world.register(kind, queue, port, id)
        })
        .await
    }

    pub(super) async fn call_about_workers(&mut self, store: &Store, call: Call) -> Checked {
        let (time, admin) = (self.time, pgqrs::admin(store));
        let workers: Vec<_> = self.world.workers.keys().copied().collect();
        let handles = self.producers.len() + self.consumers.len();
        match call {
            Call::Register(kind, queue, port) => {
                let returned = match kind {
                    WorkerKind::Producer => {
                        let producer = pgqrs::producer("host", port, queue).create(store).await;
                        producer.map(|producer| {
                            let id = producer.id();
                            self.producers.push(producer);
                            id
                        })
                    }
                    WorkerKind::Consumer => {
                        let consumer = pgqrs::consumer(queue)
                            .identity("host", port)
                            .create(store)
                            .await;
                        consumer.map(|consumer| {
                            let id = consumer.id();
                            self.consumers.push(consumer);
                            id
                        })
                    }
                };
                self.registered(kind, queue, port, returned).await
            }
            Call::Change(which, transition, By::Admin) if !workers.is_empty() => {
                let worker = *which.get(&workers);
                let returned = match transition {
                    Transition::Suspend => admin.suspend_worker(worker).await,
                    Transition::Resume => admin.resume_worker(worker).await,
                    Transition::Shutdown => admin.stop_worker(worker).await,
                };
                self.compare(returned, |world| world.step(worker, transition))
                    .await
            }
            Call::Change(which, transition, By::Handle) if handles > 0 => {
                let which = which.index(handles);
                let (worker, returned) = match self.producers.get(which) {
                    Some(producer) => (producer.id(), change(producer, transition).await),
                    None => {
                        let consumer = &self.consumers[which - self.producers.len()];
                        (consumer.id(), change(consumer, transition).await)
                    }
                };
                self.compare(returned, |world| match world.step(worker, transition) {
                    // It is what was wanted.
                    Err("WorkerStopped") if transition == Transition::Shutdown => Ok(()),
                    returned => returned,
                })
                .await
            }
            Call::Beat(which) if handles > 0 => {
                let which = which.index(handles);
                let (worker, returned) = match self.producers.get(which) {
                    Some(producer) => (producer.id(), beat(producer).await),
                    None => {
                        let consumer = &self.consumers[which - self.producers.len()];
                        (consumer.id(), beat(consumer).await)
                    }
                };
                self.compare(returned, |world| {
                    let status = world.status(worker);
                    world.heartbeat(worker)?;
                    Ok((status, status != WorkerStatus::Stopped))
                })
                .await
            }
            Call::RemoveWorker(which) if !workers.is_empty() => {
                let worker = *which.get(&workers);
                let returned = admin.remove_worker(worker).await;
                self.compare(returned, |world| world.remove_worker(worker))
                    .await?;
                // A second time, unless it isn't known whether there was a first.
                if self.world.workers.contains_key(&worker) {
                    return Ok(());
                }
                let returned = admin.worker(worker).await;
                self.compare(returned.map(drop), |_| Err("WorkerNotFound"))
                    .await
            }
            Call::RemoveEndedWorkers => {
                let returned = admin.remove_ended_workers(Duration::ZERO).await;
                self.compare(returned, |world| world.remove_ended_workers())
                    .await
            }
            Call::Release(which) if !workers.is_empty() => {
                let worker = *which.get(&workers);
                let returned = admin.release(worker).await;
                self.compare(returned, |world| world.release(time, worker))
                    .await
            }
            _ => Ok(()),
        }
    }
}

async fn change(worker: &impl Worker, transition: Transition) -> pgqrs::Result<()> {
    match transition {
        Transition::Suspend => worker.suspend().await,
        Transition::Resume => worker.resume().await,
        Transition::Shutdown => worker.shutdown().await,
    }
}

async fn beat(worker: &impl Worker) -> pgqrs::Result<(WorkerStatus, bool)> {
    worker.heartbeat().await?;
    Ok((worker.status().await?, worker.is_healthy(LONG).await?))
}
