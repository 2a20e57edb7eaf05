//! `pgqrs`: looks after message queues in PostgreSQL, and sends to them. Everything that it does to a queue goes through
//! the public API of the library.

mod arguments;
mod cancel;
mod confirm;
mod dead;
mod exit;
mod failure;
mod filter;
mod grants;
mod groups;
mod health;
mod manual;
mod messages;
mod output;
mod queue;
mod queues;
mod quickstart;
mod redact;
mod remedy;
mod schedules;
mod schema;
mod send;
mod session;
mod table;
mod tail;
mod times;
mod top;
mod web;
mod workers;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    arguments::{Arguments, Command},
    exit::Exit,
    failure::Result,
    output::Output,
    redact::without_passwords,
    session::Session,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let output = Output::new(arguments.json);
    let session = Session::new(arguments.database_url, output);
    match run(arguments.command, &session).await {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

async fn run(command: Command, session: &Session) -> Result<Exit> {
    match command {
        Command::Install(install) => install.run(session).await,
        Command::Migrate(migrate) => migrate.run(session).await,
        Command::Verify => schema::verify(session).await,
        Command::Health(health) => health.run(session).await,
        Command::Queues(queues) => queues.run(session).await,
        Command::Queue(queue) => queue.run(session).await,
        Command::Messages(messages) => messages.run(session).await,
        Command::Show(show) => show.run(session).await,
        Command::Tail(tail) => tail.run(session).await,
        Command::Top(top) => top.run(session).await,
        Command::Web(web) => web.run(session).await,
        Command::Send(send) => send.run(session).await,
        Command::Dead(dead) => dead.run(session).await,
        Command::Cancel(cancel) => cancel.run(session).await,
        Command::Workers(workers) => workers.run(session).await,
        Command::Worker(worker) => worker.run(session).await,
        Command::Schedules => schedules::list(session).await,
        Command::Schedule(schedule) => schedule.run(session).await,
        Command::Groups(groups) => groups.run(session).await,
        Command::Group(group) => group.run(session).await,
        Command::Grants(grants) => grants.run(session),
        Command::Quickstart(quickstart) => quickstart.run(session).await,
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

/// Prints help, or what is wrong with the command line. A URL among the arguments is printed without its password.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // The help or the version. If nobody reads it, nothing is lost.
        let _ = error.print();
        return Exit::Done.into();
    }
    eprint!("{}", without_passwords(&error.to_string()));
    Exit::Usage.into()
}
