//! A PostgreSQL of a test's own, to be restarted and killed. Its binaries, and the user that it runs as,
//! are those of the server that all tests share.

use std::{
    env, fs,
    io::{self, Write},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sqlx::PgPool;

use super::TestResult;

pub(crate) struct Server {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    /// The user of its process, if that is another one than ours.
    owner: (u32, u32),
    /// How large a file may grow, in blocks of half a KiB. Beyond it, the disk is full.
    largest_file: AtomicU64,
    /// Beyond those of every start.
    settings: Mutex<Vec<String>>,
}

const NO_LIMIT: u64 = u64::MAX;

/// Beside the shared server's data if they are in memory; otherwise the system's temporary folder.
fn place(data: &Path) -> io::Result<PathBuf> {
    let data = fs::canonicalize(data)?;
    let beside = data.parent().filter(|_| data.starts_with("/dev/shm"));
    Ok(beside.map_or_else(env::temp_dir, Path::to_owned))
}

impl Server {
    pub(crate) async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let server = Self::create().await?;
        server.up()?;
        Ok(server)
    }

    /// Not started yet, so that it can be configured.
    pub(crate) async fn create() -> Result<Self, Box<dyn std::error::Error>> {
        let shared = PgPool::connect(&env::var("DATABASE_URL")?).await?;
        let (bin, data): (String, String) = sqlx::query_as(
            "select (select setting from pg_config where name = 'BINDIR'), current_setting('data_directory')",
        )
        .fetch_one(&shared)
        .await?;
        shared.close().await;
        Self::of_binaries(bin.into(), Path::new(&data))
    }

    /// With binaries of its own, but the user and the place of the shared server with these data.
    pub(super) fn of_binaries(
        bin: PathBuf,
        shared: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let owner = fs::metadata(shared)?;
        let server = Self::without_data(bin, (owner.uid(), owner.gid()), &place(shared)?)?;
        let data = server.data();
        server.run_own(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                // So that a limit to the size of files can be lower than the usual 16 MiB.
                "--wal-segsize=1",
            ],
        )?;
        Ok(server)
    }

    /// Adds lines to `postgresql.conf`, and replaces `pg_hba.conf`.
    pub(crate) fn configure(&self, settings: &str, admitted: &str) -> TestResult {
        let data = self.folder.join("data");
        let mut file = fs::File::options()
            .append(true)
            .open(data.join("postgresql.conf"))?;
        file.write_all(settings.as_bytes())?;
        fs::write(data.join("pg_hba.conf"), admitted)?;
        Ok(())
    }

    /// For files beside the server's data; it is removed with them.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a file readable for the server alone, as it demands of a private key.
    pub(crate) fn hand_over(&self, file: &Path) -> TestResult {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        std::os::unix::fs::chown(file, Some(self.owner.0), Some(self.owner.1))?;
        Ok(())
    }

    /// A program that runs as the server's user.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        self.adopt(&mut command);
        command
    }

    fn adopt(&self, command: &mut Command) {
        if fs::metadata("/proc/self").map_or(true, |me| me.uid() != self.owner.0) {
            command.uid(self.owner.0).gid(self.owner.1);
        }
    }

    fn without_data(
        bin: PathBuf,
        owner: (u32, u32),
        place: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let folder = place.join(format!("pgqrs-test-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        std::os::unix::fs::chown(&folder, Some(owner.0), Some(owner.1))?;
        let largest_file = AtomicU64::new(NO_LIMIT);
        Ok(Self {
            bin,
            folder,
            port,
            owner,
            largest_file,
            settings: Mutex::default(),
        })
    }

    /// A standby with a copy of all that this server has, which must be down. It isn't up yet, and will learn of nothing that this
    /// one does from now on, unless it is configured to replicate.
    pub(crate) fn copied_standby(&self) -> Result<Self, Box<dyn std::error::Error>> {
        let standby = self.sibling()?;
        standby.copy(self)?;
        Ok(standby)
    }

    /// A standby of this server, which must be up, that replicates through this port. It isn't up yet.
    pub(crate) fn standby(&self, port: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let standby = self.sibling()?;
        standby.follow(self, port)?;
        Ok(standby)
    }

    /// This server, which must be down, becomes a standby of that one, with a new copy of its data. It isn't up yet.
    pub(crate) fn follow(&self, primary: &Self, port: u16) -> TestResult {
        let data = self.data();
        if Path::new(&data).exists() {
            fs::remove_dir_all(&data)?;
        }
        let to = format!("host=127.0.0.1 port={port} user=postgres application_name=standby");
        if self.bin.join("pg_basebackup").exists() {
            let arguments = ["-R", "-X", "stream", "-c", "fast", "--no-sync"];
            let arguments = [&["-D", &data, "-d", &to], &arguments[..]].concat();
            return self.run_own("pg_basebackup", &arguments);
        }
        // npm's packages of PostgreSQL don't have it.
        primary.down("fast")?;
        self.copy(primary)?;
        primary.up()?;
        let mut file = fs::File::options()
            .append(true)
            .open(Path::new(&data).join("postgresql.conf"))?;
        file.write_all(format!("primary_conninfo = '{to}'\n").as_bytes())?;
        Ok(())
    }

    fn sibling(&self) -> Result<Self, Box<dyn std::error::Error>> {
        let place = self.folder.parent().ok_or("a folder without a parent")?;
        Self::without_data(self.bin.clone(), self.owner, place)
    }

    fn copy(&self, primary: &Self) -> TestResult {
        self.run("cp".as_ref(), &["-R", &primary.data(), &self.data()])?;
        let signal = format!("{}/standby.signal", self.data());
        self.run("touch".as_ref(), &[&signal])
    }

    /// From now on it can write.
    pub(crate) fn promote(&self) -> TestResult {
        self.run_own("pg_ctl", &["promote", "-D", &self.data(), "-w", "-s"])
    }

    /// From the next start on: as a disk that is full, or that has room again.
    pub(crate) fn limit_files(&self, largest: Option<u64>) {
        let blocks = largest.map_or(NO_LIMIT, |bytes| bytes / 512);
        self.largest_file.store(blocks, Ordering::Relaxed);
    }

    /// From the next start on, as `name=value`.
    pub(crate) fn set(&self, setting: String) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.push(format!(" -c {setting}"));
    }

    /// From the next start on it speaks TLS, with a new certificate that it has signed itself. Returns that one.
    pub(crate) fn certify(&self) -> Result<PathBuf, Box<dyn std::error::Error>> {
        let file = |name: &str| {
            self.folder
                .join(format!("{name}-{}", rand::random::<u32>()))
        };
        let (config, key, certificate) = (file("config"), file("key"), file("certificate"));
        fs::write(
            &config,
            "[req]\ndistinguished_name = name\n[name]\n[server]\nbasicConstraints = CA:FALSE\n\
             subjectAltName = IP:127.0.0.1\n",
        )?;
        let [config, key_path, certificate_path] =
            [&config, &key, &certificate].map(|path| path.to_string_lossy().into_owned());
        let arguments = [
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "rsa:2048",
            "-days",
            "2",
            "-subj",
            "/CN=server",
            "-config",
            &config,
            "-extensions",
            "server",
            "-keyout",
            &key_path,
            "-out",
            &certificate_path,
        ];
        self.run("openssl".as_ref(), &arguments)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        self.set("ssl=on".to_owned());
        self.set(format!("ssl_key_file={key_path}"));
        self.set(format!("ssl_cert_file={certificate_path}"));
        Ok(certificate)
    }

    /// From the next start on it can be reached over a socket too, in this folder.
    pub(crate) fn open_socket(&self) -> &Path {
        self.set(format!("unix_socket_directories={}", self.folder.display()));
        &self.folder
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn data(&self) -> String {
        self.folder.join("data").to_string_lossy().into_owned()
    }

    pub(crate) fn up(&self) -> TestResult {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let options = format!(
            // What is written outlives the server's process without fsync too.
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c shared_buffers=32MB \
             -c fsync=off{}",
            self.port,
            settings.concat()
        );
        drop(settings);
        let log = self.folder.join("log").to_string_lossy().into_owned();
        self.run_own(
            "pg_ctl",
            &[
                "start",
                "-D",
                &self.data(),
                "-w",
                "-s",
                "-l",
                &log,
                "-o",
                &options,
            ],
        )
    }

    /// `fast` as an operator stops it, `immediate` as a crash does.
    pub(crate) fn down(&self, mode: &str) -> TestResult {
        self.run_own(
            "pg_ctl",
            &["stop", "-D", &self.data(), "-w", "-s", "-m", mode],
        )
    }

    pub(crate) async fn restart(&self, mode: &str) -> TestResult {
        self.down(mode)?;
        self.up()
    }

    /// While other tasks go on.
    pub(crate) async fn restart_beside(self: &Arc<Self>, mode: &'static str) -> TestResult {
        let server = Arc::clone(self);
        let restarting = move || {
            let restarted = server.down(mode).and_then(|()| server.up());
            restarted.map_err(|error| error.to_string())
        };
        Ok(tokio::task::spawn_blocking(restarting).await??)
    }

    fn run_own(&self, tool: &str, arguments: &[&str]) -> TestResult {
        self.run(&self.bin.join(tool), arguments)
    }

    fn run(&self, tool: &Path, arguments: &[&str]) -> TestResult {
        let limit = self.largest_file.load(Ordering::Relaxed);
        let mut command = match limit {
            NO_LIMIT => Command::new(tool),
            _ => {
                let mut limited = Command::new("sh");
                // The server ignores the signal that goes with it, and gets a short write.
                let script = format!("ulimit -f {limit} && exec \"$@\"");
                limited.args(["-c", &script, "sh"]).arg(tool);
                limited
            }
        };
        command.args(arguments).current_dir("/");
        self.adopt(&mut command);
        let output = command
            .output()
            .map_err(|error| format!("{} doesn't start: {error}", tool.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{} failed: {said}", tool.display()).into());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.down("immediate");
        let _ = fs::remove_dir_all(&self.folder);
    }
}
