//! `schedules`, `schedule …`: what sends messages at regular times.

use clap::{Args, Subcommand};
use pgqrs::{MessageId, ScheduleFiring, ScheduleInfo, ScheduleTime};
use serde_json::json;

use crate::{
    confirm::Confirm,
    exit::Exit,
    failure::{Failure, Result},
    output::as_json,
    session::{Session, place},
    table::{Column, facts, table},
    times::{shown, shown_if, spoken, spoken_if},
};

pub(crate) async fn list(session: &Session) -> Result<Exit> {
    let schedules = session.admin().await?.schedules().await?;
    session.output.print(&schedules, || {
        table(
            [
                Column::Text("SCHEDULE"),
                Column::Text("QUEUE"),
                Column::Text("TIME"),
                Column::Text("ZONE"),
                Column::Text("NEXT"),
                Column::Text("LAST"),
            ],
            schedules.iter().map(|schedule| {
                [
                    schedule.name.clone(),
                    schedule.queue.to_string(),
                    time(schedule),
                    schedule.zone.clone(),
                    next(schedule),
                    shown_if(schedule.last_at),
                ]
            }),
            "no schedules; a program installs them with `pgqrs::schedule(..)`",
        )
    })?;
    Ok(Exit::Done)
}

fn time(schedule: &ScheduleInfo) -> String {
    match &schedule.time {
        ScheduleTime::Cron(cron) => cron.to_string(),
        ScheduleTime::Every(interval) => format!("every {}", spoken(*interval)),
        _ => "of a newer version".to_owned(),
    }
}

/// The last firings, as a table.
fn history(firings: &[ScheduleFiring]) -> String {
    table(
        [
            Column::Text("LAST TIMES"),
            Column::Text("LATE BY"),
            Column::Number("MESSAGE"),
            Column::Text("OUTCOME"),
        ],
        firings.iter().map(|firing| {
            [
                firing
                    .scheduled_for
                    .map_or_else(|| format!("{}, by hand", shown(firing.fired_at)), shown),
                spoken_if(firing.lateness(), "-"),
                firing
                    .message
                    .as_ref()
                    .map_or_else(|| "-".to_owned(), MessageId::to_string),
                firing.outcome.to_string(),
            ]
        }),
        "not fired yet",
    )
}

fn next(schedule: &ScheduleInfo) -> String {
    match schedule.paused_at {
        Some(since) => format!("paused since {}", shown(since)),
        None => shown(schedule.next_at),
    }
}

#[derive(Subcommand)]
pub(crate) enum Schedule {
    /// Show a schedule, with its next times, its last ones, and what became of their messages
    ///
    /// `done`: the message was acknowledged, if nobody has cancelled or deleted it and it hasn't expired. `unfinished`: none
    /// was sent, since another message had its key.
    Show {
        #[command(flatten)]
        name: Name,
        /// How many of its next times to print
        #[arg(long, value_name = "NUMBER", default_value_t = 5)]
        next: usize,
        /// How many of its last times to print, at most 100
        #[arg(long, value_name = "NUMBER", default_value_t = 10)]
        last: usize,
    },
    /// Send no messages until the schedule is resumed
    Pause(Name),
    /// Send messages again, from the next time on
    Resume(Name),
    /// Send the schedule's message now, beside its times
    Fire(Name),
    /// Delete a schedule; messages that it has sent stay
    Delete {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args)]
pub(crate) struct Name {
    /// The schedule's name
    #[arg(value_name = "SCHEDULE")]
    name: String,
}

impl Schedule {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let done = |name: &str, what: &str| {
            session
                .output
                .print(&json!({"schedule": name, "done": what}), || {
                    format!("schedule `{name}` is {what}")
                })
        };
        match self {
            Self::Show {
                name: Name { name },
                next: times,
                last,
            } => {
                let schedule = admin.schedule(&name).await?;
                let upcoming = schedule.upcoming(times)?;
                let mut firings = admin.schedule_history(&name).await?;
                firings.truncate(last);
                let mut result = as_json(&schedule);
                result["upcoming"] = as_json(&upcoming);
                result["history"] = as_json(&firings);
                session.output.print(&result, || {
                    let about = facts([
                        ("queue", schedule.queue.to_string()),
                        ("time", time(&schedule)),
                        ("zone", schedule.zone.clone()),
                        ("version", schedule.version.to_string()),
                        ("owner", schedule.owner.clone().unwrap_or("-".to_owned())),
                        ("next", next(&schedule)),
                        ("last", shown_if(schedule.last_at)),
                        ("fired", shown_if(schedule.last_fired_at)),
                        ("lateness", spoken_if(schedule.lateness(), "-")),
                    ]);
                    let upcoming: Vec<String> = upcoming.iter().copied().map(shown).collect();
                    let upcoming = format!("next times:\n  {}", upcoming.join("\n  "));
                    format!("{about}\n\n{upcoming}\n\n{}", history(&firings))
                })?;
            }
            Self::Pause(Name { name }) => {
                admin.pause_schedule(&name).await?;
                done(&name, "paused")?;
            }
            Self::Resume(Name { name }) => {
                admin.resume_schedule(&name).await?;
                done(&name, "resumed")?;
            }
            Self::Fire(Name { name }) => {
                let Some(message) = admin.fire_schedule(&name).await? else {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!(
                            "schedule `{name}` sent nothing: its last message is unfinished, and has its key"
                        ),
                    ));
                };
                session
                    .output
                    .print(&json!({"schedule": name, "message": message}), || {
                        format!("schedule `{name}` sent message {message}")
                    })?;
            }
            Self::Delete {
                name: Name { name },
                confirm,
            } => {
                let schedule = admin.schedule(&name).await?;
                confirm.ask(&format!(
                    "delete schedule `{name}`, which sends to queue `{}`, in {}",
                    schedule.queue,
                    place(&store)
                ))?;
                admin.delete_schedule(&name).await?;
                done(&name, "deleted")?;
            }
        }
        Ok(Exit::Done)
    }
}
