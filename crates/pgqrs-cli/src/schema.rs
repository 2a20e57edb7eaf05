//! `install`, `migrate`, `verify`: the schema.

use std::fmt::Write;

use clap::Args;
use pgqrs::{MIGRATOR, SchemaVersion, sqlx::migrate::Migration};
use serde_json::json;

use crate::{
    exit::Exit,
    failure::{Failure, Result},
    output::counted,
    session::{Session, place},
};

#[derive(Args)]
pub(crate) struct Install {
    /// Print which migrations it would apply, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(crate) struct Migrate {
    /// Print which migrations it would apply, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the statements of the migrations that it would apply, and change nothing
    #[arg(long, conflicts_with = "dry_run")]
    sql: bool,
}

impl Install {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        upgrade(session, &store, self.dry_run).await
    }
}

impl Migrate {
    pub(crate) async fn run(self, session: &Session) -> Result<Exit> {
        let store = session.store().await?;
        let version = pgqrs::admin(&store).verify().await?;
        if version == SchemaVersion::NotInstalled {
            return Err(pgqrs::Error::NotInstalled.into());
        }
        if self.sql {
            let mut script = String::new();
            for migration in pending(&version) {
                let (version, description) = (migration.version, &migration.description);
                let sql = migration.sql.as_str();
                writeln!(script, "-- {version:04} {description}\n\n{sql}").expect("it is memory");
            }
            session.output.lines(&script)?;
            return Ok(Exit::Done);
        }
        upgrade(session, &store, self.dry_run).await
    }
}

async fn upgrade(session: &Session, store: &pgqrs::Store, dry_run: bool) -> Result<Exit> {
    let admin = pgqrs::admin(store);
    let before = admin.verify().await?;
    let pending = pending(&before);
    if dry_run {
        let migrations: Vec<_> = pending
            .iter()
            .map(|migration| {
                json!({"version": migration.version, "description": migration.description})
            })
            .collect();
        session.output.print(&json!({"pending": migrations}), || {
            if pending.is_empty() {
                return "nothing to do: the schema is up to date".to_owned();
            }
            let lines = pending.iter().map(|migration| {
                format!(
                    "would apply {:04} {}",
                    migration.version, migration.description
                )
            });
            lines.collect::<Vec<_>>().join("\n")
        })?;
        return Ok(Exit::Done);
    }
    admin.install().await?;
    let after = admin.verify().await?;
    let result = json!({"installed": installed(&after), "applied": pending.len()});
    session.output.print(&result, || {
        let version = installed(&after).unwrap_or_default();
        if pending.is_empty() {
            format!(
                "the schema of {} is up to date: version {version}",
                place(store)
            )
        } else {
            let applied = counted(pending.len() as u64, "migration");
            format!(
                "applied {applied}: the schema of {} is version {version}",
                place(store)
            )
        }
    })?;
    Ok(Exit::Done)
}

/// The migrations that are newer than a schema, oldest first.
fn pending(version: &SchemaVersion) -> Vec<&'static Migration> {
    let installed = installed(version).unwrap_or_default();
    MIGRATOR
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .filter(|migration| migration.version > installed)
        .collect()
}

fn installed(version: &SchemaVersion) -> Option<i64> {
    match *version {
        SchemaVersion::Older { installed, .. }
        | SchemaVersion::UpToDate { installed, .. }
        | SchemaVersion::Newer { installed, .. }
        | SchemaVersion::Distributed { installed, .. } => Some(installed),
        _ => None,
    }
}

/// Of a schema of which Citus manages tables. It doesn't turn those back that have identity columns.
const MAKE_LOCAL: &str = "save their rows with `pg_dump --data-only --schema=pgqrs --exclude-table=pgqrs._sqlx_migrations`, run `drop schema pgqrs cascade` and `pgqrs install`, and load the rows";

pub(crate) async fn verify(session: &Session) -> Result<Exit> {
    let version = session.admin().await?.verify().await?;
    let newest = MIGRATOR.iter().map(|migration| migration.version).max();
    let (state, remedy) = match &version {
        SchemaVersion::UpToDate { .. } => ("up to date", None),
        SchemaVersion::NotInstalled => ("not installed", Some("run `pgqrs install`")),
        SchemaVersion::Older { .. } => ("older than this command", Some("run `pgqrs migrate`")),
        SchemaVersion::Newer { .. } => (
            "newer than this command",
            Some("install a newer `pgqrs`; this one works unless the schema has lost something"),
        ),
        SchemaVersion::Distributed { .. } => ("managed by Citus", Some(MAKE_LOCAL)),
        _ => {
            return Err(Failure::new(
                Exit::Failed,
                "this state of the schema is unknown",
            ));
        }
    };
    let (on_citus, tables) = match &version {
        SchemaVersion::UpToDate { on_citus, .. } => (*on_citus, &[][..]),
        SchemaVersion::Distributed { tables, .. } => (true, &tables[..]),
        _ => (false, &[][..]),
    };
    let result = json!({
        "state": state,
        "installed": installed(&version),
        "compiled": newest,
        "on_citus": on_citus,
        "distributed": tables,
        "remedy": remedy,
    });
    session.output.print(&result, || {
        let numbers = match installed(&version) {
            Some(installed) => format!(
                ": version {installed}, and this command was built for {}",
                newest.unwrap_or_default()
            ),
            None => String::new(),
        };
        let place = match tables {
            [] if on_citus => "; its tables are local to this node of Citus".to_owned(),
            [] => String::new(),
            tables => format!("; these tables are not local: {}", tables.join(", ")),
        };
        let remedy = remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
        format!("the schema is {state}{numbers}{place}{remedy}")
    })?;
    Ok(match remedy {
        None => Exit::Done,
        Some(_) => Exit::Findings,
    })
}
