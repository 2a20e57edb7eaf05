//! A PostgreSQL of one's own: found or downloaded, started in a folder, and stopped by the process that started it. For
//! tests, examples and a first look, which then need nothing but PostgreSQL's binaries. As root it runs as another user,
//! since PostgreSQL refuses root.

mod binaries;
mod purpose;
mod shared;

use std::{
    env, error, fmt, fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::binaries::{binaries, installed, major_of};
pub use self::{purpose::Purpose, shared::default_folder};

/// The supported major versions, oldest first.
pub const SUPPORTED: [u32; 5] = [14, 15, 16, 17, 18];

/// The folder of clusters, of which each is a server's, and of PostgreSQL's binaries that were downloaded.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
    /// Takes precedence over those that are found.
    bin: Option<PathBuf>,
}

impl Home {
    /// Creates the folder; or one under the system's temporary folder, if the user that the server runs as can't access
    /// this one.
    pub fn new(folder: &Path) -> Result<Self> {
        let folder = accessible(folder)?;
        Ok(Self { folder, bin: None })
    }

    /// Uses the binaries in this folder.
    pub fn with_binaries(mut self, bin: PathBuf) -> Self {
        self.bin = Some(bin);
        self
    }

    /// The folder of the installed binaries of a major version; by default of the first one found.
    pub fn installed(&self, major: Option<u32>) -> Option<PathBuf> {
        installed(major, self)
    }

    /// The folder, which the server's user can access.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The major version that is installed on this machine.
    pub fn installed_major(&self) -> Option<u32> {
        installed(None, self).as_deref().and_then(major_of)
    }

    /// Runs a function with a server's URL: that of [`start_for_development`](Self::start_for_development) if it is
    /// running and no major version is requested, otherwise that of a new server.
    pub async fn with(
        &self,
        major: Option<u32>,
        work: impl AsyncFnOnce(&str) -> Result<()>,
    ) -> Result<()> {
        match self.development().url_if_running() {
            Some(url) if major.is_none() => work(&url).await,
            _ => {
                let server = async |server: Server<'_>| work(server.url).await;
                self.with_new(Purpose::Tests, major, server).await
            }
        }
    }

    /// Runs a function with a new server, which is removed afterwards in any case, also on Ctrl-C. Its major version
    /// defaults to the installed one.
    ///
    /// # Errors
    /// [`Interrupted`] after Ctrl-C or SIGTERM.
    pub async fn with_new(
        &self,
        purpose: Purpose,
        major: Option<u32>,
        work: impl AsyncFnOnce(Server<'_>) -> Result<()>,
    ) -> Result<()> {
        let with_it = async |[server]: [Server<'_>; 1]| work(server).await;
        self.with_several([purpose], major, with_it).await
    }

    /// Runs a function with several new servers of one major version, in the order of their purposes, as
    /// [`with_new`](Self::with_new) does with one.
    ///
    /// # Errors
    /// As `with_new`.
    pub async fn with_several<const N: usize>(
        &self,
        purposes: [Purpose; N],
        major: Option<u32>,
        work: impl AsyncFnOnce([Server<'_>; N]) -> Result<()>,
    ) -> Result<()> {
        // From here on, a signal is handled only once there is something to clean up.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        sweep(self);
        let clusters = purposes.map(|purpose| {
            // A server of another version may be running for the same command.
            let count = STARTED.fetch_add(1, Ordering::Relaxed);
            let cluster = self.cluster(&format!("{TEMPORARY}{}-{count}", process::id()));
            (purpose, cluster)
        });
        let starting = async {
            let mut up = Vec::new();
            for (purpose, cluster) in &clusters {
                let url = cluster.start(*purpose, major).await?;
                up.push((url, cluster.url_file()));
            }
            Ok(up)
        };
        let outcome = match starting.await {
            Ok(up) => {
                let servers = std::array::from_fn(|n| {
                    let (url, url_file) = &up[n];
                    Server { url, url_file }
                });
                tokio::select! {
                    outcome = work(servers) => outcome,
                    _ = interrupt.recv() => Err(Interrupted("interrupted").into()),
                    _ = terminate.recv() => Err(Interrupted("terminated").into()),
                }
            }
            Err(error) => Err(error),
        };
        for (_, cluster) in &clusters {
            cluster.remove();
        }
        outcome
    }

    /// Starts a server that keeps running, if it isn't. Returns its URL.
    pub async fn start_for_development(&self) -> Result<String> {
        let cluster = self.development();
        match cluster.url_if_running() {
            Some(url) => Ok(url),
            None => cluster.start(Purpose::Tests, None).await,
        }
    }

    /// Stops the server that keeps running. Returns whether there was one.
    pub fn stop_for_development(&self) -> Result<bool> {
        let cluster = self.development();
        if cluster.url_if_running().is_none() {
            return Ok(false);
        }
        cluster.stop("fast")?;
        Ok(true)
    }

    /// The URL of the server that keeps running, if there is one.
    pub fn url_for_development(&self) -> Option<String> {
        self.development().url_if_running()
    }

    fn development(&self) -> Cluster<'_> {
        self.cluster(DEVELOPMENT)
    }

    fn cluster(&self, name: &str) -> Cluster<'_> {
        Cluster {
            home: self,
            folder: self.folder.join(name),
        }
    }
}

/// A server that runs.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Its URL, with its password.
    pub url: &'a str,
    /// A file that has the URL, and that only its owner can read.
    pub url_file: &'a Path,
}

/// A signal has ended the work.
#[derive(Debug)]
pub struct Interrupted(&'static str);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Interrupted {}

/// Servers that end with the command that started them have folders named after this, its process id, and how many it
/// had started before.
const TEMPORARY: &str = "run-";
static STARTED: AtomicUsize = AtomicUsize::new(0);
const DEVELOPMENT: &str = "development";

/// A file system in memory, and what has to be free of it, in bytes.
const MEMORY: &str = "/dev/shm";
const ENOUGH_MEMORY: u64 = 4 << 30;

/// Removes what a killed process left behind.
fn sweep(home: &Home) {
    for entry in fs::read_dir(&home.folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(TEMPORARY) else {
            continue;
        };
        let id = id.split('-').next().unwrap_or(id);
        let alive = Command::new("kill")
            .args(["-0", id])
            .output()
            .is_ok_and(|kill| kill.status.success());
        if !alive {
            Cluster {
                home,
                folder: entry.path(),
            }
            .remove();
        }
    }
}

/// The folder, or another one that the server's user can access.
fn accessible(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("{} can't be created", folder.display()))?;
    let Some(owner) = Owner::of_server()? else {
        return Ok(folder.to_owned());
    };
    let mut enter = Command::new("test");
    owner.adopt(enter.arg("-x").arg(folder));
    if enter.status().is_ok_and(|status| status.success()) {
        return Ok(folder.to_owned());
    }
    let name = folder.to_string_lossy().replace('/', "-");
    let elsewhere = env::temp_dir().join(format!("local-postgres-{name}"));
    fs::create_dir_all(&elsewhere)?;
    Ok(elsewhere)
}

/// The user that the server runs as, if we are root.
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of_server() -> Result<Option<Self>> {
        if id(&["-u"]) != Some(0) {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let (Some(user), Some(group)) = (id(&["-u", name]), id(&["-g", name])) {
                return Ok(Some(Self { user, group }));
            }
        }
        bail!(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
        )
    }

    fn adopt(&self, command: &mut Command) {
        command.uid(self.user).gid(self.group).current_dir("/");
    }
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

struct Cluster<'a> {
    home: &'a Home,
    folder: PathBuf,
}

impl Cluster<'_> {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn is_temporary(&self) -> bool {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(TEMPORARY)
    }

    /// Written when the server is up; read by other processes.
    fn url_file(&self) -> PathBuf {
        self.folder.join("url")
    }

    /// The folder of the server's binaries, so that a later command to stop the server needn't find or download them
    /// again.
    fn bin_file(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn bin(&self) -> Option<PathBuf> {
        match fs::read_to_string(self.bin_file()) {
            Ok(bin) => Some(bin.into()),
            Err(_) => installed(None, self.home),
        }
    }

    fn url_if_running(&self) -> Option<String> {
        let url = fs::read_to_string(self.url_file()).ok()?;
        let bin = self.bin()?;
        self.run(&bin, "pg_ctl", &["status", "-D", self.data().to_str()?])
            .ok()?;
        Some(url)
    }

    /// Puts the data into memory, if there is enough: a test's new database costs half the processor time there that it
    /// costs on a disk, even without durability.
    fn keep_in_memory(&self, owner: Option<&Owner>) -> Result<()> {
        let is_large = rustix::fs::statvfs(MEMORY)
            .is_ok_and(|memory| memory.f_bavail.saturating_mul(memory.f_frsize) >= ENOUGH_MEMORY);
        if !is_large {
            return Ok(());
        }
        let name = self
            .folder
            .file_name()
            .context("a cluster without a name")?;
        let folder = Path::new(MEMORY).join(format!("local-postgres-{}", name.display()));
        let data = folder.join("data");
        // Of a process with this one's id, whose own folder was removed by hand.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder)?;
        fs::create_dir(&data)?;
        for folder in [&folder, &data] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            self.hand_over(folder, owner)?;
        }
        std::os::unix::fs::symlink(data, self.data())?;
        Ok(())
    }

    async fn start(&self, purpose: Purpose, major: Option<u32>) -> Result<String> {
        let bin = binaries(major, self.home)?;
        let owner = Owner::of_server()?;
        fs::create_dir_all(&self.folder)?;
        fs::write(self.bin_file(), bin.as_os_str().as_encoded_bytes())?;
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700))?;
        self.hand_over(&self.folder, owner.as_ref())?;
        if !purpose.is_durable() && self.is_temporary() {
            self.keep_in_memory(owner.as_ref())?;
        }
        let data = self.data();
        let data = data.to_str().context("a path that isn't UTF-8")?;
        let password = self.password(owner.as_ref())?;
        if !self.data().join("PG_VERSION").exists() {
            eprintln!("creating a PostgreSQL in {}", self.folder.display());
            let password_file = self.password_file();
            let password_file = password_file.to_str().context("a path that isn't UTF-8")?;
            // Over TCP with a password, since every user of the machine can connect; over the socket without one, since
            // only its owner can.
            self.run(
                &bin,
                "initdb",
                &[
                    "-D",
                    data,
                    "-U",
                    "postgres",
                    "--pwfile",
                    password_file,
                    "--auth-host=password",
                    "--auth-local=trust",
                    "--no-sync",
                    "-E",
                    "UTF8",
                    "--locale=C",
                ],
            )?;
        }
        // Free now. If another process takes it before the server does, the start fails with an error that says so.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let options = [
            format!("-p {port}"),
            "-c listen_addresses=127.0.0.1".to_owned(),
            format!("-c unix_socket_directories='{}'", self.socket_folder()),
            "-c unix_socket_permissions=0700".to_owned(),
            purpose.settings(),
        ]
        .join(" ");
        let log = self.folder.join("log");
        let log = log.to_str().context("a path that isn't UTF-8")?;
        let start = [
            "start", "-D", data, "-w", "-t", "60", "-s", "-l", log, "-o", &options,
        ];
        if let Err(error) = self.run(&bin, "pg_ctl", &start) {
            let log = fs::read_to_string(log).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(20).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("{error}\nthe server's log ends with:\n{}", end.join("\n"));
        }
        let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        fs::write(self.url_file(), &url)?;
        Ok(url)
    }

    fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }

    fn password(&self, owner: Option<&Owner>) -> Result<String> {
        if let Ok(password) = fs::read_to_string(self.password_file()) {
            return Ok(password);
        }
        let random = fs::File::open("/dev/urandom").and_then(|mut source| {
            let mut bytes = [0; 16];
            std::io::Read::read_exact(&mut source, &mut bytes)?;
            Ok(bytes)
        });
        let password: String = random?.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.password_file(), &password)?;
        fs::set_permissions(self.password_file(), fs::Permissions::from_mode(0o600))?;
        self.hand_over(&self.password_file(), owner)?;
        Ok(password)
    }

    fn hand_over(&self, path: &Path, owner: Option<&Owner>) -> Result<()> {
        if let Some(owner) = owner {
            std::os::unix::fs::chown(path, Some(owner.user), Some(owner.group))?;
        }
        Ok(())
    }

    /// The cluster's own folder if that isn't too long for a socket's path; otherwise none.
    fn socket_folder(&self) -> String {
        let folder = self.folder.to_string_lossy();
        if folder.len() < 80 && !folder.contains(['\'', ',', ' ']) {
            folder.into_owned()
        } else {
            String::new()
        }
    }

    fn stop(&self, mode: &str) -> Result<()> {
        let bin = self.bin().context("PostgreSQL's binaries are gone")?;
        let data = self.data();
        let data = data.to_str().context("a path that isn't UTF-8")?;
        self.run(
            &bin,
            "pg_ctl",
            &["stop", "-D", data, "-m", mode, "-w", "-s"],
        )?;
        let _ = fs::remove_file(self.url_file());
        Ok(())
    }

    /// Stops it if it is running, and deletes it.
    fn remove(&self) {
        // This usually fails because the server never started.
        let _ = self.stop("immediate");
        if let Some(in_memory) = fs::read_link(self.data())
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            let _ = fs::remove_dir_all(in_memory);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn run(&self, bin: &Path, tool: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(bin.join(tool));
        command.args(arguments);
        if let Some(owner) = Owner::of_server()? {
            owner.adopt(&mut command);
        }
        let output = command
            .output()
            .with_context(|| format!("{tool} doesn't start"))?;
        ensure!(
            output.status.success(),
            "{tool} failed: {}{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
        Ok(())
    }
}
