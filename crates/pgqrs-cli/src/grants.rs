//! `grants`: the privileges of roles that don't own the schema.

use clap::Args;
use pgqrs::Access;
use serde_json::json;

use crate::{exit::Exit, failure::Result, session::Session};

/// For the schema's owner to run, after each migration. A role can have several of these. Needs no database:
///
/// pgqrs grants --producer web --consumer worker | psql "$DATABASE_URL"
#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Grants {
    /// A role that sends, and manages its own worker
    #[arg(long, value_name = "ROLE")]
    producer: Vec<String>,
    /// A role that claims and settles, and manages its own worker
    #[arg(long, value_name = "ROLE")]
    consumer: Vec<String>,
    /// A role that reads everything, requeues, pauses queues, and suspends workers
    #[arg(long, value_name = "ROLE")]
    operator: Vec<String>,
}

impl Grants {
    pub(crate) fn run(self, session: &Session) -> Result<Exit> {
        let mut sql = String::new();
        for (access, roles) in [
            (Access::Producer, self.producer),
            (Access::Consumer, self.consumer),
            (Access::Operator, self.operator),
        ] {
            for role in roles {
                sql += &access.grants(&role);
            }
        }
        session.output.print(&json!({"sql": sql}), || sql.clone())?;
        Ok(Exit::Done)
    }
}
