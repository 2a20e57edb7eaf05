//! `queues`: all queues, with how many messages they hold.

use std::collections::HashMap;

use clap::Args;
use pgqrs::{QueueInfo, QueueStats};
use serde::Serialize;

use crate::{
    exit::Exit,
    failure::Result,
    session::Session,
    table::{Column, table},
    times::{shown, spoken_if},
};

#[derive(Args)]
pub(crate) struct Queues {
    /// Only those that hold messages or dead letters
    #[arg(long)]
    used: bool,
}

/// A queue's settings and counts, as one object of JSON.
#[derive(Serialize)]
pub(crate) struct Counted<'a> {
    #[serde(flatten)]
    info: &'a QueueInfo,
    ready: pgqrs::Count,
    delayed: pgqrs::Count,
    parked: pgqrs::Count,
    leased: pgqrs::Count,
    dead: pgqrs::Count,
    oldest_ready: Option<std::time::Duration>,
    stopped_groups: pgqrs::Count,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(info: &'a QueueInfo, stats: &QueueStats) -> Self {
        Self {
            info,
            ready: stats.ready,
            delayed: stats.delayed,
            parked: stats.parked,
            leased: stats.leased,
            dead: stats.dead,
            oldest_ready: stats.oldest_ready,
            stopped_groups: stats.stopped_groups,
        }
    }

    fn is_used(&self) -> bool {
        [
            self.ready,
            self.delayed,
            self.parked,
            self.leased,
            self.dead,
        ]
        .iter()
        .any(|count| !count.is_zero())
    }
}

impl Queues {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let admin = session.admin().await?;
        let infos = admin.queues().await?;
        let stats: HashMap<_, _> = admin
            .all_queue_stats()
            .await?
            .into_iter()
            .map(|stats| (stats.queue.clone(), stats))
            .collect();
        // One that was created in between has no counts yet.
        let queues: Vec<Counted<'_>> = infos
            .iter()
            .filter_map(|info| Some(Counted::new(info, stats.get(&info.name)?)))
            .filter(|queue| !self.used || queue.is_used())
            .collect();
        session.output.print(&queues, || {
            table(
                [
                    Column::Text("QUEUE"),
                    Column::Text("STATE"),
                    Column::Number("READY"),
                    Column::Number("DELAYED"),
                    Column::Number("LEASED"),
                    Column::Number("DEAD"),
                    Column::Number("OLDEST READY"),
                ],
                queues.iter().map(|queue| {
                    [
                        queue.info.name.to_string(),
                        state(queue.info),
                        queue.ready.to_string(),
                        queue.delayed.to_string(),
                        queue.leased.to_string(),
                        queue.dead.to_string(),
                        spoken_if(queue.oldest_ready, "-"),
                    ]
                }),
                "no queues; `pgqrs queue create NAME` creates one",
            )
        })?;
        Ok(Exit::Done)
    }
}

/// Whether a queue accepts messages and hands them out.
pub(crate) fn state(queue: &QueueInfo) -> String {
    let mut states = Vec::new();
    match queue.paused_until {
        Some(time) if queue.is_paused => states.push(format!("paused until {}", shown(time))),
        _ if queue.is_paused => states.push("paused".to_owned()),
        _ => {}
    }
    if let Some(time) = queue.slowed_until {
        states.push(format!("slowed down until {}", shown(time)));
    }
    if queue.closed_at.is_some() {
        states.push("closed".to_owned());
    }
    if states.is_empty() {
        states.push("open".to_owned());
    }
    states.join(", ")
}
