//! `dead …`: dead letters.

use std::time::Duration;

use clap::{Args, Subcommand};
use pgqrs::{Admin, DeadLetter, MessageId, Page, Requeued};
use serde_json::json;

use crate::{
    confirm::Bulk,
    exit::Exit,
    failure::{Failure, Result},
    output::counted,
    session::{Session, place},
    times::{duration, spoken},
};

#[derive(Subcommand)]
pub(crate) enum Dead {
    /// Put dead letters back into their queue, with all of their attempts
    Retry {
        #[command(flatten)]
        which: Which,
        /// Print how many it would be, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete dead letters of a queue
    Delete {
        /// The queue
        queue: String,
        /// Only those that died at least so long ago, such as 30d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: Option<Duration>,
        #[command(flatten)]
        bulk: Bulk,
    },
}

#[derive(Args)]
pub(crate) struct Which {
    /// The queue
    queue: String,
    /// The ids of the dead letters
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<MessageId>,
    /// All of the queue
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// With --all, only those that died at least so long ago, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "all")]
    older_than: Option<Duration>,
}

impl Dead {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        match self {
            Self::Retry { which, dry_run } => {
                if dry_run {
                    let would = if which.all {
                        count(&admin, &which.queue, which.older_than).await?
                    } else {
                        there(&admin, &which.queue, &which.ids).await?.len() as u64
                    };
                    return would_be(session, &which.queue, "retry", would);
                }
                retry(session, &admin, which).await
            }
            Self::Delete {
                queue,
                older_than,
                bulk,
            } => {
                let would = count(&admin, &queue, older_than).await?;
                if bulk.dry_run {
                    return would_be(session, &queue, "delete", would);
                }
                let age = older_than.map_or(String::new(), |age| {
                    format!(" that died at least {} ago", spoken(age))
                });
                bulk.confirm.ask(&format!(
                    "delete {} of queue `{queue}`{age} in {}",
                    counted(would, "dead letter"),
                    place(&store)
                ))?;
                let age = older_than.unwrap_or_default();
                let deleted = admin.purge_dead_letters(&queue, age).await?;
                session
                    .output
                    .print(&json!({"queue": queue, "deleted": deleted}), || {
                        format!(
                            "deleted {} of queue `{queue}`",
                            counted(deleted, "dead letter")
                        )
                    })?;
                Ok(Exit::Done)
            }
        }
    }
}

async fn retry(session: &Session, admin: &Admin, which: Which) -> Result<Exit> {
    let queue = &which.queue;
    let mut requeued = Requeued::default();
    let mut missing = Vec::new();
    if which.all {
        let age = which.older_than.unwrap_or_default();
        requeued = admin.requeue_all(queue, age).await?;
    }
    for id in which.ids {
        let one = admin.requeue(queue, id).await?;
        requeued.back += one.back;
        requeued.held += one.held;
        if one == Requeued::default() {
            missing.push(id);
        }
    }
    let result = json!({
        "queue": queue,
        "retried": requeued.back,
        "held": requeued.held,
        "missing": missing,
    });
    session.output.print(&result, || {
        let mut text = format!(
            "put {} back into queue `{queue}`",
            counted(requeued.back, "dead letter")
        );
        if requeued.held > 0 {
            text += &format!(
                "; {} stay, since by now other messages have their keys",
                requeued.held
            );
        }
        text
    })?;
    if !missing.is_empty() {
        let ids: Vec<_> = missing.iter().map(MessageId::to_string).collect();
        let exit = match requeued.back {
            0 => Exit::NotFound,
            _ => Exit::Partial,
        };
        let ids = ids.join(", ");
        return Err(Failure::new(
            exit,
            format!("queue `{queue}` has no dead letter with the id {ids}"),
        ));
    }
    Ok(match requeued.held {
        0 => Exit::Done,
        _ => Exit::Partial,
    })
}

fn would_be(session: &Session, queue: &str, action: &str, would: u64) -> Result<Exit> {
    let mut result = json!({"queue": queue});
    result[format!("would_{action}")] = would.into();
    session.output.print(&result, || {
        format!(
            "would {action} {} of queue `{queue}`",
            counted(would, "dead letter")
        )
    })?;
    Ok(Exit::Done)
}

/// How many dead letters a queue has, or of that age.
async fn count(admin: &Admin, queue: &str, older_than: Option<Duration>) -> Result<u64> {
    let Some(age) = older_than else {
        return Ok(admin.dead_letter_count(queue).await?);
    };
    // By the database's clock, as the action itself.
    let now = admin.health().await?.checked_at;
    let mut count = 0;
    let mut after = None;
    loop {
        let dead = admin.dead_letters(queue, page(after)).await?;
        let is_old = |letter: &&DeadLetter| {
            let since = now - letter.died_at;
            since.to_std().is_ok_and(|since| since >= age)
        };
        count += dead.iter().filter(is_old).count() as u64;
        match dead.last() {
            Some(last) => after = Some(last.id),
            None => return Ok(count),
        }
    }
}

/// Which of these are dead letters of the queue.
async fn there(admin: &Admin, queue: &str, ids: &[MessageId]) -> Result<Vec<MessageId>> {
    let mut there = Vec::new();
    for id in ids {
        let page = Page::builder()
            .after(MessageId::from(id.get() - 1))
            .limit(1)
            .build();
        let dead = admin.dead_letters(queue, page).await?;
        there.extend(
            dead.iter()
                .map(|letter| letter.id)
                .filter(|found| found == id),
        );
    }
    Ok(there)
}

fn page(after: Option<MessageId>) -> Page {
    let page = Page::builder().limit(1_000);
    match after {
        Some(after) => page.after(after).build(),
        None => page.build(),
    }
}
