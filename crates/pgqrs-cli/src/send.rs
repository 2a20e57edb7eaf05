//! `send`: one message from the command line, or a message for each line of standard input.

mod lines;
mod stream;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use pgqrs::{Priority, When};
use serde_json::{json, value::RawValue};

use self::stream::Stream;
use crate::{
    exit::Exit,
    failure::{Failure, Result},
    session::Session,
    times::{duration, time},
};

#[derive(Args)]
pub(crate) struct Send {
    /// The queue
    queue: String,
    /// The message as JSON, or `-` for one message for each line of standard input
    #[arg(value_name = "JSON|-", allow_hyphen_values = true)]
    payload: String,
    #[command(flatten)]
    options: Options,
    /// The message's unique key: if another message of the queue has it, nothing is sent
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// With `--unique`, send at most one message with this key within this time, even if it is done before
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "unique")]
    once_within: Option<Duration>,
    /// The message's group, of which a few messages are handled at a time, in order
    #[arg(long, conflicts_with = "unique")]
    group: Option<String>,
    #[command(flatten)]
    stream: StreamOptions,
}

/// What all messages of a command have in common.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Before or after other messages
    #[arg(long, value_enum, default_value = "normal")]
    priority: Level,
    /// Deliver it after this time at the earliest, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "at")]
    delay: Option<Duration>,
    /// Deliver it at this time at the earliest, such as 2026-01-31T09:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<DateTime<Utc>>,
    /// A text that travels with the message; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// After how many deliveries it becomes a dead letter, if not as its queue says
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// If it isn't started by then, it becomes a dead letter, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
    /// If it expires, delete it instead
    #[arg(long, requires = "expires_in")]
    drop_if_expired: bool,
}

/// What applies to standard input only.
#[derive(Args)]
pub(crate) struct StreamOptions {
    /// With `-`, send all lines in one transaction: all of them, or none
    #[arg(long)]
    atomic: bool,
    /// With `-`, leave out lines that are not JSON, or too large, and report their numbers
    #[arg(long)]
    skip_invalid: bool,
    /// With `-`, begin after this number of lines, to continue after a failure
    #[arg(long, value_name = "NUMBER")]
    skip_lines: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Urgent,
    High,
    Normal,
    Low,
}

impl Options {
    fn priority(&self) -> Priority {
        match self.priority {
            Level::Urgent => Priority::Urgent,
            Level::High => Priority::High,
            Level::Normal => Priority::Normal,
            Level::Low => Priority::Low,
        }
    }

    fn when(&self) -> When {
        match (self.delay, self.at) {
            (Some(delay), _) => When::After(delay),
            (None, Some(time)) => When::At(time),
            (None, None) => When::Now,
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write a header as NAME=VALUE".to_owned()),
    }
}

impl Send {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        if self.payload == "-" {
            if self.unique.is_some() {
                return Err(Failure::usage(
                    "`--unique` is for one message: with `-`, all lines would have the same key",
                ));
            }
            if self.group.is_some() {
                return Err(Failure::usage("`--group` is for one message"));
            }
            return Stream {
                queue: self.queue,
                options: self.options,
                stream: self.stream,
            }
            .run(session)
            .await;
        }
        let stream = &self.stream;
        if stream.atomic || stream.skip_invalid || stream.skip_lines.is_some() {
            return Err(Failure::usage(
                "`--atomic`, `--skip-invalid` and `--skip-lines` go with `-`, for messages from standard input",
            ));
        }
        self.one(session).await
    }

    async fn one(self, session: &Session) -> Result<Exit> {
        // The text as it is, so that numbers keep their digits.
        let payload: Box<RawValue> = serde_json::from_str(&self.payload).map_err(|error| {
            Failure::usage(format!(
                "the message is not JSON: {}; a text needs quotes, as in '\"hello\"'",
                lines::problem(&error)
            ))
        })?;
        let options = &self.options;
        let mut message = pgqrs::message(&payload)
            .priority(options.priority())
            .when(options.when());
        for (name, value) in &options.header {
            message = message.header(name, value);
        }
        if let Some(attempts) = options.max_attempts {
            message = message.max_attempts(attempts);
        }
        if let Some(time) = options.expires_in {
            message = message.expires_in(time);
        }
        if options.drop_if_expired {
            message = message.drop_if_expired();
        }
        message = match (self.unique, self.once_within) {
            (Some(key), Some(window)) => message.once_within(key, window),
            (Some(key), None) => message.unique(key),
            _ => message,
        };
        if let Some(group) = self.group {
            message = message.group(group).into();
        }
        let store = session.store().await?;
        let send = pgqrs::enqueue().batch([message]).to(&self.queue);
        let sent = send.execute(&store).await?;
        for outcome in sent.outcomes() {
            session
                .output
                .print(&json!({"id": outcome.id, "new": outcome.new}), || {
                    if outcome.new {
                        format!("sent message {} to queue `{}`", outcome.id, self.queue)
                    } else {
                        format!("sent nothing: message {} has this key", outcome.id)
                    }
                })?;
        }
        Ok(Exit::Done)
    }
}
