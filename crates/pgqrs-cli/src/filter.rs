//! Conditions by which messages and dead letters are searched.

use clap::Args;
use pgqrs::{Admin, Cursor, SearchDeadLetters, SearchMessages};

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    output::printable,
    session::Session,
};

#[derive(Args, Clone)]
pub(crate) struct Filter {
    /// Only those of this group
    #[arg(long)]
    group: Option<String>,
    /// Only those with this header
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    header: Option<(String, String)>,
    /// Only those with this value in the payload, such as to.country=FR; elements of arrays have their number
    #[arg(long, value_name = "PATH=VALUE", value_parser = pair)]
    payload_at: Option<(String, String)>,
    /// Only those whose last attempt failed with an error that contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
}

/// Which page of a list, and how much of each message.
#[derive(Args, Clone)]
pub(crate) struct Pages {
    /// Maximum number of messages
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) limit: u32,
    /// Continue after this cursor, which the page before has printed
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<Cursor>,
    /// Print payloads too
    #[arg(long)]
    pub(crate) payload: bool,
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write it as NAME=VALUE".to_owned()),
    }
}

impl Filter {
    pub(crate) fn is_empty(&self) -> bool {
        self.group.is_none()
            && self.header.is_none()
            && self.payload_at.is_none()
            && self.error.is_none()
    }

    /// Refuses to search in the payloads of a sensitive queue: a result reveals what is in them.
    pub(crate) async fn check(&self, admin: &Admin, queue: &str) -> Result<()> {
        if self.payload_at.is_some() && admin.queue(queue).await?.sensitive {
            let hidden = hidden(queue);
            return Err(Failure::new(Exit::Failed, hidden));
        }
        Ok(())
    }

    pub(crate) fn messages(&self, mut search: SearchMessages) -> SearchMessages {
        if let Some(group) = &self.group {
            search = search.group(group);
        }
        if let Some((name, value)) = &self.header {
            search = search.header(name, value);
        }
        if let Some((path, value)) = &self.payload_at {
            search = search.payload_at(path.split('.'), value);
        }
        if let Some(error) = &self.error {
            search = search.error(error);
        }
        search
    }

    pub(crate) fn dead_letters(&self, mut search: SearchDeadLetters) -> SearchDeadLetters {
        if let Some(group) = &self.group {
            search = search.group(group);
        }
        if let Some((name, value)) = &self.header {
            search = search.header(name, value);
        }
        if let Some((path, value)) = &self.payload_at {
            search = search.payload_at(path.split('.'), value);
        }
        if let Some(error) = &self.error {
            search = search.error(error);
        }
        search
    }
}

/// Whether payloads that were read can be printed, if they are to be. To be asked after they were read, so that those of a
/// queue which was made sensitive meanwhile are hidden.
pub(crate) async fn may_print(
    session: &Session,
    admin: &Admin,
    queue: &str,
    is_wanted: bool,
) -> Result<bool> {
    if !is_wanted || !admin.queue(queue).await?.sensitive {
        return Ok(is_wanted);
    }
    session.output.note(&hidden(queue));
    Ok(false)
}

fn hidden(queue: &str) -> String {
    let queue = printable(queue);
    format!(
        "queue `{queue}` is sensitive, so its payloads are neither printed nor searched; `pgqrs queue set {queue} --sensitive false` changes that for everybody"
    )
}

/// How a list continues, for people. Whether there are more, and whether the search has ended before it has seen all.
pub(crate) fn continuation(next: Option<Cursor>, is_cut: bool) -> Option<String> {
    let next = next?;
    Some(if is_cut {
        format!("looked at 50,000; `--after {next}` goes on from there")
    } else {
        format!("there may be more: `--after {next}`")
    })
}
