//! The same operations through PgBouncer in session and in transaction mode as without it: what each mode costs.
//! Without a PgBouncer that supports prepared statements nothing is measured.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pgqrs::{ConnectOptions, Store};
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinSet;

use crate::{
    Outcome,
    drain::fill,
    fresh,
    meter::Meter,
    report::{Rounds, Table},
    telemetry::work,
};

const DIRECT: &str = "without PgBouncer";
const SESSION: &str = "session mode";
const TRANSACTION: &str = "transaction mode";

const TASKS: usize = 64;

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let direct = fresh(url).await?;
    direct.queue("drain").await?;
    let Some(program) = program() else {
        eprintln!("there is no PgBouncer 1.21 or later: PGQRS_PGBOUNCER can name one");
        return Ok(Vec::new());
    };
    let session = PgBouncer::start(&program, url, &direct, "session").await?;
    let transaction = PgBouncer::start(&program, url, &direct, "transaction").await?;
    let stores = [
        (DIRECT, direct.clone()),
        (SESSION, session.connect().await?),
        (TRANSACTION, transaction.connect().await?),
    ];
    let rounds = if quick { 3 } else { 15 };
    let scale = if quick { 1 } else { 4 };
    let mut tables = Vec::new();

    let sends = 250 * scale;
    let title = format!("{sends} single sends, one after the other");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for (name, store) in &stores {
            let work = async |_: &mut _| send(store, sends).await;
            table.measure(name, sends, work).await?;
        }
        crate::clear(direct.pool()).await?;
    }
    tables.push(table.finish());

    let sends = 4_000 * scale;
    let title = format!("{sends} single sends of {TASKS} tasks");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for (name, store) in &stores {
            let work = async |_: &mut _| {
                let mut tasks = JoinSet::new();
                for _ in 0..TASKS {
                    let store = store.clone();
                    tasks.spawn(async move { send(&store, sends / TASKS).await });
                }
                while let Some(sent) = tasks.join_next().await {
                    sent??;
                }
                Ok(())
            };
            table.measure(name, sends, work).await?;
        }
        crate::clear(direct.pool()).await?;
    }
    tables.push(table.finish());

    let messages = 5_000 * scale;
    let title = format!("draining {messages} messages, handler that does nothing, concurrency 8");
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for (name, store) in &stores {
            fill(&direct, messages).await?;
            // Fails unless each message was acknowledged.
            let work = async |_: &mut _| work::drain(store, "drain", messages).await;
            table.measure(name, messages, work).await?;
        }
    }
    tables.push(table.finish());
    Ok(tables)
}

async fn send(store: &Store, messages: usize) -> Outcome {
    for n in 0..messages {
        let enqueue = pgqrs::enqueue().message(&n).to("drain");
        enqueue.execute(store).await?;
    }
    Ok(())
}

/// `PGQRS_PGBOUNCER`, one beside the checkout, or the system's: the first of these that is new enough.
fn program() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/engines");
    let beside = fs::read_dir(beside).into_iter().flatten().flatten();
    let beside = beside.map(|file| file.path()).filter(|file| {
        let name = file.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("pgbouncer-")
    });
    env::var_os("PGQRS_PGBOUNCER")
        .map(PathBuf::from)
        .into_iter()
        .chain(beside)
        .chain([PathBuf::from("/usr/sbin/pgbouncer")])
        .find(|program| version(program) >= Some((1, 21)))
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    let version = printed.lines().next()?.strip_prefix("PgBouncer ")?;
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A PgBouncer in front of the server, run as the server's user; killed on drop.
struct PgBouncer {
    process: Child,
    folder: PathBuf,
    url: String,
}

impl PgBouncer {
    async fn start(program: &Path, url: &str, direct: &Store, mode: &str) -> Outcome<Self> {
        let to: PgConnectOptions = url.parse()?;
        let (_, login) = url.split_once("://").ok_or("a URL")?;
        let (login, _) = login.split_once('@').ok_or("a URL with a login")?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let data: String = sqlx::query_scalar("select current_setting('data_directory')")
            .fetch_one(direct.pool())
            .await?;
        let owner = fs::metadata(data)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        // Copied, since the server's user may have no access to its folder.
        let folder = env::temp_dir().join(format!("pgqrs-pgbouncer-{port}"));
        fs::create_dir_all(&folder)?;
        let (copy, settings) = (folder.join("pgbouncer"), folder.join("pgbouncer.ini"));
        fs::copy(program, &copy)?;
        let text = format!(
            "[databases]\n* = user={user} password={password} host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nmax_client_conn = 200\npool_mode = {mode}\n\
             default_pool_size = 20\nmax_prepared_statements = 200\n",
            to.get_host(),
            to.get_port(),
        );
        fs::write(&settings, text)?;
        let mut command = Command::new(&copy);
        if fs::metadata("/proc/self").map_or(true, |me| me.uid() != owner.uid()) {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let command = command.arg("--quiet").arg(&settings).current_dir("/");
        let pooler = Self {
            process: command.stdin(Stdio::null()).spawn()?,
            folder,
            url: format!("postgres://{user}@127.0.0.1:{port}/postgres"),
        };
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), up).await?;
        Ok(pooler)
    }

    async fn connect(&self) -> Outcome<Store> {
        let options = ConnectOptions::builder()
            .url(&self.url)
            .max_connections(16)
            .build();
        Ok(pgqrs::connect_with(options).await?)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
