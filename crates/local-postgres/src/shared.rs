//! A server that the processes of one test run share, and that ends with the run, however that ends.

use std::{
    env, fs, io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{Cluster, Home, Purpose, TEMPORARY, sweep};

impl Home {
    /// Starts a server that all processes of this test run share, unless one of them has done so. It is stopped and
    /// removed within a few seconds after the run has ended, also if that was killed.
    ///
    /// The run is that of `cargo test` or of cargo-nextest, if this process was started by one of them; otherwise it is
    /// this process. `prepare` is called with the URL of a new server, before any process gets it.
    pub async fn start_for_tests<P>(&self, prepare: impl FnOnce(String) -> P) -> Result<String>
    where
        P: Future<Output = Result<()>>,
    {
        self.start_for(&Run::of_this_process()?, prepare).await
    }

    async fn start_for<P>(&self, run: &Run, prepare: impl FnOnce(String) -> P) -> Result<String>
    where
        P: Future<Output = Result<()>>,
    {
        let cluster = self.cluster(&format!("{TEMPORARY}{}-tests", run.process));
        let lock = fs::File::create(run.lock_file(self))?;
        // Released when the process ends, whatever ends it.
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        let ready = cluster.folder.join(READY);
        if let Ok(url) = fs::read_to_string(&ready) {
            return Ok(url);
        }
        sweep(self);
        // What a process that was killed while it started one has left behind.
        cluster.remove();
        // From here on it ends with the run.
        run.watch(&cluster)?;
        let started = start(&cluster, prepare).await;
        if started.is_err() {
            cluster.remove();
        }
        drop(lock);
        started
    }
}

/// Written when the server can be used.
const READY: &str = "ready";

async fn start<P>(cluster: &Cluster<'_>, prepare: impl FnOnce(String) -> P) -> Result<String>
where
    P: Future<Output = Result<()>>,
{
    let url = cluster.start(Purpose::Tests, None).await?;
    prepare(url.clone()).await?;
    fs::write(cluster.folder.join(READY), &url)?;
    Ok(url)
}

/// The folder for servers and for downloaded binaries, in the user's folder of caches.
pub fn default_folder() -> PathBuf {
    let variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let caches = variable("XDG_CACHE_HOME").or_else(home);
    caches
        .unwrap_or_else(env::temp_dir)
        .join("pgqrs")
        .join("postgres")
}

/// A test run, by the process that leads it.
struct Run {
    process: u32,
    /// Ids are used again, but not with the same time.
    started: String,
}

/// When a process was started: another one with its id has another time. Nothing if it has ended.
const STARTED: &str = r#"
    started() {
        if [ -r "/proc/$1/stat" ]; then
            # After its name in brackets. A zombie has ended.
            sed -n 's/^.*) [^ZX] //p' "/proc/$1/stat" | cut -d ' ' -f 19
        else
            LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null
        fi
    }
"#;

/// Waits for the end of a process, and then stops a server and removes its folder.
const WATCH: &str = r#"
    while [ "$(started "$1")" = "$2" ]; do sleep 1; done
    pid="$(head -n 1 "$3/data/postmaster.pid" 2>/dev/null)"
    # At once: nobody needs its data.
    [ -z "$pid" ] || kill -QUIT "$pid"
    while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    # Which may be in memory.
    memory="$(readlink "$3/data")"
    [ -z "$memory" ] || rm -rf "$(dirname "$memory")"
    rm -rf "$3" "$4"
"#;

impl Run {
    fn of_this_process() -> Result<Self> {
        let parent = std::os::unix::process::parent_id();
        let command = fs::read_to_string(format!("/proc/{parent}/comm")).or_else(|_| {
            let mut ps = Command::new("ps");
            text(ps.args(["-o", "comm=", "-p", &parent.to_string()]))
        });
        let leads = command.is_ok_and(|command| {
            let name = command.trim().rsplit('/').next().unwrap_or_default();
            name.starts_with("cargo")
        });
        Self::led_by(if leads { parent } else { process::id() })
    }

    fn led_by(process: u32) -> Result<Self> {
        let script = format!("{STARTED} started \"$1\"");
        let mut started = Command::new("sh");
        let started = started.args(["-c", &script, "sh", &process.to_string()]);
        Ok(Self {
            process,
            started: text(started).context("sh doesn't start")?,
        })
    }

    fn lock_file(&self, home: &Home) -> PathBuf {
        home.folder.join(format!("tests-{}.lock", self.process))
    }

    /// Starts a process that stops the server when the run has ended.
    fn watch(&self, cluster: &Cluster<'_>) -> Result<()> {
        let mut watch = Command::new("sh");
        watch
            .args(["-c", &format!("{STARTED}{WATCH}"), "pgqrs-tests"])
            .arg(self.process.to_string())
            .arg(&self.started)
            .arg(&cluster.folder)
            .arg(self.lock_file(cluster.home))
            .current_dir("/")
            // Not ended by Ctrl-C, and nothing waits for its output.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        watch.spawn().context("sh doesn't start")?;
        Ok(())
    }
}

/// Runs a command, and returns what it prints.
fn text(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    #[tokio::test]
    async fn a_run_has_one_server_which_is_gone_after_the_run_was_killed() {
        let folder = env::temp_dir().join(format!("local-postgres-test-{}", process::id()));
        let home = Home::new(&folder).expect("a folder");
        let mut leader = Command::new("sleep").arg("600").spawn().expect("sleep");
        let run = Run::led_by(leader.id()).expect("it has a start time");
        assert!(!run.started.is_empty());
        let prepared = AtomicUsize::new(0);
        let prepare = async |_| {
            prepared.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let (one, other) =
            tokio::join!(home.start_for(&run, prepare), home.start_for(&run, prepare));
        assert_eq!(prepared.load(Ordering::Relaxed), 1);
        let (one, other) = (one.expect("started"), other.expect("found"));
        assert_eq!(one, other);
        let cluster = home.cluster(&format!("{TEMPORARY}{}-tests", run.process));
        assert_eq!(cluster.url_if_running(), Some(one));
        let data = fs::canonicalize(cluster.data()).expect("it has data");

        leader.kill().expect("it runs");
        leader.wait().expect("it is killed");
        let until = Instant::now() + Duration::from_secs(30);
        while cluster.folder.exists() || data.exists() || run.lock_file(&home).exists() {
            assert!(Instant::now() < until, "the server is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let _ = fs::remove_dir_all(&folder);
    }
}
