//! `queue …`: one queue.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use pgqrs::{AfterDeadLetter, Groups, QueueInfo, QueueOptions, QueueStats};
use serde_json::json;

use crate::{
    confirm::{Bulk, Confirm},
    exit::Exit,
    failure::{Failure, Result},
    groups::{AtOnce, RateLimit, number, rate, rate_text},
    output::{counted, grouped},
    queues::{Counted, state},
    session::{Session, place},
    table::facts,
    times::{Limit, duration, limit, shown, spoken_if, time},
};

#[derive(Subcommand)]
pub(crate) enum Queue {
    /// Create a queue
    Create {
        #[command(flatten)]
        queue: Name,
        /// If there is one of that name, do nothing
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show a queue's settings and how many messages it holds
    Show {
        #[command(flatten)]
        queue: Name,
        /// Count exactly, which reads the whole queue; otherwise counts stop at 10,000
        #[arg(long)]
        exact: bool,
    },
    /// Change settings of a queue
    Set {
        #[command(flatten)]
        queue: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Hand out no messages until the queue is resumed; sends go on
    Pause {
        #[command(flatten)]
        queue: Name,
        /// Until this time, such as 2026-01-31T09:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<DateTime<Utc>>,
    },
    /// Hand out messages again
    Resume {
        #[command(flatten)]
        queue: Name,
    },
    /// Accept no messages any more; those that are there are worked off
    Close {
        #[command(flatten)]
        queue: Name,
    },
    /// Accept messages again
    Reopen {
        #[command(flatten)]
        queue: Name,
    },
    /// Delete all messages of a queue: ready, delayed, and those that consumers work on
    Purge {
        #[command(flatten)]
        queue: Name,
        #[command(flatten)]
        bulk: Bulk,
    },
    /// Delete an empty queue, with its dead letters and its archive
    Delete {
        #[command(flatten)]
        queue: Name,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Delete archived messages
    PurgeArchive {
        #[command(flatten)]
        queue: Name,
        /// Only those that were archived at least so long ago, such as 30d
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        older_than: Option<Duration>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args)]
pub(crate) struct Name {
    /// The queue's name
    #[arg(value_name = "QUEUE")]
    name: String,
}

#[derive(Args)]
pub(crate) struct Settings {
    /// How often a message is delivered before it becomes a dead letter [a new queue: 20]
    #[arg(long, value_name = "NUMBER")]
    max_attempts: Option<u32>,
    /// How long messages are leased, whatever consumers say, or `none`
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    lease: Option<Limit>,
    /// The wait after the first failed attempt, or `none`: as consumers say
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    retry_min: Option<Limit>,
    /// The maximum wait after a failed attempt, or `none`: as consumers say
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    retry_max: Option<Limit>,
    /// Whether acknowledged messages are archived [a new queue: false]
    #[arg(long, value_name = "BOOL")]
    archive_on_ack: Option<bool>,
    /// Whether this command and the operators' page hide payloads [a new queue: false]
    #[arg(long, value_name = "BOOL")]
    sensitive: Option<bool>,
    /// How long archived messages are kept, or `none`: for ever
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    archive_for: Option<Limit>,
    /// How long dead letters are kept, or `none`: for ever
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    dead_letters_for: Option<Limit>,
    /// How many messages of a group are handled at a time, or `none`: it takes no groups [a new queue: none]
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    groups: Option<AtOnce>,
    /// With `--groups`, whether a group waits for an operator after one of its messages became a dead letter
    #[arg(long, requires = "groups")]
    stop_groups: bool,
    /// With `--groups`, how many attempts of each group start within a time, such as 100/1m
    #[arg(long, requires = "groups", value_name = "NUMBER/DURATION", value_parser = rate)]
    groups_rate: Option<RateLimit>,
    /// How many messages run at a time, over all consumers, or `none` [a new queue: none]
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    max_running: Option<AtOnce>,
    /// How many attempts start within a time, over all consumers, such as 100/1m, or `none` [a new queue: none]
    #[arg(long, value_name = "NUMBER/DURATION", value_parser = rate)]
    rate: Option<RateLimit>,
}

impl Settings {
    /// Those that were set; `None` if there are none.
    fn options(&self) -> Option<QueueOptions> {
        let new = QueueOptions::builder;
        let each = [
            self.max_attempts
                .map(|number| new().max_attempts(number).build()),
            self.lease.map(|limit| new().lease(limit.0).build()),
            self.retry_min.map(|limit| new().retry_min(limit.0).build()),
            self.retry_max.map(|limit| new().retry_max(limit.0).build()),
            self.archive_on_ack
                .map(|archive| new().archive_on_ack(archive).build()),
            self.sensitive
                .map(|sensitive| new().sensitive(sensitive).build()),
            self.archive_for
                .map(|limit| new().archive_for(limit.0).build()),
            self.dead_letters_for
                .map(|limit| new().dead_letters_for(limit.0).build()),
            self.groups.map(|AtOnce(at_once)| {
                let groups = at_once.map(|at_once| {
                    let then = if self.stop_groups {
                        AfterDeadLetter::Stop
                    } else {
                        AfterDeadLetter::Continue
                    };
                    let rate = self.groups_rate.and_then(|RateLimit(rate)| rate);
                    let groups = Groups::builder().at_once(at_once).rate(rate);
                    groups.after_dead_letter(then).build()
                });
                new().groups(groups).build()
            }),
            self.max_running
                .map(|AtOnce(most)| new().max_running(most).build()),
            self.rate.map(|RateLimit(rate)| new().rate(rate).build()),
        ];
        let set: Vec<QueueOptions> = each.into_iter().flatten().collect();
        (!set.is_empty()).then(|| set.into_iter().collect())
    }
}

impl Queue {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let admin = pgqrs::admin(&store);
        let done = |what: &str, name: &str| {
            session
                .output
                .print(&json!({"queue": name, "done": what}), || {
                    format!("queue `{name}` is {what}")
                })
        };
        match self {
            Self::Create {
                queue: Name { name },
                if_not_exists,
                settings,
            } => {
                let options = settings.options();
                if if_not_exists {
                    store.queue(&name).await?;
                } else {
                    admin.create_queue(&name).await?;
                }
                if let Some(options) = options {
                    admin.configure_queue(&name, options).await?;
                }
                done("created", &name)?;
            }
            Self::Show {
                queue: Name { name },
                exact,
            } => {
                let info = admin.queue(&name).await?;
                let stats = if exact {
                    admin.exact_queue_stats(&name).await?
                } else {
                    admin.queue_stats(&name).await?
                };
                session
                    .output
                    .print(&Counted::new(&info, &stats), || show(&info, &stats))?;
            }
            Self::Set {
                queue: Name { name },
                settings,
            } => {
                let options = settings.options().ok_or_else(|| {
                    Failure::usage("which setting? `pgqrs queue set --help` lists them")
                })?;
                let info = admin.configure_queue(&name, options).await?;
                session.output.print(&info, || settings_of(&info))?;
            }
            Self::Pause {
                queue: Name { name },
                until,
            } => match until {
                None => {
                    admin.pause_queue(&name).await?;
                    done("paused", &name)?;
                }
                Some(time) => {
                    admin.pause_until(&name, time).await?;
                    // By the database's clock, the time may be over.
                    let info = admin.queue(&name).await?;
                    session
                        .output
                        .print(&info, || format!("queue `{name}` is {}", state(&info)))?;
                }
            },
            Self::Resume {
                queue: Name { name },
            } => {
                admin.resume_queue(&name).await?;
                done("resumed", &name)?;
            }
            Self::Close {
                queue: Name { name },
            } => {
                admin.close_queue(&name).await?;
                done("closed", &name)?;
            }
            Self::Reopen {
                queue: Name { name },
            } => {
                admin.reopen_queue(&name).await?;
                done("reopened", &name)?;
            }
            Self::Purge {
                queue: Name { name },
                bulk,
            } => {
                let stats = admin.exact_queue_stats(&name).await?;
                let messages = stats.total().value;
                if bulk.dry_run {
                    let result = json!({"queue": name, "would_delete": messages});
                    session.output.print(&result, || {
                        format!(
                            "would delete {} of queue `{name}`: {} ready, {} delayed, {} leased",
                            counted(messages, "message"),
                            stats.ready,
                            stats.delayed,
                            stats.leased
                        )
                    })?;
                    return Ok(Exit::Done);
                }
                bulk.confirm.ask(&format!(
                    "delete all messages of queue `{name}` ({} now) in {}",
                    grouped(messages),
                    place(&store)
                ))?;
                let deleted = admin.purge_queue(&name).await?;
                session
                    .output
                    .print(&json!({"queue": name, "deleted": deleted}), || {
                        format!("deleted {} of queue `{name}`", counted(deleted, "message"))
                    })?;
            }
            Self::Delete {
                queue: Name { name },
                confirm,
            } => {
                let stats = admin.queue_stats(&name).await?;
                confirm.ask(&format!(
                    "delete queue `{name}`, its {} dead letters and its archive in {}",
                    stats.dead,
                    place(&store)
                ))?;
                admin.delete_queue(&name).await?;
                done("deleted", &name)?;
            }
            Self::PurgeArchive {
                queue: Name { name },
                older_than,
                confirm,
            } => {
                let age = older_than.map_or(String::new(), |_| {
                    format!(" that are older than {}", spoken_if(older_than, ""))
                });
                confirm.ask(&format!(
                    "delete archived messages of queue `{name}`{age} in {}",
                    place(&store)
                ))?;
                let deleted = admin
                    .purge_archive(&name, older_than.unwrap_or_default())
                    .await?;
                session
                    .output
                    .print(&json!({"queue": name, "deleted": deleted}), || {
                        let deleted = counted(deleted, "archived message");
                        format!("deleted {deleted} of queue `{name}`")
                    })?;
            }
        }
        Ok(Exit::Done)
    }
}

fn show(info: &QueueInfo, stats: &QueueStats) -> String {
    let counts = facts([
        ("state", state(info)),
        ("ready", stats.ready.to_string()),
        ("delayed", stats.delayed.to_string()),
        ("parked", stats.parked.to_string()),
        ("leased", stats.leased.to_string()),
        ("dead letters", stats.dead.to_string()),
        ("oldest ready", spoken_if(stats.oldest_ready, "-")),
    ]);
    format!("{counts}\n\n{}", settings_of(info))
}

/// As the options of `queue set` name them.
fn settings_of(info: &QueueInfo) -> String {
    facts([
        ("max-attempts", info.max_attempts.to_string()),
        ("lease", spoken_if(info.lease, "none: as consumers say")),
        (
            "retry-min",
            spoken_if(info.retry_min, "none: as consumers say"),
        ),
        (
            "retry-max",
            spoken_if(info.retry_max, "none: as consumers say"),
        ),
        ("archive-on-ack", info.archive_on_ack.to_string()),
        ("sensitive", info.sensitive.to_string()),
        ("archive-for", spoken_if(info.archive_for, "none: for ever")),
        (
            "dead-letters-for",
            spoken_if(info.dead_letters_for, "none: for ever"),
        ),
        ("groups", groups(info)),
        (
            "groups-rate",
            (info.groups.and_then(|groups| groups.rate())).map_or("none".to_owned(), rate_text),
        ),
        (
            "max-running",
            info.max_running
                .map_or("none".to_owned(), |most| most.to_string()),
        ),
        ("rate", info.rate.map_or("none".to_owned(), rate_text)),
        ("created", shown(info.created_at)),
    ])
}

fn groups(info: &QueueInfo) -> String {
    match info.groups {
        None => "none".to_owned(),
        Some(groups) if groups.after_dead_letter() == AfterDeadLetter::Stop => {
            format!("{}, and stopped by dead letters", groups.at_once())
        }
        Some(groups) => groups.at_once().to_string(),
    }
}
