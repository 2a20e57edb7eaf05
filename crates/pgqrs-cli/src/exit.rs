//! The exit codes, which scripts rely on. docs/guide/command.md and the help list them.

use std::process::ExitCode;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All that was asked for is done.
    Done = 0,
    /// It was refused, or failed. The message says why, and what to do.
    Failed = 1,
    /// The command line is wrong, or a question can't be asked since there is no terminal.
    Usage = 2,
    /// A queue, message, worker or schedule that was named doesn't exist.
    NotFound = 3,
    /// The server can't be reached. Nothing was changed.
    Unreachable = 4,
    /// `verify` or `health` found something to act on.
    Findings = 5,
    /// Only a part is done: the message says which.
    Partial = 6,
    /// The connection broke, and it isn't known whether the last statement took effect.
    Uncertain = 7,
    /// A question was answered with no.
    Declined = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// For the help and the man page.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  refused or failed; the message says why, and what to do
    2  the command line is wrong, or there is no terminal to ask on and --yes is missing
    3  a queue, message, worker or schedule that was named doesn't exist
    4  the server can't be reached, and nothing was changed
    5  `verify` or `health` found something to act on
    6  only a part is done
    7  the connection broke, and it isn't known whether the last statement took effect
    8  a question was answered with no
  130  interrupted with Ctrl-C";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_each_code() {
        let all = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::Findings,
            Exit::Partial,
            Exit::Uncertain,
            Exit::Declined,
            Exit::Interrupted,
        ];
        let listed: Vec<u8> = EXIT_CODES
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        assert_eq!(listed, all.map(|exit| exit as u8));
    }
}
