//! A PostgreSQL of a test's own, to be restarted and killed. Its binaries, and the user that it runs as,
//! are those of the server that all tests share.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};

use sqlx::PgPool;

use super::TestResult;

pub(crate) struct Server {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Whose process it is, where we are another user.
    owner: (u32, u32),
}

impl Server {
    pub(crate) async fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let shared = PgPool::connect(&env::var("DATABASE_URL")?).await?;
        let (bin, data): (String, String) = sqlx::query_as(
            "select (select setting from pg_config where name = 'BINDIR'), current_setting('data_directory')",
        )
        .fetch_one(&shared)
        .await?;
        shared.close().await;
        let owner = fs::metadata(data)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let folder = env::temp_dir().join(format!("pgqrs-test-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder)?;
        std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
        let server = Self {
            bin: bin.into(),
            folder,
            port,
            owner: (owner.uid(), owner.gid()),
        };
        let data = server.data();
        server.run(
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
            ],
        )?;
        server.up()?;
        Ok(server)
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
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c shared_buffers=32MB",
            self.port
        );
        let log = self.folder.join("log").to_string_lossy().into_owned();
        self.run(
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
        self.run(
            "pg_ctl",
            &["stop", "-D", &self.data(), "-w", "-s", "-m", mode],
        )
    }

    pub(crate) async fn restart(&self, mode: &str) -> TestResult {
        self.down(mode)?;
        self.up()
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> TestResult {
        let mut command = Command::new(self.bin.join(tool));
        command.args(arguments).current_dir("/");
        if fs::metadata("/proc/self").map_or(true, |me| me.uid() != self.owner.0) {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{tool} failed: {said}").into());
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
