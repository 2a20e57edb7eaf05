//! `groups`, `group …`: what is parked behind other messages of its group, and groups that are stopped.

use clap::{Args, Subcommand, ValueEnum};
use pgqrs::{GroupInfo, GroupOrder, Rate};
use serde_json::json;

use crate::{
    confirm::Bulk,
    exit::Exit,
    failure::{Failure, Result},
    output::counted,
    session::{Session, place},
    table::{Column, facts, table},
    times::{duration, shown_if, spoken},
};

#[derive(Args)]
pub(crate) struct Groups {
    /// The queue
    queue: String,
    /// By the number of parked messages, by the age of the first parked one, or only those that are stopped
    #[arg(long, value_enum, default_value = "parked")]
    order: Order,
    /// The maximum number of groups
    #[arg(long, value_name = "NUMBER", default_value = "50")]
    limit: u32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    Parked,
    Oldest,
    Stopped,
}

impl Groups {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let order = match self.order {
            Order::Parked => GroupOrder::Parked,
            Order::Oldest => GroupOrder::Oldest,
            Order::Stopped => GroupOrder::Stopped,
        };
        let admin = session.admin().await?;
        let groups = admin.groups(&self.queue, order, self.limit).await?;
        session.output.print(&groups, || {
            table(
                [
                    Column::Text("GROUP"),
                    Column::Number("LIVE"),
                    Column::Number("PARKED"),
                    Column::Text("LIMIT"),
                    Column::Text("OLDEST PARKED"),
                    Column::Text("STOPPED"),
                ],
                groups.iter().map(|group| {
                    [
                        group.group.clone(),
                        group.live.to_string(),
                        group.parked.to_string(),
                        limit(group),
                        shown_if(group.oldest_parked),
                        stopped(group),
                    ]
                }),
                "no groups",
            )
        })?;
        Ok(Exit::Done)
    }
}

/// Its own, if it has one.
fn limit(group: &GroupInfo) -> String {
    group
        .at_once
        .map_or("-".to_owned(), |at_once| at_once.to_string())
}

fn stopped(group: &GroupInfo) -> String {
    match (group.stopped_at, group.stopped_by) {
        (None, _) => "-".to_owned(),
        (since, Some(message)) => format!("since {}, by message {message}", shown_if(since)),
        (since, None) => format!("since {}, by an operator", shown_if(since)),
    }
}

#[derive(Subcommand)]
pub(crate) enum Group {
    /// Show a group
    Show(Name),
    /// Let no parked message of a group in any more, until it is resumed
    Stop(Name),
    /// Resume a group that an operator or a dead letter has stopped
    Resume(Name),
    /// Set how many messages of a group are handled at a time, in place of its queue's limit
    Limit {
        #[command(flatten)]
        name: Name,
        /// The limit, or `none`: its queue's
        #[arg(value_name = "NUMBER", value_parser = number)]
        at_once: AtOnce,
    },
    /// Set how many attempts of a group start within a time, in place of the rate of its queue's groups
    Rate {
        #[command(flatten)]
        name: Name,
        /// The rate, such as 100/1m, or `none`: its queue's
        #[arg(value_name = "NUMBER/DURATION", value_parser = rate)]
        rate: RateLimit,
    },
    /// Let as many messages of all groups in as there is room for, such as after a limit was raised
    Promote {
        /// The queue
        queue: String,
    },
    /// Delete the parked messages of a group
    Purge {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        bulk: Bulk,
    },
}

#[derive(Args)]
pub(crate) struct Name {
    /// The queue
    queue: String,
    /// The group
    group: String,
}

/// A number of messages, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtOnce(pub(crate) Option<u32>);

/// A number from 1, or `none`.
pub(crate) fn number(text: &str) -> std::result::Result<AtOnce, String> {
    match text.parse() {
        _ if text == "none" => Ok(AtOnce(None)),
        Ok(number) if number > 0 => Ok(AtOnce(Some(number))),
        _ => Err("write a number from 1, or `none`".to_owned()),
    }
}

/// A rate, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimit(pub(crate) Option<Rate>);

/// `100/1m`, or `none`.
pub(crate) fn rate(text: &str) -> std::result::Result<RateLimit, String> {
    if text == "none" {
        return Ok(RateLimit(None));
    }
    let parts = text.split_once('/');
    let parsed = parts.and_then(|(messages, per)| {
        Some(Rate::new(
            messages.trim().parse().ok()?,
            duration(per.trim()).ok()?,
        ))
    });
    parsed.map(|rate| RateLimit(Some(rate))).ok_or_else(|| {
        "write a number of messages and a duration, such as 100/1m or 5/1s, or `none`".to_owned()
    })
}

/// As it can be passed back to an option: `100/1m`.
pub(crate) fn rate_text(rate: Rate) -> String {
    format!(
        "{}/{}",
        rate.messages(),
        spoken(rate.per()).replace(' ', "")
    )
}

impl Group {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let done = |name: &Name, what: &str| {
            let Name { queue, group } = name;
            session.output.print(
                &json!({"queue": queue, "group": group, "done": what}),
                || format!("group `{group}` of queue `{queue}` is {what}"),
            )
        };
        match self {
            Self::Show(Name { queue, group }) => {
                let Some(found) = admin.group(&queue, &group).await? else {
                    return Err(Failure::new(
                        Exit::NotFound,
                        format!("queue `{queue}` has no messages or settings of group `{group}`"),
                    ));
                };
                session.output.print(&found, || {
                    facts([
                        ("group", found.group.clone()),
                        ("live", found.live.to_string()),
                        ("parked", found.parked.to_string()),
                        ("limit", limit(&found)),
                        ("oldest parked", shown_if(found.oldest_parked)),
                        ("stopped", stopped(&found)),
                    ])
                })?;
            }
            Self::Stop(name) => {
                admin.stop_group(&name.queue, &name.group).await?;
                done(&name, "stopped")?;
            }
            Self::Resume(name) => {
                let was_stopped = admin.resume_group(&name.queue, &name.group).await?;
                done(
                    &name,
                    if was_stopped {
                        "resumed"
                    } else {
                        "not stopped"
                    },
                )?;
            }
            Self::Limit {
                name,
                at_once: AtOnce(at_once),
            } => {
                admin
                    .set_group_limit(&name.queue, &name.group, at_once)
                    .await?;
                let what = at_once.map_or("limited as its queue says".to_owned(), |at_once| {
                    format!("limited to {}", counted(at_once.into(), "message"))
                });
                done(&name, &what)?;
            }
            Self::Rate {
                name,
                rate: RateLimit(rate),
            } => {
                admin.set_group_rate(&name.queue, &name.group, rate).await?;
                let what = rate.map_or("as fast as its queue says".to_owned(), |rate| {
                    format!("limited to {}", rate_text(rate))
                });
                done(&name, &what)?;
            }
            Self::Promote { queue } => {
                admin.promote_groups(&queue).await?;
                session
                    .output
                    .print(&json!({"queue": queue, "done": "promoted"}), || {
                        format!("the groups of queue `{queue}` are promoted")
                    })?;
            }
            Self::Purge {
                name: Name { queue, group },
                bulk,
            } => {
                let found = admin.group(&queue, &group).await?;
                let parked = found.map_or(0, |found| found.parked);
                if bulk.dry_run {
                    let result = json!({"queue": queue, "group": group, "would_delete": parked});
                    session.output.print(&result, || {
                        let parked = counted(parked, "parked message");
                        format!("would delete {parked} of group `{group}` of queue `{queue}`")
                    })?;
                    return Ok(Exit::Done);
                }
                bulk.confirm.ask(&format!(
                    "delete the parked messages of group `{group}` of queue `{queue}` ({parked} now) in {}",
                    place(&store)
                ))?;
                let deleted = admin.purge_group(&queue, &group).await?;
                let result = json!({"queue": queue, "group": group, "deleted": deleted});
                session.output.print(&result, || {
                    let deleted = counted(deleted, "parked message");
                    format!("deleted {deleted} of group `{group}` of queue `{queue}`")
                })?;
            }
        }
        Ok(Exit::Done)
    }
}
