//! What to do, in terms of this command. The library's messages name its functions: each call in backticks becomes the
//! command that does the same.

/// The calls of the library that its messages name, and the commands that do the same.
const COMMANDS: [(&str, &str); 13] = [
    ("install", "install"),
    ("messages", "messages"),
    ("workers", "workers"),
    ("schedules", "schedules"),
    ("create_queue", "queue create"),
    ("purge_queue", "queue purge"),
    ("resume_queue", "queue resume"),
    ("reopen_queue", "queue reopen"),
    ("resume_worker", "worker resume"),
    ("remove_worker", "worker remove"),
    ("release", "worker release"),
    ("delete_schedule", "schedule delete"),
    ("dead_letters", "dead list"),
];

/// A message with commands in place of calls.
pub(crate) fn with_commands(message: &str) -> String {
    let parts = message.split('`').enumerate().map(|(n, part)| {
        let is_code = n % 2 == 1;
        is_code
            .then(|| command(part))
            .flatten()
            .unwrap_or(part.to_owned())
    });
    parts.collect::<Vec<_>>().join("`")
}

/// The command for a call such as `pgqrs::admin(&store).purge_queue("emails")`.
fn command(code: &str) -> Option<String> {
    let call = code.trim_start_matches("pgqrs::");
    let call = call.strip_prefix("admin(&store).").unwrap_or(call);
    let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
    let (_, command) = COMMANDS.iter().find(|(call, _)| *call == name)?;
    let argument = arguments.split(", ..").next().unwrap_or_default();
    Some(match argument.trim_matches('"') {
        "" | ".." => format!("pgqrs {command}"),
        // A placeholder of the message.
        "id" => format!("pgqrs {command} WORKER"),
        argument => format!("pgqrs {command} {}", quoted(argument)),
    })
}

/// A name as a shell takes it.
pub(crate) fn quoted(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:@".contains(letter);
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_become_commands_and_everything_else_stays() {
        for (message, expected) in [
            (
                "start one: `pgqrs::admin(&store).workers(..)` lists workers, and `purge_queue(\"a b\")` deletes",
                "start one: `pgqrs workers` lists workers, and `pgqrs queue purge 'a b'` deletes",
            ),
            (
                "`pgqrs::admin(&store).messages(\"tasks\", ..)` shows the last errors",
                "`pgqrs messages tasks` shows the last errors",
            ),
            (
                "`release(5)` and `remove_worker(id)`",
                "`pgqrs worker release 5` and `pgqrs worker remove WORKER`",
            ),
            (
                "grant `pg_read_all_stats`, raise `concurrency`",
                "grant `pg_read_all_stats`, raise `concurrency`",
            ),
            (
                "run `select pg_terminate_backend(5)`",
                "run `select pg_terminate_backend(5)`",
            ),
        ] {
            assert_eq!(with_commands(message), expected);
        }
    }
}
