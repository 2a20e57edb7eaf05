//! A PgBouncer of a test's own, in front of a server of the test's own, to be restarted and killed.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{TestResult, server::Server, until};

pub(crate) struct PgBouncer {
    program: PathBuf,
    settings: PathBuf,
    port: u16,
    process: Option<Child>,
}

/// `PGQRS_PGBOUNCER`, or those beside the checkout or installed by the system, newest first.
fn programs() -> Vec<PathBuf> {
    let mut programs: Vec<_> = env::var_os("PGQRS_PGBOUNCER")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/engines");
    let files = fs::read_dir(beside).into_iter().flatten().flatten();
    let mut found: Vec<_> = files
        .filter(|file| file.file_name().to_string_lossy().starts_with("pgbouncer-"))
        .map(|file| file.path())
        .collect();
    found.sort_unstable();
    programs.extend(found.into_iter().rev());
    programs.push("/usr/sbin/pgbouncer".into());
    programs.retain(|program| program.exists());
    programs
}

/// The first two numbers of a PgBouncer's version. `None` if it doesn't run here, as for lack of a library.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    let version = printed.lines().next()?.strip_prefix("PgBouncer ")?;
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// All PgBouncers of this machine that are at least of a version. If there is none, that is printed, and the test has
/// nothing to do.
pub(crate) fn installed(at_least: (u32, u32)) -> Vec<PathBuf> {
    let mut programs = programs();
    programs.retain(|program| version(program) >= Some(at_least));
    if programs.is_empty() {
        eprintln!(
            "skipped: there is no PgBouncer {at_least:?} or later; PGQRS_PGBOUNCER can name one"
        );
    }
    programs
}

/// The first that keeps account of prepared statements in transaction mode.
pub(crate) const WITH_PREPARED_STATEMENTS: (u32, u32) = (1, 21);

impl PgBouncer {
    /// `settings` are lines for its section `[pgbouncer]`.
    pub(crate) async fn start(
        program: &Path,
        server: &Server,
        settings: &str,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        // Copied, since the server's user may have no access to its folder.
        let copy = server.folder().join(format!("pgbouncer-{port}"));
        fs::copy(program, &copy)?;
        let file = server.folder().join(format!("pgbouncer-{port}.ini"));
        // With `auth_type = any` the client's user isn't looked at.
        let text = format!(
            "[databases]\n* = user=postgres host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\nmax_client_conn = 200\nserver_login_retry = 1\n{settings}\n",
            server.port(),
        );
        fs::write(&file, text)?;
        let mut pooler = Self {
            program: copy,
            settings: file,
            port,
            process: None,
        };
        pooler.up(server).await?;
        Ok(pooler)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) async fn up(&mut self, server: &Server) -> TestResult {
        let process = server
            .command(&self.program)
            .arg("--quiet")
            .arg(&self.settings)
            .stdin(Stdio::null())
            .spawn()?;
        self.process = Some(process);
        until("PgBouncer accepts connections", async || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
        Ok(())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}
