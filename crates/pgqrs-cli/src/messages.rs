//! `messages`, `show`: messages of a queue, one with all that is known of it.

use clap::{Args, ValueEnum};
use pgqrs::{Admin, MessageId, MessageInfo, MessagePlace, MessageState, QueuedMessage};
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    filter::{Filter, Pages, continuation, may_print},
    output::as_json,
    session::Session,
    table::{Column, facts, table},
    times::{shown, shown_if},
};

#[derive(Args)]
pub(crate) struct Messages {
    /// The queue
    queue: String,
    /// Only messages in this state; otherwise leased, ready and delayed ones, a page of each
    #[arg(long, value_enum, required_if_eq("oldest_first", "true"))]
    state: Option<State>,
    /// Only messages with this unique key
    #[arg(long, conflicts_with_all = ["state", "group", "header", "payload_at", "error", "after"])]
    key: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Those first that are due for the longest time, instead of the newest
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    pages: Pages,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Ready,
    Delayed,
    Leased,
}

impl State {
    fn of_library(self) -> MessageState {
        match self {
            Self::Ready => MessageState::Ready,
            Self::Delayed => MessageState::Delayed,
            Self::Leased => MessageState::Leased,
        }
    }
}

/// A line of the list.
struct Listed {
    state: MessageState,
    message: QueuedMessage,
}

impl Messages {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let admin = session.admin().await?;
        if let Some(key) = &self.key {
            return self.of_key(session, &admin, key).await;
        }
        if self.pages.after.is_some() && self.state.is_none() {
            return Err(Failure::usage(
                "`--after` continues the list of one state; pass `--state` too",
            ));
        }
        self.filter.check(&admin, &self.queue).await?;
        let states = match self.state {
            Some(state) => vec![state],
            None => vec![State::Leased, State::Ready, State::Delayed],
        };
        let (mut items, mut next, mut is_cut) = (Vec::new(), None, false);
        for state in states {
            let state = state.of_library();
            let search = admin
                .search(&self.queue, state)
                .limit(self.pages.limit)
                .payload(self.pages.payload);
            let mut search = self.filter.messages(search);
            // Leased messages are among those that are due for the longest time.
            if self.oldest_first || state == MessageState::Leased {
                search = search.oldest_first();
            }
            if let Some(after) = self.pages.after {
                search = search.after(after);
            }
            let found = search.await?;
            items.extend(
                found
                    .items
                    .into_iter()
                    .map(|message| Listed { state, message }),
            );
            next = found.next;
            is_cut |= found.is_cut;
        }
        let next = next.filter(|_| self.state.is_some());
        let with_payload = may_print(session, &admin, &self.queue, self.pages.payload).await?;
        let list: Vec<Value> = items.iter().map(|item| item.json(with_payload)).collect();
        let result = json!({"items": list, "next": next, "is_cut": is_cut});
        session
            .output
            .print(&result, || as_table(&items, with_payload))?;
        if let Some(more) = continuation(next, is_cut) {
            session.output.note(&more);
        } else if is_cut {
            session.output.note(
                "looked at 50,000 messages of a state, and there are more: `--state` lists one page by page",
            );
        }
        Ok(Exit::Done)
    }

    async fn of_key(&self, session: &Session, admin: &Admin, key: &str) -> Result<Exit> {
        let found = admin.messages_with_key(&self.queue, key).await?;
        let with_payload = may_print(session, admin, &self.queue, self.pages.payload).await?;
        let list: Vec<Value> = found
            .iter()
            .map(|info| as_object(info, with_payload))
            .collect();
        session.output.print(&json!({"items": list}), || {
            let each = found.iter().map(|message| about(message, with_payload));
            let each: Vec<String> = each.collect();
            if each.is_empty() {
                return "no messages".to_owned();
            }
            each.join("\n\n")
        })?;
        Ok(Exit::Done)
    }
}

impl Listed {
    fn json(&self, with_payload: bool) -> Value {
        let mut value = as_json(&self.message);
        value["state"] = json!(self.state);
        if !with_payload && let Some(fields) = value.as_object_mut() {
            fields.remove("payload");
        }
        value
    }

    /// When it becomes ready; of one that is leased, when that is over.
    fn due(&self) -> String {
        match self.message.lease_expires_at {
            Some(time) if self.state == MessageState::Leased => shown(time),
            _ => shown(self.message.visible_at),
        }
    }
}

fn as_table(items: &[Listed], with_payload: bool) -> String {
    let columns = [
        Column::Number("ID"),
        Column::Text("STATE"),
        Column::Text("PRIORITY"),
        Column::Number("ATTEMPT"),
        Column::Text("DUE"),
        Column::Number("WORKER"),
        Column::Text("KEY"),
        Column::Text(if with_payload {
            "PAYLOAD"
        } else {
            "LAST ERROR"
        }),
    ];
    let rows = items.iter().map(|item| {
        let message = &item.message;
        let worker = message
            .consumer
            .filter(|_| item.state == MessageState::Leased);
        let key = message.unique_key.as_ref().or(message.waiting_key.as_ref());
        let last = if with_payload {
            message.payload.clone()
        } else {
            message.last_error.clone()
        };
        [
            message.id.to_string(),
            item.state.to_string(),
            named(&message.priority),
            message.attempt.to_string(),
            item.due(),
            worker.map_or("-".to_owned(), |worker| worker.to_string()),
            key.cloned().unwrap_or("-".to_owned()),
            last.unwrap_or("-".to_owned()),
        ]
    });
    table(columns, rows, "no messages")
}

/// The name of a value that serialises as one.
fn named(value: &impl serde::Serialize) -> String {
    as_json(value).as_str().unwrap_or_default().to_owned()
}

#[derive(Args)]
pub(crate) struct Show {
    /// The message's id
    #[arg(value_name = "ID")]
    id: MessageId,
    /// Its queue; otherwise all are searched
    #[arg(long)]
    queue: Option<String>,
    /// Leave out the payload
    #[arg(long)]
    no_payload: bool,
}

impl Show {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let admin = session.admin().await?;
        let queues = match self.queue {
            Some(queue) => vec![queue],
            None => {
                let all = admin.queues().await?.into_iter();
                all.map(|queue| queue.name.to_string()).collect()
            }
        };
        for queue in &queues {
            if let Some(message) = admin.message(queue, self.id).await? {
                let with_payload = may_print(session, &admin, queue, !self.no_payload).await?;
                let result = as_object(&message, with_payload);
                session
                    .output
                    .print(&result, || about(&message, with_payload))?;
                return Ok(Exit::Done);
            }
        }
        Err(Failure::new(
            Exit::NotFound,
            format!(
                "there is no message {}: it was acknowledged or deleted, or never was",
                self.id
            ),
        ))
    }
}

fn as_object(message: &MessageInfo, with_payload: bool) -> Value {
    let mut value = as_json(message);
    if !with_payload && let Some(fields) = value.as_object_mut() {
        fields.remove("payload");
    }
    value
}

fn about(message: &MessageInfo, with_payload: bool) -> String {
    let place = match &message.place {
        MessagePlace::Queued {
            state: MessageState::Leased,
            lease_expires_at,
            ..
        } => format!("leased until {}", shown_if(*lease_expires_at)),
        MessagePlace::Queued {
            is_parked: true, ..
        } => "parked behind others of its group".to_owned(),
        MessagePlace::Queued {
            state: MessageState::Delayed,
            visible_at,
            ..
        } => format!("delayed until {}", shown(*visible_at)),
        MessagePlace::Queued { visible_at, .. } => format!("ready since {}", shown(*visible_at)),
        MessagePlace::DeadLetters { reason, died_at } => {
            format!("dead letter since {}: {reason}", shown(*died_at))
        }
        MessagePlace::Archive { archived_at } => format!("archived at {}", shown(*archived_at)),
        _ => "in a place of a newer version".to_owned(),
    };
    let worker = |id: Option<pgqrs::WorkerId>| id.map_or("-".to_owned(), |id| id.to_string());
    let key = message.unique_key.as_ref().or(message.waiting_key.as_ref());
    let headers: Vec<String> = message
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let or_none = |text: Option<String>| text.unwrap_or("-".to_owned());
    let mut text = facts([
        ("message", message.id.to_string()),
        ("queue", message.queue.to_string()),
        ("state", place),
        ("priority", named(&message.priority)),
        ("enqueued", shown(message.enqueued_at)),
        (
            "attempts",
            format!("{} of {}", message.attempt, message.max_attempts),
        ),
        ("put off", message.snoozes.to_string()),
        ("expires", shown_if(message.expires_at)),
        ("key", or_none(key.cloned())),
        ("producer", worker(message.producer)),
        ("last consumer", worker(message.consumer)),
        ("last error", or_none(message.last_error.clone())),
        (
            "headers",
            or_none((!headers.is_empty()).then(|| headers.join(", "))),
        ),
    ]);
    if with_payload {
        // As JSON it has no control characters, and so nothing that would move the cursor.
        text += "\n\n";
        text += &message.payload;
    }
    text
}
