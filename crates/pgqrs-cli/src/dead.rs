//! `dead …`: dead letters. What acts on many of them does so page by page.

use std::time::Duration;

use clap::{Args, Subcommand};
use pgqrs::{Admin, Cursor, DeadLetter, Found, MessageId, Requeued};
use serde_json::json;

use crate::{
    confirm::Bulk,
    exit::Exit,
    failure::{Failure, Result},
    filter::{Filter, Pages, continuation, may_print},
    output::{as_json, counted, printable},
    session::{Session, place},
    table::{Column, table},
    times::{duration, shown, spoken},
};

/// How many are found, and then retried or deleted, at once.
const CHUNK: u32 = 1_000;

#[derive(Subcommand)]
pub(crate) enum Dead {
    /// List dead letters, those with the highest ids first
    List {
        /// The queue
        queue: String,
        #[command(flatten)]
        which: Conditions,
        #[command(flatten)]
        pages: Pages,
    },
    /// Count dead letters by their reason
    Reasons {
        /// The queue
        queue: String,
    },
    /// Put dead letters back into their queue, with all of their attempts
    Retry {
        #[command(flatten)]
        which: Which,
        /// Print how many it would be, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete dead letters
    Delete {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        bulk: Bulk,
    },
}

#[derive(Args)]
pub(crate) struct Conditions {
    /// Only those with just this reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only those that had this unique key
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Args)]
pub(crate) struct Which {
    /// The queue
    queue: String,
    /// The ids of the dead letters
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    /// All of the queue that meet the other conditions
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Only those that died at least so long ago, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    #[command(flatten)]
    conditions: Conditions,
}

impl Conditions {
    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.key.is_none() && self.filter.is_empty()
    }

    async fn search(
        &self,
        admin: &Admin,
        queue: &str,
        limit: u32,
        after: Option<Cursor>,
        payload: bool,
    ) -> pgqrs::Result<Found<DeadLetter>> {
        let search = admin
            .search_dead_letters(queue)
            .limit(limit)
            .payload(payload);
        let mut search = self.filter.dead_letters(search);
        if let Some(reason) = &self.reason {
            search = search.reason(reason);
        }
        if let Some(key) = &self.key {
            search = search.key(key);
        }
        if let Some(after) = after {
            search = search.after(after);
        }
        search.await
    }
}

impl Which {
    /// Refuses what is neither a list nor all.
    fn check(&self) -> Result<()> {
        let conditions = !self.conditions.is_empty() || self.older_than.is_some();
        if self.ids.is_empty() && !self.all {
            return Err(Failure::usage(
                "which dead letters? Name their ids, or pass `--all`, which can be narrowed with `--reason`, `--error`, `--older-than` and others",
            ));
        }
        if !self.ids.is_empty() && conditions {
            return Err(Failure::usage(
                "conditions go with `--all`, and not with ids",
            ));
        }
        Ok(())
    }

    /// For a question: how many, and which.
    fn described(&self, count: u64) -> String {
        let mut text = format!(
            "{} of queue `{}`",
            counted(count, "dead letter"),
            self.queue
        );
        if let Some(age) = self.older_than {
            text += &format!(" that died at least {} ago", spoken(age));
        }
        text
    }

    /// The ids that are meant, page by page.
    async fn each(
        &self,
        admin: &Admin,
        mut act: impl AsyncFnMut(&[MessageId]) -> Result<()>,
    ) -> Result<()> {
        if !self.ids.is_empty() {
            return act(&self.ids).await;
        }
        // By the database's clock.
        let now = match self.older_than {
            Some(_) => Some(admin.health().await?.checked_at),
            None => None,
        };
        let is_old = |letter: &DeadLetter| match (now, self.older_than) {
            (Some(now), Some(age)) => {
                let since = now - letter.died_at;
                since.to_std().is_ok_and(|since| since >= age)
            }
            _ => true,
        };
        let mut after = None;
        loop {
            let conditions = &self.conditions;
            let found = conditions
                .search(admin, &self.queue, CHUNK, after, false)
                .await?;
            let letters = found.items.iter().filter(|letter| is_old(letter));
            let ids: Vec<MessageId> = letters.map(|letter| letter.id).collect();
            if !ids.is_empty() {
                act(&ids).await?;
            }
            match found.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// How many there are of them.
    async fn count(&self, admin: &Admin) -> Result<u64> {
        if !self.ids.is_empty() {
            let mut count = 0;
            for id in &self.ids {
                let found = admin.message(&self.queue, *id).await?;
                let is_dead = found.is_some_and(|message| {
                    matches!(message.place, pgqrs::MessagePlace::DeadLetters { .. })
                });
                count += u64::from(is_dead);
            }
            return Ok(count);
        }
        if self.conditions.is_empty() && self.older_than.is_none() {
            return Ok(admin.dead_letter_count(&self.queue).await?);
        }
        let mut count = 0;
        self.each(admin, async |ids| {
            count += ids.len() as u64;
            Ok(())
        })
        .await?;
        Ok(count)
    }
}

impl Dead {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        match self {
            Self::List {
                queue,
                which,
                pages,
            } => list(session, &queue, &which, &pages).await,
            Self::Reasons { queue } => reasons(session, &queue).await,
            Self::Retry { which, dry_run } => retry(session, which, dry_run).await,
            Self::Delete { which, bulk } => delete(session, which, bulk).await,
        }
    }
}

async fn list(session: &Session, queue: &str, which: &Conditions, pages: &Pages) -> Result<Exit> {
    let admin = session.admin().await?;
    which.filter.check(&admin, queue).await?;
    let found = which
        .search(&admin, queue, pages.limit, pages.after, pages.payload)
        .await?;
    let with_payload = may_print(session, &admin, queue, pages.payload).await?;
    let mut result = as_json(&found);
    if !with_payload && let Some(items) = result["items"].as_array_mut() {
        for item in items.iter_mut().filter_map(|item| item.as_object_mut()) {
            item.remove("payload");
        }
    }
    let last = if with_payload {
        "PAYLOAD"
    } else {
        "LAST ERROR"
    };
    session.output.print(&result, || {
        let columns = [
            Column::Number("ID"),
            Column::Text("DIED"),
            Column::Number("ATTEMPTS"),
            Column::Text("KEY"),
            Column::Text("REASON"),
            Column::Text(last),
        ];
        let rows = found.items.iter().map(|letter| {
            let key = letter.unique_key.as_ref().or(letter.waiting_key.as_ref());
            let last = if with_payload {
                &letter.payload
            } else {
                &letter.last_error
            };
            [
                letter.id.to_string(),
                shown(letter.died_at),
                letter.attempt.to_string(),
                key.cloned().unwrap_or("-".to_owned()),
                letter.reason.clone(),
                last.clone().unwrap_or("-".to_owned()),
            ]
        });
        table(columns, rows, "no dead letters")
    })?;
    if let Some(more) = continuation(found.next, found.is_cut) {
        session.output.note(&more);
    }
    Ok(Exit::Done)
}

async fn reasons(session: &Session, queue: &str) -> Result<Exit> {
    let reasons = session.admin().await?.dead_letter_reasons(queue).await?;
    session.output.print(&reasons, || {
        let columns = [
            Column::Number("DEAD"),
            Column::Text("REASON"),
            Column::Text("FIRST"),
            Column::Text("LAST"),
            Column::Number("NEWEST"),
            Column::Text("ITS LAST ERROR"),
        ];
        let rows = reasons.iter().map(|group| {
            [
                group.letters.to_string(),
                group.reason.clone(),
                shown(group.first_died_at),
                shown(group.last_died_at),
                group.newest.to_string(),
                group.last_error.clone().unwrap_or("-".to_owned()),
            ]
        });
        table(columns, rows, "no dead letters")
    })?;
    Ok(Exit::Done)
}

async fn retry(session: &Session, which: Which, dry_run: bool) -> Result<Exit> {
    which.check()?;
    let admin = session.admin().await?;
    let queue = &which.queue;
    which.conditions.filter.check(&admin, queue).await?;
    if dry_run {
        return would_be(session, queue, "retry", which.count(&admin).await?);
    }
    let mut requeued = Requeued::default();
    let mut asked = 0;
    if which.all && which.conditions.is_empty() {
        // In one statement.
        let age = which.older_than.unwrap_or_default();
        requeued = admin.requeue_all(queue, age).await?;
    } else {
        which
            .each(&admin, async |ids| {
                let some = admin.requeue_many(queue, ids).await?;
                requeued.back += some.back;
                requeued.held += some.held;
                asked += ids.len() as u64;
                Ok(())
            })
            .await?;
    }
    let missing = asked.saturating_sub(requeued.back + requeued.held);
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
    ended(&which, missing, requeued.back, requeued.held)
}

async fn delete(session: &Session, which: Which, bulk: Bulk) -> Result<Exit> {
    which.check()?;
    let store = session.store().await?;
    let admin = pgqrs::admin(&store);
    let queue = &which.queue;
    which.conditions.filter.check(&admin, queue).await?;
    let would = which.count(&admin).await?;
    if bulk.dry_run {
        return would_be(session, queue, "delete", would);
    }
    bulk.confirm.ask(&format!(
        "delete {} in {}",
        which.described(would),
        place(&store)
    ))?;
    let (mut deleted, mut asked) = (0, 0);
    if which.all && which.conditions.is_empty() {
        let age = which.older_than.unwrap_or_default();
        deleted = admin.purge_dead_letters(queue, age).await?;
    } else {
        which
            .each(&admin, async |ids| {
                deleted += admin.delete_dead_letters(queue, ids).await?;
                asked += ids.len() as u64;
                Ok(())
            })
            .await?;
    }
    let missing = asked.saturating_sub(deleted);
    let result = json!({"queue": queue, "deleted": deleted, "missing": missing});
    session.output.print(&result, || {
        format!(
            "deleted {} of queue `{queue}`",
            counted(deleted, "dead letter")
        )
    })?;
    ended(&which, missing, deleted, 0)
}

/// Whether all that was named was there. Of those that were found by conditions, others may have acted on some.
fn ended(which: &Which, missing: u64, done: u64, held: u64) -> Result<Exit> {
    if missing == 0 || which.all {
        return Ok(match held {
            0 => Exit::Done,
            _ => Exit::Partial,
        });
    }
    let exit = match done + held {
        0 => Exit::NotFound,
        _ => Exit::Partial,
    };
    Err(Failure::new(
        exit,
        format!(
            "{missing} of these ids are of no dead letter of queue `{}`; `pgqrs show ID` says where a message is",
            printable(&which.queue)
        ),
    ))
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
