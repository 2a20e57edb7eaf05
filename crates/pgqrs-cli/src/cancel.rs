//! `cancel`: stops messages, waiting or running.

use clap::Args;
use pgqrs::{Cancelled, MessageId};
use serde_json::json;

use crate::{
    confirm::Confirm,
    exit::Exit,
    failure::{Failure, Result},
    output::counted,
    session::{Session, place},
};

#[derive(Args)]
pub(crate) struct Cancel {
    /// The queue
    queue: String,
    /// The ids of the messages
    #[arg(value_name = "ID", required_unless_present = "key")]
    ids: Vec<MessageId>,
    /// The messages that have this unique key
    #[arg(long, conflicts_with = "ids")]
    key: Option<String>,
    /// Keep the messages in the archive
    #[arg(long)]
    archive: bool,
    #[command(flatten)]
    confirm: Confirm,
}

impl Cancel {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let queue = &self.queue;
        // If it doesn't exist, there is nothing to ask.
        admin.queue(queue).await?;
        let which = match &self.key {
            Some(key) => format!("the messages with the key {key:?}"),
            None => counted(self.ids.len() as u64, "message"),
        };
        let fate = if self.archive {
            "cancel and archive"
        } else {
            "cancel and delete"
        };
        self.confirm.ask(&format!(
            "{fate} {which} of queue `{queue}` in {}",
            place(&store)
        ))?;

        let mut cancelled: Vec<(MessageId, Cancelled)> = Vec::new();
        let mut missing = Vec::new();
        if let Some(key) = &self.key {
            cancelled = admin
                .cancel_by_key(queue, key)
                .archive(self.archive)
                .await?;
        }
        for id in &self.ids {
            match admin.cancel(queue, *id).archive(self.archive).await? {
                Some(was) => cancelled.push((*id, was)),
                None => missing.push(*id),
            }
        }
        let was = |was: &Cancelled| match was {
            Cancelled::Waiting => "waiting",
            Cancelled::Running => "running",
        };
        let list: Vec<_> = cancelled
            .iter()
            .map(|(id, state)| json!({"id": id, "was": was(state)}))
            .collect();
        let result = json!({"queue": queue, "cancelled": list, "missing": missing});
        session.output.print(&result, || {
            let lines = cancelled.iter().map(|(id, state)| match state {
                Cancelled::Waiting => format!("message {id} is cancelled, and will not run"),
                Cancelled::Running => {
                    format!("message {id} is cancelled, and its handler is stopped")
                }
            });
            lines.collect::<Vec<_>>().join("\n")
        })?;
        if self.key.is_some() && cancelled.is_empty() {
            let key = self.key.unwrap_or_default();
            return Err(Failure::new(
                Exit::NotFound,
                format!("no message of queue `{}` has the key {key:?}", self.queue),
            ));
        }
        if missing.is_empty() {
            return Ok(Exit::Done);
        }
        let exit = if cancelled.is_empty() {
            Exit::NotFound
        } else {
            Exit::Partial
        };
        let ids: Vec<_> = missing.iter().map(MessageId::to_string).collect();
        Err(Failure::new(
            exit,
            format!(
                "not in queue `{queue}` any more, or never: {}; each is done, dead, archived or unknown",
                ids.join(", ")
            ),
        ))
    }
}
