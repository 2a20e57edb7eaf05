//! A Citus cluster of a test's own, whose nodes can be killed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use sqlx::{AssertSqlSafe, PgPool};

use super::{TestResult, server::Server};

/// A coordinator and two workers.
pub(crate) struct Cluster {
    pub(crate) coordinator: Server,
    pub(crate) workers: [Server; 2],
}

type Started<T> = Result<T, Box<dyn std::error::Error>>;

impl Cluster {
    /// `None` if there is no Citus on this machine. That is printed, and the test has nothing to do.
    pub(crate) async fn start() -> Started<Option<Self>> {
        let shared = PgPool::connect(&env::var("DATABASE_URL")?).await?;
        let (bin, share, data): (String, String, String) = sqlx::query_as(
            "select (select setting from pg_config where name = 'BINDIR'),
                 (select setting from pg_config where name = 'SHAREDIR'), current_setting('data_directory')",
        )
        .fetch_one(&shared)
        .await?;
        shared.close().await;
        let Some(bin) = binaries(&bin, &share) else {
            eprintln!(
                "skipped: PostgreSQL has no Citus; PGQRS_CITUS can name the folder of the binaries of one that has"
            );
            return Ok(None);
        };
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let Some(node) = node(&bin, Path::new(&data)).await? else {
                return Ok(None);
            };
            nodes.push(node);
        }
        let [coordinator, first, second] = <[Server; 3]>::try_from(nodes).map_err(|_| "three")?;
        let cluster = Self {
            coordinator,
            workers: [first, second],
        };
        let direct = PgPool::connect(&cluster.coordinator.url()).await?;
        for (function, node) in [
            ("citus_set_coordinator_host", &cluster.coordinator),
            ("citus_add_node", &cluster.workers[0]),
            ("citus_add_node", &cluster.workers[1]),
        ] {
            let add = format!("select {function}('127.0.0.1', {})", node.port());
            sqlx::query(AssertSqlSafe(add)).execute(&direct).await?;
        }
        direct.close().await;
        Ok(Some(cluster))
    }

    /// All nodes, the coordinator first.
    pub(crate) fn nodes(&self) -> [&Server; 3] {
        [&self.coordinator, &self.workers[0], &self.workers[1]]
    }
}

fn binaries(bin: &str, share: &str) -> Option<PathBuf> {
    let named = env::var_os("PGQRS_CITUS").map(PathBuf::from);
    let has_citus = || fs::exists(Path::new(share).join("extension/citus.control")).ok();
    named.or_else(|| has_citus()?.then(|| bin.into()))
}

/// A server with the extension; `None` if it can't load it, since it was built for another minor version.
async fn node(bin: &Path, shared: &Path) -> Started<Option<Server>> {
    let server = Server::of_binaries(bin.to_owned(), shared)?;
    for setting in [
        "shared_preload_libraries=citus",
        "max_worker_processes=32",
        // Its own certificate is of version 1, which rustls refuses; and nodes insist on TLS unless this says otherwise.
        "ssl=off",
        "citus.node_conninfo=sslmode=prefer",
        // What a killed node has left prepared is resolved soon.
        "citus.recover_2pc_interval=200ms",
    ] {
        server.set(setting.to_owned());
    }
    if let Err(error) = server.up() {
        let log = fs::read_to_string(server.folder().join("log")).unwrap_or_default();
        let Some(why) = log
            .lines()
            .find(|line| line.contains("could not load library"))
        else {
            return Err(error);
        };
        eprintln!("skipped: {why}");
        return Ok(None);
    }
    let direct = PgPool::connect(&server.url()).await?;
    sqlx::query("create extension citus")
        .execute(&direct)
        .await?;
    direct.close().await;
    Ok(Some(server))
}

/// Creates a distributed table with a number in each row, and nothing that keeps a number from being there twice.
pub(crate) async fn create_distributed(direct: &PgPool, table: &str) -> TestResult {
    for statement in [
        format!("create table {table} (number bigint not null, note text)"),
        format!("select create_distributed_table('{table}', 'number', shard_count := 4)"),
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(direct)
            .await?;
    }
    Ok(())
}
