//! underway: tasks, without the steps that its jobs put on top of them. A batch is one notification, which
//! starts one handler, and each poll starts another. Where there is much to do, loops that ask for the next task keep
//! all of them busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::ToSpan;
use sqlx08::{PgPool, Postgres, Transaction};
use tokio::{task::JoinSet, time::sleep};
use underway::{Queue, Task, Worker, task};

use crate::{
    Outcome, Payload, handled,
    peer::{Doing, For, HANDLERS, Peer, QUEUE, Running, pool08},
};

pub(crate) struct Underway {
    pool: PgPool,
    queue: Arc<Queue<Handler>>,
}

struct Handler;

impl Task for Handler {
    type Input = Payload;
    type Output = ();

    async fn execute(&self, _: Transaction<'_, Postgres>, payload: Payload) -> task::Result<()> {
        handled::note(&payload);
        Ok(())
    }
}

impl Underway {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let pool = pool08(url).await?;
        if install {
            underway::run_migrations(&pool).await?;
        }
        let queue = Queue::builder().name(QUEUE).pool(pool.clone()).build();
        let queue = Arc::new(queue.await?);
        Ok(Self { pool, queue })
    }
}

impl Peer for Underway {
    fn name(&self) -> &'static str {
        "underway 0.2"
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            self.queue.enqueue(&self.pool, &Handler, &payload).await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            let enqueue = self.queue.enqueue_multi(&self.pool, &Handler, &payloads);
            enqueue.await?;
            Ok(())
        })
    }

    fn handle(&self, how: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let mut worker = Worker::new(Arc::clone(&self.queue), Handler);
            worker.set_concurrency_limit(HANDLERS);
            Ok(match how {
                For::Latency => Running::spawn(async move |stopped| {
                    let running = tokio::spawn({
                        let worker = worker.clone();
                        async move { worker.run_every(100.milliseconds()).await }
                    });
                    let _ = stopped.await;
                    worker.shutdown();
                    Ok(running.await??)
                }),
                For::Throughput => Running::spawn(async move |stopped| {
                    let mut loops = JoinSet::new();
                    let stop = Arc::new(AtomicBool::new(false));
                    for _ in 0..HANDLERS {
                        loops.spawn(drain(worker.clone(), Arc::clone(&stop)));
                    }
                    let _ = stopped.await;
                    // Each finishes its task: an aborted one stays behind, in progress, with its heartbeat.
                    stop.store(true, Ordering::Relaxed);
                    loops.join_all().await;
                    Ok(())
                }),
            })
        })
    }
}

async fn drain(worker: Worker<Handler>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if !matches!(worker.process_next_task().await, Ok(Some(_))) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}
