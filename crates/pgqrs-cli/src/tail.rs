//! `tail`: what happens to the messages of a queue, as it happens.

mod changes;
mod missed;

use std::time::Duration;

use chrono::Utc;
use clap::{Args, ValueEnum};
use pgqrs::{
    Admin, Error, MessageId, MessageInfo, MessageState, Page, QueueWatch, WorkerFilter, WorkerInfo,
    WorkerKind,
};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout},
};

use self::{
    changes::{End, Event, New, Seen, Snapshot},
    missed::Missed,
};
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

/// How many pages of new messages are read at a time.
const PAGES: usize = 10;
/// How often it asks how many messages the consumers have reported.
const COUNT: Duration = Duration::from_secs(2);
/// After a look it waits for at least this.
const SHORTEST: Duration = Duration::from_millis(10);
/// And for as many times the duration of the look, so that it keeps the server busy for a fifth of the time at most.
const PAUSE: u32 = 4;

/// It looks at the queue regularly, and at once when a message is sent: at the messages that consumers hold, the next 1,000 to
/// be claimed, and those that are new, also if they have become dead letters or were archived by then. A message that is sent,
/// handled and deleted between two looks leaves no trace. The consumers count these: `missed` says how many there were at
/// least, up to half a minute later, with their heartbeats.
#[derive(Args)]
pub(crate) struct Tail {
    /// The queue
    queue: String,
    /// How often to look, if nothing happens
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
    /// Messages were handled between two looks, and not seen
    Missed,
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
            Self::Missed => "missed",
        }
    }
}

impl Tail {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let admin = session.admin().await?;
        // From here on, before it looks.
        let watch = admin.watch(self.queue.as_str())?;
        // Messages that were sent before are no news.
        let started = admin.health().await?.checked_at;
        let first = Snapshot::starting_at(started);
        let mut before = self.look(&admin, &first).await?.now;
        let mut missed = Missed::since(started, &self.consumers(&admin).await?);
        let mut counted_at = Instant::now();
        // From here on, before it says that it listens.
        let mut interrupt = signal(SignalKind::interrupt())?;
        session.output.note(&format!(
            "events of queue `{}`; Ctrl-C ends this",
            self.queue
        ));
        let (mut is_away, mut is_busy) = (false, false);
        let mut looked_for = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                () = self.until_next(&watch, looked_for, is_busy) => {}
            }
            let began = Instant::now();
            let looked = tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                looked = self.events(&admin, &before) => looked,
            };
            looked_for = began.elapsed();
            match looked {
                Ok((events, now)) => {
                    if is_away {
                        session.output.note("the server is back");
                    }
                    (is_away, is_busy) = (false, !events.is_empty());
                    for event in events {
                        missed.saw(event.kind);
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
                    (is_away, is_busy) = (true, false);
                }
                Err(error) => return Err(error.into()),
            }
            if counted_at.elapsed() >= COUNT
                && !is_away
                && let Ok(consumers) = self.consumers(&admin).await
            {
                counted_at = Instant::now();
                self.print_missed(session, missed.after(&consumers))?;
            }
        }
        // Only a remark: if the server is away, there is none.
        if let Ok(Ok(consumers)) = timeout(SOON, self.consumers(&admin)).await {
            self.print_missed(session, missed.after(&consumers))?;
            session.output.note(&format!(
                "saw {} leave the queue; its consumers have reported {} meanwhile, with their heartbeats",
                counted(missed.seen, "message"),
                grouped(missed.reported)
            ));
        }
        Ok(Exit::Interrupted)
    }

    /// Waits until it is time to look again, or a message was sent. If something has happened, something else may follow.
    async fn until_next(&self, watch: &QueueWatch, looked_for: Duration, is_busy: bool) {
        let interval = self.interval.max(SHORTEST);
        let soonest = (looked_for * PAUSE).clamp(SHORTEST, interval);
        sleep(soonest).await;
        if !is_busy {
            // Whichever is first.
            let _ = timeout(interval - soonest, watch.woken()).await;
        }
    }

    /// The queue's consumers, with how many messages they were done with by their last heartbeats.
    async fn consumers(&self, admin: &Admin) -> pgqrs::Result<Vec<WorkerInfo>> {
        let queue = admin.queue(&self.queue).await?.name;
        let filter = WorkerFilter::builder()
            .queue(queue)
            .kind(WorkerKind::Consumer);
        admin.workers(&filter.build()).await
    }

    fn print_missed(&self, session: &Session, count: u64) -> Result<()> {
        if count == 0 || !self.only.is_empty() && !self.only.contains(&Kind::Missed) {
            return Ok(());
        }
        let now = Utc::now();
        let result = json!({"event": "missed", "count": count, "at": shown(now)});
        session.output.print(&result, || {
            format!(
                "{}  missed    at least {}, handled between two looks",
                now.format("%H:%M:%S"),
                counted(count, "message")
            )
        })
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
        let Look { mut now, new } = self.look(admin, before).await?;
        let mut fates: Vec<(MessageId, Option<MessageInfo>)> = Vec::new();
        for id in now.carry_over(before, LOOKUPS, new.known_after) {
            let found = admin.message(&self.queue, id).await?;
            if let Some(seen) = found.as_ref().and_then(Seen::of_info) {
                now.messages.insert(id, seen);
            }
            fates.push((id, found));
        }
        let events = before.changes(&mut now, new, &fates);
        Ok((events, now))
    }

    /// The messages that are looked at: those that consumers hold, the next ones to be claimed, and the newest. And those that
    /// are new and have left the queue already, for the dead letters or the archive.
    async fn look(&self, admin: &Admin, before: &Snapshot) -> pgqrs::Result<Look> {
        let mut now = before.next();
        let mut new = New::default();
        if let Some(after) = before.overlap() {
            let messages =
                pages(after, |page| admin.messages(&self.queue, page), |of| of.id).await?;
            for message in &messages.items {
                // Whether its lease has run out, the search below tells.
                now.add(message, message.lease_expires_at.is_some());
            }
            // After the messages: one that is on its way there is in either.
            let dead = pages(
                after,
                |page| admin.dead_letters(&self.queue, page),
                |of| of.id,
            )
            .await?;
            let archived =
                pages(after, |page| admin.archived(&self.queue, page), |of| of.id).await?;
            new.ends.extend(dead.items.iter().map(End::dead));
            new.ends.extend(archived.items.iter().map(End::archived));
            if messages.is_cut {
                now.first = messages.items.last().map(|last| last.id);
            }
            let is_cut = messages.is_cut || dead.is_cut || archived.is_cut;
            new.known_after = (!is_cut).then_some(after);
        } else {
            for state in [MessageState::Ready, MessageState::Delayed] {
                let newest = admin.search(&self.queue, state).limit(WINDOW).await?;
                let ids = newest.items.iter().map(|message| message.id);
                now.first = now.first.max(ids.max());
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
        now.first.get_or_insert(MessageId::from(0));
        Ok(Look { now, new })
    }
}

/// What was found at one look.
struct Look {
    now: Snapshot,
    new: New,
}

/// What follows an id, and whether that is not all.
struct Pages<T> {
    items: Vec<T>,
    is_cut: bool,
}

async fn pages<T, F: Future<Output = pgqrs::Result<Vec<T>>>>(
    after: MessageId,
    read: impl Fn(Page) -> F,
    id: impl Fn(&T) -> MessageId,
) -> pgqrs::Result<Pages<T>> {
    let (mut items, mut last) = (Vec::new(), after);
    for _ in 0..PAGES {
        let page = read(Page::builder().after(last).limit(WINDOW).build()).await?;
        let is_all = page.len() < WINDOW as usize;
        last = page.last().map_or(last, &id);
        items.extend(page);
        if is_all {
            return Ok(Pages {
                items,
                is_cut: false,
            });
        }
    }
    Ok(Pages {
        items,
        is_cut: true,
    })
}

/// Whether the next look may succeed.
fn is_passing(error: &Error) -> bool {
    error.is_retryable() || matches!(exit_of(error), Exit::Unreachable | Exit::Uncertain)
}
