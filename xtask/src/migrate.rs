//! Migrations from the command line, for services that don't install the schema themselves.

use std::{env, fmt::Write, fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use sqlx::{
    Connection, Executor, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
};

use tokio::time::{Instant, sleep};

use crate::cargo;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Apply the missing migrations
    Up(Up),
    /// Revert the newest migration
    Down(Down),
    /// Show which migrations are applied
    Status(Database),
    /// Print a psql script of what `up` does to an empty database
    Sql,
    /// Print the GRANTs for roles that don't own the schema
    ///
    /// For its owner to run, after each migration. A role can have several of these.
    Grants(Grants),
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Grants {
    /// A role that enqueues, and manages its own worker
    #[arg(long, value_name = "ROLE")]
    producer: Vec<String>,
    /// A role that claims and settles, and manages its own worker
    #[arg(long, value_name = "ROLE")]
    consumer: Vec<String>,
    /// A role that reads everything, requeues, and suspends workers
    #[arg(long, value_name = "ROLE")]
    operator: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Up {
    /// Apply up to this version only
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    #[command(flatten)]
    database: Database,
}

#[derive(Args)]
pub(crate) struct Down {
    /// Revert all migrations that are newer than this version; 0 reverts everything
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    #[command(flatten)]
    database: Database,
}

#[derive(Args)]
pub(crate) struct Database {
    /// The database; defaults to DATABASE_URL
    #[arg(long)]
    url: Option<String>,
}

pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(Up { to, database }) => {
            let migrator = migrator().await?;
            let before = database.applied().await?.len();
            migrate(&database.url()?, &migrator, Direction::Up(to)).await?;
            let after = database.applied().await?.len();
            println!(
                "{} applied, {after} of {} in place",
                after - before,
                ups(&migrator).count()
            );
            Ok(())
        }
        Command::Down(Down { to, database }) => {
            let migrator = migrator().await?;
            let applied = database.applied().await?;
            let Some(newest) = applied.last() else {
                bail!("there is no migration to revert")
            };
            let to = to.unwrap_or(newest.0 - 1);
            migrate(&database.url()?, &migrator, Direction::Down(to)).await?;
            println!("reverted down to version {to}");
            Ok(())
        }
        Command::Status(database) => {
            let applied = database.applied().await?;
            ensure_local(&mut connect(&database.url()?).await?).await?;
            for migration in ups(&migrator().await?) {
                let state = match applied
                    .iter()
                    .find(|applied| applied.0 == migration.version)
                {
                    None => "pending",
                    Some((_, checksum)) if *checksum == migration.checksum => "applied",
                    Some(_) => "applied, but CHANGED since",
                };
                println!(
                    "{:04}  {:<40}  {state}",
                    migration.version, migration.description
                );
            }
            Ok(())
        }
        Command::Grants(Grants {
            producer,
            consumer,
            operator,
        }) => {
            for (access, roles) in [
                ("producer", producer),
                ("consumer", consumer),
                ("operator", operator),
            ] {
                for role in roles {
                    print!("{}", grants(access, &role)?);
                }
            }
            Ok(())
        }
        Command::Sql => {
            print!("{}", script(&migrator().await?)?);
            Ok(())
        }
    }
}

pub(crate) enum Direction {
    Up(Option<i64>),
    Down(i64),
}

/// How long a migration retries to get its locks, and how long each statement waits for one: all later statements queue
/// up behind it. As in the crate's `install`.
const RETRY_FOR: Duration = Duration::from_secs(30);
const LOCK_TIMEOUT: &str = "set lock_timeout = '2s'";
/// On Citus the schema stays on the node that it is installed on. Elsewhere this has no effect.
const ON_ONE_NODE: &str = "set citus.enable_ddl_propagation = off";
const PAUSE: Duration = Duration::from_millis(500);

/// Uses connections of its own that are always closed: a run that fails keeps the migrator's lock until its connection
/// is closed.
pub(crate) async fn migrate(url: &str, migrator: &Migrator, direction: Direction) -> Result<()> {
    let give_up_at = Instant::now() + RETRY_FOR;
    loop {
        let mut connection = connect(url).await?;
        connection.execute(LOCK_TIMEOUT).await?;
        connection.execute(ON_ONE_NODE).await?;
        ensure_local(&mut connection).await?;
        let outcome = match direction {
            Direction::Up(to) => migrator.run_direct(to, &mut connection, false).await,
            Direction::Down(to) => migrator.undo(&mut connection, to).await,
        };
        connection.close().await?;
        match outcome {
            Err(error) if is_lock_timeout(&error) && Instant::now() < give_up_at => {
                sleep(PAUSE).await;
            }
            outcome => return outcome.context("the migration failed, and was undone"),
        }
    }
}

/// Citus refuses most statements on tables that it manages, those of migrations too.
async fn ensure_local(connection: &mut PgConnection) -> Result<()> {
    let managed: Option<String> = sqlx::query_scalar(
        "select string_agg('pgqrs.' || relname, ', ' order by relname)
         from pg_trigger
         join pg_class on pg_class.oid = tgrelid
         join pg_proc on pg_proc.oid = tgfoid
         where relnamespace = to_regnamespace('pgqrs') and proname = 'citus_truncate_trigger'",
    )
    .fetch_one(connection)
    .await?;
    match managed {
        Some(tables) => bail!(
            "Citus manages {tables}, and refuses most statements on them; docs/guide/scaling.md says how to make them \
             local to this node again"
        ),
        None => Ok(()),
    }
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|refusal| refusal.code());
    code.as_deref() == Some("55P03")
}

pub(crate) async fn migrator() -> Result<Migrator> {
    let mut migrator = Migrator::new(cargo::root().join("migrations")).await?;
    migrator.dangerous_set_table_name(HISTORY);
    migrator.create_schema("pgqrs");
    Ok(migrator)
}

const HISTORY: &str = "pgqrs._sqlx_migrations";

fn ups(migrator: &Migrator) -> impl Iterator<Item = &Migration> {
    migrator
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
}

async fn connect(url: &str) -> Result<PgConnection> {
    let after_login = url.split(['/', '?', '#']).nth(2).unwrap_or_default();
    let hosts = after_login.rsplit('@').next().unwrap_or_default();
    ensure!(
        !hosts.contains(','),
        "the URL names several hosts: name the primary alone, or use `pgqrs install`, which finds it"
    );
    PgConnection::connect(url)
        .await
        .context("can't connect to the database")
}

impl Database {
    fn url(&self) -> Result<String> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => env::var("DATABASE_URL").context(
                "which database? Pass it with --url, or set DATABASE_URL \
                 (`cargo xtask db start` prints the URL of one for development)",
            ),
        }
    }

    /// Versions and checksums, oldest first.
    async fn applied(&self) -> Result<Vec<(i64, std::borrow::Cow<'static, [u8]>)>> {
        let mut connection = connect(&self.url()?).await?;
        let applied = connection.list_applied_migrations(HISTORY).await;
        connection.close().await?;
        Ok(match applied {
            Ok(applied) => applied
                .into_iter()
                .map(|one| (one.version, one.checksum))
                .collect(),
            // No history: the schema was never installed.
            Err(error) if error.to_string().contains("does not exist") => Vec::new(),
            Err(error) => return Err(error.into()),
        })
    }
}

/// The GRANTs, as returned by the crate's `Access::grants`.
fn grants(access: &str, role: &str) -> Result<String> {
    let file = cargo::root().join(format!("grants/{access}.sql"));
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    Ok(fs::read_to_string(file)?.replace(":\"role\"", &quoted))
}

/// What `up` does to an empty database, including the history, so that the crate sees the schema as installed.
fn script(migrator: &Migrator) -> Result<String> {
    let mut script = String::from(
        "begin;\n\n\
         -- On Citus the schema stays on the node that it is installed on. Elsewhere this has no effect.\n\
         set local citus.enable_ddl_propagation = off;\n\n\
         create schema if not exists pgqrs;\n\n\
         create table if not exists pgqrs._sqlx_migrations (\n    \
             version bigint primary key,\n    \
             description text not null,\n    \
             installed_on timestamptz not null default now(),\n    \
             success boolean not null,\n    \
             checksum bytea not null,\n    \
             execution_time bigint not null\n);\n",
    );
    for migration in ups(migrator) {
        let (version, description) = (migration.version, &migration.description);
        let checksum: String = migration
            .checksum
            .iter()
            .fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        write!(
            script,
            "\n-- {version:04} {description}\n\n{}\n\
             insert into pgqrs._sqlx_migrations (version, description, success, checksum, execution_time)\n\
             values ({version}, '{description}', true, '\\x{checksum}', -1);\n",
            migration.sql.as_str(),
        )?;
    }
    script.push_str("\ncommit;\n");
    Ok(script)
}
