//! `completions`, `man`: made from the command line's own description.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::{
    arguments::Arguments,
    exit::Exit,
    failure::{Failure, Result},
};

/// For bash: pgqrs completions bash > ~/.local/share/bash-completion/completions/pgqrs
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "pgqrs", &mut script);
        io::stdout().write_all(&script)?;
        Ok(Exit::Done)
    }
}

/// To read it: pgqrs man | man -l -
#[derive(Args)]
pub(crate) struct Man {
    /// A command, such as `send` or `queue pause`
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    path: Vec<String>,
    /// Write the pages of all commands as files into this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> Result<Exit> {
        let mut root = Arguments::command();
        root.build();
        if let Some(dir) = self.dir {
            std::fs::create_dir_all(&dir)
                .and_then(|()| clap_mangen::generate_to(root, &dir))
                .map_err(|error| {
                    let dir = dir.display();
                    Failure::new(Exit::Failed, format!("{dir} can't be written to: {error}"))
                })?;
            return Ok(Exit::Done);
        }
        let mut command = &root;
        for name in &self.path {
            command = command.find_subcommand(name).ok_or_else(|| {
                Failure::usage(format!("there is no command `{}`", self.path.join(" ")))
            })?;
        }
        let mut page = Vec::new();
        Page::new(command.clone()).render(&mut page)?;
        io::stdout().write_all(&page)?;
        Ok(Exit::Done)
    }
}
