//! The command line: which commands there are, and the options that all of them have.

use clap::{Parser, Subcommand};

use crate::{
    cancel::Cancel,
    dead::Dead,
    exit::EXIT_CODES,
    grants::Grants,
    groups::{Group, Groups},
    health::Health,
    manual::{Completions, Man},
    messages::{Messages, Show},
    queue::Queue,
    queues::Queues,
    quickstart::Quickstart,
    schedules::Schedule,
    schema::{Install, Migrate},
    send::Send,
    tail::Tail,
    top::Top,
    web::Web,
    workers::{Worker, Workers},
};

/// Look after message queues in PostgreSQL, and send to them
#[derive(Parser)]
#[command(
    name = "pgqrs",
    version,
    after_help = EXIT_CODES,
    max_term_width = 100,
    propagate_version = true
)]
pub(crate) struct Arguments {
    /// The database: postgresql://user:password@host:5432/database
    ///
    /// Better set it as DATABASE_URL: other users of the machine can see the arguments of a command.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) database_url: Option<String>,
    /// Print results as JSON, and errors too
    ///
    /// One line, with durations in seconds, and times in UTC. A count beyond 10,000 may be a lower bound, and then has
    /// `"at_least": true`.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// See it run: a PostgreSQL of its own, and messages that flow
    Quickstart(Quickstart),
    /// Create the schema `pgqrs` in the database, or upgrade it
    Install(Install),
    /// Upgrade the schema of a database that has one
    Migrate(Migrate),
    /// Check that the schema is the one that this command was built for
    Verify,
    /// Report what to act on: what holds back vacuum, waiting messages, lost workers, connections
    Health(Health),
    /// List queues, with how many messages they hold
    Queues(Queues),
    /// Create, configure, pause, close, empty or delete a queue
    #[command(subcommand)]
    Queue(Queue),
    /// Send messages: one from the command line, or a line each from standard input
    Send(Send),
    /// List and search messages of a queue
    Messages(Messages),
    /// Show a message with all that is known of it, wherever it is
    Show(Show),
    /// Print what happens to the messages of a queue, as it happens
    Tail(Tail),
    /// Watch the queues in the terminal
    Top(Top),
    /// Serve the operators' page, by default to this machine
    Web(Web),
    /// List, retry or delete dead letters
    #[command(subcommand)]
    Dead(Dead),
    /// Cancel messages, waiting or running
    Cancel(Cancel),
    /// List groups of a queue, with how many of their messages are parked
    Groups(Groups),
    /// Show, stop, resume, limit, promote or purge a group
    #[command(subcommand)]
    Group(Group),
    /// List workers: producers and consumers
    Workers(Workers),
    /// Suspend, resume, stop or remove a worker
    #[command(subcommand)]
    Worker(Worker),
    /// List schedules, with their next times
    Schedules,
    /// Show, pause, resume, fire or delete a schedule
    #[command(subcommand)]
    Schedule(Schedule),
    /// Print the GRANTs for roles that don't own the schema
    Grants(Grants),
    /// Print a script that completes the command line of a shell
    Completions(Completions),
    /// Print the manual page of the command, or of one of its commands
    Man(Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
