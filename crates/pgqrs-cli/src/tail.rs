//! `tail`: what happens to the messages of a queue, as it happens.

mod changes;

use std::time::Duration;

use chrono::Utc;
use clap::{Args, ValueEnum};
use pgqrs::{Admin, Error, MessageId, MessageInfo, MessageState, Page, WorkerFilter, WorkerKind};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};

use self::changes::{Event, Seen, Snapshot};
use crate::{
    exit::Exit,
    failure::{Result, exit_of, explain},
    output::{as_json, counted, grouped, printable},
    session::Session,
    times::{duration, shown},
};

/// How many messages of each kind are looked at.
const WINDOW: u32 = 1_000;
/// How long its last remark may take.
const SOON: Duration = Duration::from_secs(2);
/// How many messages that are gone are looked for, in the dead letters and in the archive, at a time.
const LOOKUPS: usize = 100;

/// It looks at the queue regularly, at the messages that consumers hold, the next 1,000 to be claimed, and those that are new.
/// A message that is sent and handled between two looks isn't seen. At its end, it says how many messages consumers have
/// reported as handled meanwhile.
#[derive(Args)]
pub(crate) struct Tail {
    /// The queue
    queue: String,
    /// How often to look
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "500ms")]
    interval: Duration,
    /// Only these events, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "EVENTS")]
    only: Vec<Kind>,
}

/// What can happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// It was sent
    Sent,
    /// A consumer has claimed it
    Claimed,
    /// An attempt has failed, and another follows
    Failed,
    /// It was put off by its handler, which used no attempt
    Snoozed,
    /// It is ready again: it was released, or its lease ran out
    Released,
    /// It has become a dead letter
    Dead,
    /// It was archived
    Archived,
    /// It is gone: acknowledged, cancelled or purged
    Done,
}

impl Kind {
    /// Whether the message has left the queue.
    fn is_end(self) -> bool {
        matches!(self, Self::Dead | Self::Archived | Self::Done)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Claimed => "claimed",
            Self::Failed => "failed",
            Self::Snoozed => "snoozed",
            Self::Released => "released",
            Self::Dead => "dead",
            Self::Archived => "archived",
            Self::Done => "done",
        }
    }
}

impl Tail {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let admin = session.admin().await?;
        // Messages that were sent before are no news.
        let started = admin.health().await?.checked_at;
        let mut before = self.look(&admin, &Snapshot::starting_at(started)).await?;
        let reported = self.reported(&admin).await?;
        let mut seen = 0;
        // From here on, before it says that it listens.
        let mut interrupt = signal(SignalKind::interrupt())?;
        session.output.note(&format!(
            "events of queue `{}`; Ctrl-C ends this",
            self.queue
        ));
        let mut ticks = interval(self.interval.max(Duration::from_millis(50)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = ticks.tick() => {}
            }
            let looked = tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                looked = self.events(&admin, &before) => looked,
            };
            match looked {
                Ok((events, now)) => {
                    if is_away {
                        session.output.note("the server is back");
                    }
                    is_away = false;
                    for event in events {
                        seen += u64::from(event.kind.is_end());
                        self.print(session, &event)?;
                    }
                    before = now;
                }
                Err(error) if is_passing(&error) => {
                    if !is_away {
                        session
                            .output
                            .note(&format!("{}; trying again", explain(&error)));
                    }
                    is_away = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Only a remark: if the server is away, there is none.
        if let Ok(Ok(now)) = timeout(SOON, self.reported(&admin)).await {
            session.output.note(&format!(
                "saw {} leave the queue; its consumers have reported {} meanwhile, with their heartbeats",
                counted(seen, "message"),
                grouped(now.saturating_sub(reported))
            ));
        }
        Ok(Exit::Interrupted)
    }

    /// How many messages the queue's consumers were done with, by their heartbeats.
    async fn reported(&self, admin: &Admin) -> Result<u64> {
        let queue = admin.queue(&self.queue).await?.name;
        let filter = WorkerFilter::builder()
            .queue(queue)
            .kind(WorkerKind::Consumer);
        let workers = admin.workers(&filter.build()).await?;
        Ok(workers.iter().map(|worker| worker.settled).sum())
    }

    fn print(&self, session: &Session, event: &Event) -> Result<()> {
        if !self.only.is_empty() && !self.only.contains(&event.kind) {
            return Ok(());
        }
        let mut result = as_json(event);
        result["event"] = event.kind.as_str().into();
        // When it was noticed.
        let now = Utc::now();
        result["at"] = shown(now).into();
        session.output.print(&result, || {
            let detail = printable(&event.detail());
            let line = format!(
                "{}  {:<8}  {:>8}  {detail}",
                now.format("%H:%M:%S"),
                event.kind.as_str(),
                event.id
            );
            line.trim_end().to_owned()
        })
    }

    /// What has happened since, and the new state.
    async fn events(
        &self,
        admin: &Admin,
        before: &Snapshot,
    ) -> pgqrs::Result<(Vec<Event>, Snapshot)> {
        let mut now = self.look(admin, before).await?;
        let mut fates: Vec<(MessageId, Option<MessageInfo>)> = Vec::new();
        for id in now.carry_over(before, LOOKUPS) {
            let found = admin.message(&self.queue, id).await?;
            if let Some(seen) = found.as_ref().and_then(Seen::of_info) {
                now.messages.insert(id, seen);
            }
            fates.push((id, found));
        }
        Ok((before.changes(&now, &fates), now))
    }

    /// The messages that are looked at: those that consumers hold, the next ones to be claimed, and the newest.
    async fn look(&self, admin: &Admin, before: &Snapshot) -> pgqrs::Result<Snapshot> {
        let mut now = before.next();
        match before.last {
            Some(last) => {
                let page = Page::builder().after(last).limit(WINDOW).build();
                for message in admin.messages(&self.queue, page).await? {
                    // Whether its lease has run out, the search below tells.
                    now.add(&message, message.lease_expires_at.is_some());
                }
            }
            None => {
                for state in [MessageState::Ready, MessageState::Delayed] {
                    let newest = admin.search(&self.queue, state).limit(WINDOW).await?;
                    let ids = newest.items.iter().map(|message| message.id);
                    now.last = now.last.max(ids.max());
                }
            }
        }
        for state in [MessageState::Ready, MessageState::Leased] {
            let search = admin
                .search(&self.queue, state)
                .oldest_first()
                .limit(WINDOW);
            for message in search.await?.items {
                now.add(&message, state == MessageState::Leased);
            }
        }
        // Of an empty queue, all messages are new.
        now.last.get_or_insert(MessageId::from(0));
        Ok(now)
    }
}

/// Whether the next look may succeed.
fn is_passing(error: &Error) -> bool {
    error.is_retryable() || matches!(exit_of(error), Exit::Unreachable | Exit::Uncertain)
}
