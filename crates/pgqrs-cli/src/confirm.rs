//! Questions before anything is destroyed.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    output::printable,
};

#[derive(Args)]
pub(crate) struct Confirm {
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

impl Confirm {
    /// Asks whether to do this, unless `--yes` was passed. `what` is a clause such as ``delete 12 messages of queue `a` ``.
    pub(crate) fn ask(&self, what: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        let what = printable(what);
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::usage(format!(
                "this would {what}, and there is no terminal to ask on; pass `--yes` to do it"
            )));
        }
        eprint!("This will {what}. Continue? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Failure::new(Exit::Declined, "nothing was changed"))
        }
    }
}

#[derive(Args)]
pub(crate) struct Bulk {
    /// Print how many it would be, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) confirm: Confirm,
}
