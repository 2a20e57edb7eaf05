//! `workers`, `worker …`: producers and consumers.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use pgqrs::{QueueName, WorkerFilter, WorkerId, WorkerInfo, WorkerKind, WorkerStatus};
use serde_json::json;

use crate::{
    confirm::Confirm,
    exit::Exit,
    failure::Result,
    output::{as_json, counted},
    session::{Session, place},
    table::{Column, facts, table},
    times::{duration, shown, spoken},
};

#[derive(Args)]
pub(crate) struct Workers {
    /// Only those of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only producers, or consumers
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only those in this state
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only those that missed their heartbeats
    #[arg(long)]
    stale: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Producer,
    Consumer,
}

#[derive(Clone, Copy, ValueEnum)]
enum Status {
    Ready,
    Suspended,
    Stopped,
}

impl Workers {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let queue = self.queue.map(QueueName::new).transpose();
        let queue = queue.map_err(pgqrs::Error::from)?;
        let admin = session.admin().await?;
        let mut workers = admin.workers(&WorkerFilter::default()).await?;
        let kind = self.kind.map(|kind| match kind {
            Kind::Producer => WorkerKind::Producer,
            Kind::Consumer => WorkerKind::Consumer,
        });
        let status = self.status.map(|status| match status {
            Status::Ready => WorkerStatus::Ready,
            Status::Suspended => WorkerStatus::Suspended,
            Status::Stopped => WorkerStatus::Stopped,
        });
        workers.retain(|worker| {
            queue.as_ref().is_none_or(|queue| worker.queue == *queue)
                && kind.is_none_or(|kind| worker.kind == kind)
                && status.is_none_or(|status| worker.status == status)
                && (!self.stale || worker.stale)
        });
        session.output.print(&workers, || {
            table(
                [
                    Column::Number("ID"),
                    Column::Text("KIND"),
                    Column::Text("QUEUE"),
                    Column::Text("HOST"),
                    Column::Text("STATE"),
                    Column::Text("STARTED"),
                    Column::Text("LAST HEARTBEAT"),
                ],
                workers.iter().map(|worker| {
                    [
                        worker.id.to_string(),
                        worker.kind.to_string(),
                        worker.queue.to_string(),
                        host(worker),
                        state(worker),
                        shown(worker.started_at),
                        shown(worker.heartbeat_at),
                    ]
                }),
                "no workers",
            )
        })?;
        Ok(Exit::Done)
    }
}

fn host(worker: &WorkerInfo) -> String {
    match worker.port {
        0 => worker.hostname.clone(),
        port => format!("{}:{port}", worker.hostname),
    }
}

fn state(worker: &WorkerInfo) -> String {
    let status = worker.status;
    if worker.stale {
        format!("{status}, but missed its heartbeats")
    } else {
        status.to_string()
    }
}

#[derive(Subcommand)]
pub(crate) enum Worker {
    /// Show a worker, and the messages that it holds, which reads its whole queue
    Show(Id),
    /// Suspend a worker: its next send or claim is refused
    Suspend(Id),
    /// Resume a suspended worker
    Resume(Id),
    /// Stop a worker for good
    Stop {
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Make the messages of a crashed worker ready again, without waiting for their leases
    Release {
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Remove a worker from the list, whatever its state
    Remove {
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Remove workers that were stopped or have crashed
    Prune {
        /// Only those whose last heartbeat is at least so long ago, such as 1d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: Option<Duration>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args)]
pub(crate) struct Id {
    /// The worker's id; `pgqrs workers` lists them
    #[arg(value_name = "WORKER")]
    id: WorkerId,
}

impl Worker {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let done = |id: WorkerId, what: &str| {
            session
                .output
                .print(&json!({"worker": id, "done": what}), || {
                    format!("worker {id} is {what}")
                })
        };
        match self {
            Self::Show(Id { id }) => {
                let worker = admin.worker(id).await?;
                let held = admin.held_messages(id).await?;
                let mut result = as_json(&worker);
                result["held"] = as_json(&held);
                session.output.print(&result, || {
                    let about = facts([
                        ("kind", worker.kind.to_string()),
                        ("queue", worker.queue.to_string()),
                        ("host", host(&worker)),
                        ("state", state(&worker)),
                        ("started", shown(worker.started_at)),
                        ("last heartbeat", shown(worker.heartbeat_at)),
                    ]);
                    let held = table(
                        [
                            Column::Number("MESSAGE"),
                            Column::Number("ATTEMPT"),
                            Column::Text("LEASED UNTIL"),
                        ],
                        held.iter().map(|message| {
                            [
                                message.id.to_string(),
                                message.attempt.to_string(),
                                shown(message.lease_expires_at),
                            ]
                        }),
                        "holds no messages",
                    );
                    format!("{about}\n\n{held}")
                })?;
            }
            Self::Suspend(Id { id }) => {
                admin.suspend_worker(id).await?;
                done(id, "suspended")?;
            }
            Self::Resume(Id { id }) => {
                admin.resume_worker(id).await?;
                done(id, "resumed")?;
            }
            Self::Stop {
                id: Id { id },
                confirm,
            } => {
                let worker = admin.worker(id).await?;
                confirm.ask(&format!("stop {}", named(&worker)))?;
                admin.stop_worker(id).await?;
                done(id, "stopped")?;
            }
            Self::Release {
                id: Id { id },
                confirm,
            } => {
                let worker = admin.worker(id).await?;
                confirm.ask(&format!(
                    "make the messages ready again that {} holds: if it still runs, they are handled twice",
                    named(&worker)
                ))?;
                let released = admin.release(id).await?;
                session
                    .output
                    .print(&json!({"worker": id, "released": released}), || {
                        format!("released {} of worker {id}", counted(released, "message"))
                    })?;
            }
            Self::Remove {
                id: Id { id },
                confirm,
            } => {
                let worker = admin.worker(id).await?;
                confirm.ask(&format!("remove {}", named(&worker)))?;
                admin.remove_worker(id).await?;
                done(id, "removed")?;
            }
            Self::Prune {
                older_than,
                confirm,
            } => {
                let age = older_than.map_or(String::new(), |age| {
                    format!(", if their last heartbeat was at least {} ago", spoken(age))
                });
                confirm.ask(&format!(
                    "remove workers that were stopped or have crashed{age}, in {}",
                    place(&store)
                ))?;
                let age = older_than.unwrap_or_default();
                let removed = admin.remove_ended_workers(age).await?;
                session.output.print(&json!({"removed": removed}), || {
                    format!("removed {}", counted(removed, "worker"))
                })?;
            }
        }
        Ok(Exit::Done)
    }
}

/// A worker in a question.
fn named(worker: &WorkerInfo) -> String {
    format!(
        "{} {} of queue `{}` on {}",
        worker.kind,
        worker.id,
        worker.queue,
        host(worker)
    )
}
