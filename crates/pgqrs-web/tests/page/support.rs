//! A database with something of everything in it, the page on a port, and a Chromium.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::Router;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use pgqrs::{Cron, Store};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Waits until a condition holds. Fails after thirty seconds, saying what it waited for.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !holds().await {
            tick.tick().await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(held.is_ok(), "never came: {what}");
}

/// Two queues with messages in each state, dead letters, workers, and schedules.
pub(crate) async fn filled(pool: &PgPool) -> Result<Store, Box<dyn std::error::Error>> {
    let store = Store::from(pool.clone());
    for queue in ["emails", "invoices", "reports"] {
        store.queue(queue).await?;
    }
    let admin = pgqrs::admin(&store);
    let consumer = pgqrs::consumer("emails").identity("mail-1.example.com", 3_001);
    let consumer = consumer.create(&store).await?;
    pgqrs::producer("shop-1.example.com", 3_000, "invoices")
        .create(&store)
        .await?;
    for n in 0..12 {
        let message = pgqrs::enqueue()
            .message(&json!({"to": format!("customer-{n}@example.com"), "order": 12_345_678_901_234_567_u64, "lines": [n, 2]}))
            .header("tenant", if n % 2 == 0 { "acme" } else { "zeta" })
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .unique(format!("welcome-{n}"));
        message.to("emails").execute(&store).await?;
    }
    for delivery in consumer.dequeue().limit(6).execute(&store).await? {
        if delivery.id().get() % 2 == 0 {
            let reason = if delivery.id().get() % 4 == 0 {
                "mailbox full"
            } else {
                "attempts used up"
            };
            delivery.dead_letter(reason, &store).await?;
        }
    }
    sqlx::query(
        "update pgqrs.dead_letters set last_error = 'SMTP 552: the mailbox is over its quota'",
    )
    .execute(pool)
    .await?;
    for n in 0..3 {
        let later = pgqrs::enqueue()
            .message(&json!({ "report": n }))
            .delay(3_600 * (n + 1));
        later.to("reports").execute(&store).await?;
    }
    admin.pause_queue("reports").await?;
    let nightly = pgqrs::schedule("nightly-report", "reports").cron(Cron::parse("30 2 * * *")?);
    nightly
        .message(&json!({"kind": "nightly"}))
        .install(&store)
        .await?;
    let often = pgqrs::schedule("reminders", "emails").every(Duration::from_secs(900));
    often
        .message(&json!({"kind": "reminder"}))
        .install(&store)
        .await?;
    admin.fire_schedule("reminders").await?;
    admin.pause_schedule("reminders").await?;
    // A week of it, with one message that is dead, and some that are gone.
    sqlx::query(
        "insert into pgqrs.firings (schedule_id, slot, queue_id, scheduled_for, fired_at, message_id, is_closed)
         select s.id, n, case n when 2 then e.id else s.queue_id end, date_trunc('hour', now()) - n * interval '1 day',
             date_trunc('hour', now()) - n * interval '1 day' + interval '7 milliseconds',
             case n when 2 then (select min(id) from pgqrs.dead_letters) when 3 then null when 5 then null else 1000000 - n end,
             n = 5
         from pgqrs.schedules s, pgqrs.queues e, generate_series(1, 7) n
         where s.name = 'nightly-report' and e.name = 'emails'",
    )
    .execute(pool)
    .await?;
    Ok(store)
}

/// A server that ends with the test.
pub(crate) struct Served {
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a router at an address, `127.0.0.1:0` for a free port.
pub(crate) async fn serve(router: Router, address: &str) -> std::io::Result<Served> {
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let task = tokio::spawn(async move {
        // Ends with its task.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Served { url, task })
}

/// The folder of the workspace for what is built.
pub(crate) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}

/// A Chromium with its driver, which end with the test.
pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: tokio::process::Child,
}

fn is_installed(program: &str) -> bool {
    let mut version = Command::new(program);
    let version = version
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

impl Browser {
    pub(crate) async fn click(&self, what: Locator<'_>) -> TestResult {
        self.client.find(what).await?.click().await?;
        Ok(())
    }

    /// `None` if there is no Chromium; in CI that is a failure.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(&json!({})).await
    }

    pub(crate) async fn with(preferences: &Value) -> Option<Self> {
        if !is_installed("chromedriver") {
            let missing = "chromedriver isn't installed: apt-get install chromium chromium-driver";
            assert!(env::var_os("PGQRS_CI").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        }
        let mut driver = tokio::process::Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .expect("readable")
                .expect("it says its port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        // It would wait for its output to be read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let options = json!({
            "goog:chromeOptions": {
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"],
                "prefs": preferences,
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(options.as_object().expect("an object").clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts");
        Some(Self { client, driver })
    }

    pub(crate) async fn close(mut self) -> TestResult {
        self.client.close().await?;
        self.driver.kill().await?;
        Ok(())
    }

    pub(crate) async fn run(&self, script: &str) -> Result<Value, fantoccini::error::CmdError> {
        self.client.execute(script, Vec::new()).await
    }

    /// The text of an element; an empty one if it isn't there or isn't shown.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let Ok(element) = self.client.find(Locator::Css(selector)).await else {
            return String::new();
        };
        element.text().await.unwrap_or_default()
    }

    /// Whether the page shows a text, within some time.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        until(&format!("`{text}` in `{selector}`"), async || {
            self.text(selector).await.contains(text)
        })
        .await;
    }

    /// Keeps a picture of the whole page, as a build artefact.
    pub(crate) async fn picture(&self, name: &str, width: u32) -> TestResult {
        self.client.set_window_size(width, 900).await?;
        let height = self
            .run("return document.documentElement.scrollHeight")
            .await?;
        let height = u32::try_from(height.as_u64().unwrap_or(900)).unwrap_or(900);
        self.client
            .set_window_size(width, height.clamp(600, 3_000) + 140)
            .await?;
        let folder = target().join("page");
        fs::create_dir_all(&folder)?;
        fs::write(
            folder.join(format!("{name}.png")),
            self.client.screenshot().await?,
        )?;
        self.client.set_window_size(width, 900).await?;
        Ok(())
    }

    /// What axe-core finds wrong, as text; nothing if nothing is.
    pub(crate) async fn violations(&self) -> Result<String, Box<dyn std::error::Error>> {
        self.run(&axe()).await?;
        let script = "const done = arguments[arguments.length - 1];
             axe.run({ resultTypes: ['violations'] }).then((found) => done(found.violations.flatMap((violation) =>
                 violation.nodes.map((node) => `${violation.id}: ${node.html}: ${node.failureSummary}`)).join('\\n')));";
        let found = self.client.execute_async(script, Vec::new()).await?;
        Ok(found.as_str().unwrap_or("no answer").to_owned())
    }

    /// Emulates a reader who prefers dark or light colours.
    pub(crate) async fn prefer(&self, scheme: &str) -> TestResult {
        let parameters = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", parameters)
            .await?;
        Ok(())
    }

    pub(crate) async fn devtools(
        &self,
        command: &str,
        parameters: Value,
    ) -> Result<Value, fantoccini::error::CmdError> {
        let command = Devtools(json!({ "cmd": command, "params": parameters }));
        self.client.issue_cmd(command).await
    }

    /// What the console has reported since the last call, such as refusals of the policy.
    pub(crate) async fn console(&self) -> Result<Vec<String>, fantoccini::error::CmdError> {
        let entries = self.client.issue_cmd(ReadLog).await?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}

#[derive(Debug)]
struct Devtools(Value);

impl fantoccini::wd::WebDriverCompatibleCommand for Devtools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

#[derive(Debug)]
struct ReadLog;

impl fantoccini::wd::WebDriverCompatibleCommand for ReadLog {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({"type": "browser"}).to_string()),
        )
    }
}

/// axe-core, fetched once through npm.
fn axe() -> String {
    const VERSION: &str = "4.10.3";
    let folder = target().join(format!("axe-core-{VERSION}"));
    let file = folder.join("package/axe.min.js");
    if !file.exists() {
        let fresh = target().join(format!("axe-core-{}", std::process::id()));
        fs::create_dir_all(&fresh).expect("a folder");
        let run = |program: &str, arguments: &[&str]| {
            let child: std::io::Result<Child> = Command::new(program)
                .args(arguments)
                .current_dir(&fresh)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let ended = child.and_then(|mut child| child.wait());
            assert!(
                ended.is_ok_and(|ended| ended.success()),
                "{program} {arguments:?} failed"
            );
        };
        run("npm", &["pack", &format!("axe-core@{VERSION}")]);
        run("tar", &["-xzf", &format!("axe-core-{VERSION}.tgz")]);
        // Another test may have been faster.
        if fs::rename(&fresh, &folder).is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
    }
    fs::read_to_string(file).expect("it was fetched")
}
