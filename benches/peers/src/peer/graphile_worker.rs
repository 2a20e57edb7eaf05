//! graphile_worker: for throughput with its local queue and its batched completion, as its documentation
//! advises; for a single message both would only wait.

use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
    WorkerUtils,
};
use sqlx::PgPool;

use crate::{
    Outcome, Payload, handled,
    peer::{Doing, For, HANDLERS, Peer, QUEUE, Running, pool09},
};

const SCHEMA: &str = "graphile_worker";

impl TaskHandler for Payload {
    const IDENTIFIER: &'static str = QUEUE;

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        handled::note(&self);
        Ok::<(), String>(())
    }
}

pub(crate) struct Graphile {
    pool: PgPool,
    utils: WorkerUtils,
}

impl Graphile {
    pub(crate) async fn connect(url: &str, install: bool) -> Outcome<Self> {
        let pool = pool09(url).await?;
        let utils = WorkerUtils::new(pool.clone(), SCHEMA);
        if install {
            utils.migrate().await?;
        }
        Ok(Self { pool, utils })
    }
}

impl Peer for Graphile {
    fn name(&self) -> &'static str {
        "graphile_worker 0.14"
    }

    fn send(&self, payload: Payload) -> Doing<'_, ()> {
        Box::pin(async move {
            self.utils.add_job(payload, JobSpec::default()).await?;
            Ok(())
        })
    }

    fn send_all(&self, payloads: Vec<Payload>) -> Doing<'_, ()> {
        Box::pin(async move {
            let spec = JobSpec::default();
            let jobs: Vec<_> = payloads
                .into_iter()
                .map(|payload| (payload, &spec))
                .collect();
            self.utils.add_jobs::<Payload>(&jobs).await?;
            Ok(())
        })
    }

    fn handle(&self, how: For) -> Doing<'_, Running> {
        Box::pin(async move {
            let options = WorkerOptions::default()
                .concurrency(HANDLERS)
                .schema(SCHEMA)
                .define_job::<Payload>()
                .pg_pool(self.pool.clone())
                .listen_os_shutdown_signals(false);
            let options = match how {
                For::Throughput => options
                    .local_queue(LocalQueueConfig::default().with_size(100))
                    .complete_job_batch_delay(Duration::from_millis(5)),
                For::Latency => options,
            };
            let worker = options.init().await?;
            Ok(Running::spawn(async move |stopped| {
                let mut stopped = Some(stopped);
                let stop = async {
                    if let Some(stopped) = stopped.take() {
                        let _ = stopped.await;
                    }
                    worker.request_shutdown();
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    ended = worker.run() => ended?,
                    () = stop => {}
                }
                Ok(())
            }))
        })
    }
}
