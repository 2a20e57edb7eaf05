//! All that match a search: how many there are, and doing it to them, a chunk at a time, until it is stopped.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pgqrs::{Cursor, Error, MessageId};

use super::{
    Action, Target,
    log::Entry,
    perform::{NOW, time},
};
use crate::{app::App, format::number, respond::Asked, views};

/// How many are changed by one statement.
const CHUNK: u32 = 1_000;
/// Between two chunks, so that the database does other work as well.
const PAUSE: Duration = Duration::from_millis(20);
/// Up to this number they are counted for the preview.
const COUNTED: u32 = 10_000;
/// How many are shown in the preview.
const SAMPLE: usize = 5;

/// What would be changed.
pub(super) struct Preview {
    pub(super) count: String,
    pub(super) sample: Vec<MessageId>,
}

/// Ids that match, and where the search goes on.
struct Page {
    ids: Vec<MessageId>,
    next: Option<Cursor>,
}

async fn find(
    app: &App,
    target: &Target,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page, Error> {
    let asked = Asked::with(target.values.clone());
    let queue = target.value("queue");
    let is_hidden = app.hides_in(queue).await?;
    if matches!(target.action, Action::Requeue | Action::DeleteDeadLetter) {
        let mut search = views::dead::wanted(app, &asked, queue, is_hidden).limit(limit);
        if let Some(after) = after {
            search = search.after(after);
        }
        let found = search.await?;
        let ids = found.items.iter().map(|letter| letter.id).collect();
        return Ok(Page {
            ids,
            next: found.next,
        });
    }
    let mut search = views::messages::wanted(app, &asked, queue, is_hidden).limit(limit);
    if let Some(after) = after {
        search = search.after(after);
    }
    let found = search.await?;
    // Those that were moved may come again, behind the cursor.
    let moved = (target.action == Action::Reschedule)
        .then(|| time(target))
        .flatten();
    let there = found
        .items
        .iter()
        .filter(|message| Some(message.visible_at) != moved);
    Ok(Page {
        ids: there.map(|message| message.id).collect(),
        next: found.next,
    })
}

pub(super) async fn preview(app: &App, target: &Target) -> Result<Preview, Error> {
    let mut page = find(app, target, None, COUNTED).await?;
    let plus = if page.next.is_some() { "+" } else { "" };
    let count = format!("{}{plus}", number(page.ids.len() as u64));
    page.ids.truncate(SAMPLE);
    Ok(Preview {
        count,
        sample: page.ids,
    })
}

/// Acts on all that match, page by page. Messages that are sent meanwhile may be left out.
pub(super) async fn run(app: Arc<App>, target: Target, entry: Arc<Entry>) {
    let mut after = None;
    let outcome = loop {
        if entry.is_stopped.load(Ordering::Relaxed) {
            break Ok("Stopped");
        }
        let page = match find(&app, &target, after, CHUNK).await {
            Ok(page) => page,
            Err(error) => break Err(error),
        };
        match change(&app, &target, &page.ids).await {
            Ok(changed) => drop(entry.done.fetch_add(changed, Ordering::Relaxed)),
            Err(error) => break Err(error),
        }
        if page.next.is_none() {
            break Ok("Done");
        }
        after = page.next;
        tokio::time::sleep(PAUSE).await;
    };
    let done = number(entry.done.load(Ordering::Relaxed));
    entry.end(match outcome {
        Ok(outcome) => Ok(format!("{outcome}: {done}")),
        Err(error) => Err(format!("after {done}: {error}")),
    });
}

async fn change(app: &App, target: &Target, ids: &[MessageId]) -> Result<u64, Error> {
    let queue = target.value("queue").to_owned();
    match target.action {
        Action::Requeue => Ok(app.admin.requeue_many(queue, ids).await?.back),
        Action::DeleteDeadLetter => app.admin.delete_dead_letters(queue, ids).await,
        Action::RunNow => app.admin.reschedule_many(queue, ids, NOW).await,
        Action::Reschedule => match time(target) {
            Some(time) => app.admin.reschedule_many(queue, ids, time).await,
            None => Ok(0),
        },
        Action::Cancel => app.admin.cancel_many(queue, ids).await,
        _ => Ok(0),
    }
}
