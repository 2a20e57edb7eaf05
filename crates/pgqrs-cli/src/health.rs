//! `health`: what to act on.

use clap::{Args, ValueEnum};
use pgqrs::Severity;

use crate::{exit::Exit, failure::Result, remedy::with_commands, session::Session};

#[derive(Args)]
pub(crate) struct Health {
    /// Exit with code 5 from this severity on
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "warning")]
    fail_on: FailOn,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    Info,
    Warning,
    Critical,
    /// Exit with 0, whatever was found
    Never,
}

impl Health {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let mut health = session.admin().await?.health().await?;
        for finding in &mut health.findings {
            finding.remedy = with_commands(&finding.remedy);
        }
        session.output.print(&health, || health.to_string())?;
        let limit = match self.fail_on {
            FailOn::Info => Some(Severity::Info),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Critical => Some(Severity::Critical),
            FailOn::Never => None,
        };
        let fails = limit.is_some_and(|limit| health.severity() >= Some(limit));
        Ok(if fails { Exit::Findings } else { Exit::Done })
    }
}
