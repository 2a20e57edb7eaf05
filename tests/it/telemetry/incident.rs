//! An incident: all that can go wrong with messages, a worker and the server. Its whole log is in docs/guide/operating.md.

use std::{collections::HashMap, env, fs, path::Path, process::Stdio, sync::Arc, time::Duration};

use pgqrs::{
    ConnectOptions, Consumer, Delivery, Queue, QueueOptions, RetryPolicy, Store, UndecodablePolicy,
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{process::Command, sync::Semaphore, task::spawn_blocking};

use crate::{
    examples::compiled,
    support::{
        TestResult,
        consumers::{Seen, gate, pass},
        expire, newcomer,
        notes::Notes,
        server::Server,
        until,
    },
};

const EMAILS: Queue<String> = Queue::new("emails");

/// Does what its message says.
async fn handle(
    delivery: Delivery<String>,
    seen: Seen,
    gate: Arc<Semaphore>,
) -> Result<(), String> {
    seen.note(delivery.payload().clone());
    match (delivery.payload().as_str(), delivery.attempt()) {
        ("fails twice", 1 | 2) | ("fails always", _) => {
            Err("the mail server refused it: mailbox full".to_owned())
        }
        ("panics", 1) => panic!("index out of bounds"),
        ("loses its lease", 1) => {
            pass(&gate).await;
            Ok(())
        }
        ("hangs", _) => std::future::pending().await,
        _ => Ok(()),
    }
}

struct Incident {
    server: Arc<Server>,
    /// The test's own, beside the application's.
    pool: PgPool,
    store: Store,
    notes: Notes,
    seen: Seen,
    gate: Arc<Semaphore>,
}

impl Incident {
    async fn send(&self, message: &str) -> Result<pgqrs::MessageId, Box<dyn std::error::Error>> {
        let enqueue = pgqrs::enqueue().message(message).to("emails");
        Ok(enqueue.execute(&newcomer(&self.pool)).await?[0])
    }

    async fn no_message_is_left(&self) {
        until("all messages are settled", async || {
            let left = sqlx::query_scalar("select count(*) from pgqrs.messages");
            left.fetch_one(&self.pool)
                .await
                .is_ok_and(|left: i64| left == 0)
        })
        .await;
    }

    async fn messages_fail_and_die(&self) -> TestResult {
        for message in ["fails twice", "panics", "fails always"] {
            self.send(message).await?;
            self.no_message_is_left().await;
        }
        self.notes.until("moved to the dead letters", 1).await;
        // The queue's messages are strings.
        let enqueue = pgqrs::enqueue().message(&42).to("emails");
        enqueue.execute(&newcomer(&self.pool)).await?;
        self.notes.until("moved to the dead letters", 2).await;
        Ok(())
    }

    /// As if the process had been suspended by its machine for longer than its lease.
    async fn a_lease_is_lost(&self) -> TestResult {
        let id = self.send("loses its lease").await?;
        until("it is handled", async || {
            self.seen.times().contains_key("loses its lease")
        })
        .await;
        expire(&self.pool, id).await?;
        let others = newcomer(&self.pool);
        let other = pgqrs::dequeue().from(EMAILS).execute(&others);
        let other = other.await?.pop().ok_or("it is delivered again")?;
        self.gate.add_permits(1);
        self.notes.until("lease lost", 1).await;
        other.ack(&others).await?;
        Ok(())
    }

    async fn a_worker_is_killed(&self, consumer: pgqrs::WorkerId) -> TestResult {
        let owner = newcomer(&self.pool);
        let admin = pgqrs::admin(&owner);
        admin.suspend_worker(consumer).await?;
        self.notes.until("consumer suspended", 1).await;
        let killed = Command::new(compiled("consumer_process"))
            .arg("emails")
            .env("DATABASE_URL", self.server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        self.send("deadly").await?;
        let killed = killed.wait_with_output().await?;
        assert!(!killed.status.success());
        admin.resume_worker(consumer).await?;
        self.notes.until("consumer resumed", 1).await;
        self.no_message_is_left().await;
        Ok(())
    }

    async fn the_server_goes_and_comes_back(&self) -> TestResult {
        let beside = async |run: fn(&Server) -> TestResult| -> TestResult {
            let server = Arc::clone(&self.server);
            let ran = spawn_blocking(move || run(&server).map_err(|error| error.to_string()));
            Ok(ran.await??)
        };
        beside(|server| server.down("fast")).await?;
        self.notes.until("server away for", 1).await;
        beside(Server::up).await?;
        self.notes.until("server is back", 1).await;
        Ok(())
    }
}

async fn consumer(store: &Store) -> pgqrs::Result<Consumer<String>> {
    pgqrs::consumer(EMAILS)
        .identity("mailer", 1)
        .create(store)
        .await
}

#[tokio::test]
async fn the_log_of_an_incident_is_as_documented() -> TestResult {
    let server = Arc::new(Server::start().await?);
    let options = ConnectOptions::builder().url(server.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    let options = QueueOptions::builder().max_attempts(3).build();
    store.queue("emails").await?;
    pgqrs::admin(&store)
        .configure_queue("emails", options)
        .await?;
    let pool = PgPoolOptions::new().max_connections(2);
    let (notes, _guard) = Notes::start();
    let incident = Incident {
        pool: pool.connect(&server.url()).await?,
        server,
        store,
        notes,
        seen: Seen::default(),
        gate: gate(),
    };
    let consumer = consumer(&incident.store).await?;
    let own = consumer.handle();
    let run = consumer.run({
        let (seen, gate) = (incident.seen.clone(), Arc::clone(&incident.gate));
        move |delivery: Delivery<String>| handle(delivery, seen.clone(), Arc::clone(&gate))
    });
    let run = run
        .retry(RetryPolicy::fixed(Duration::from_millis(100)))
        .undecodable(UndecodablePolicy::dead_letter())
        .lease(Duration::from_secs(60))
        .shutdown_deadline(Duration::from_secs(2));
    let running = tokio::spawn(run);
    incident.messages_fail_and_die().await?;
    incident.a_lease_is_lost().await?;
    incident.a_worker_is_killed(own.id()).await?;
    incident.the_server_goes_and_comes_back().await?;
    incident.send("hangs").await?;
    until("it is handled", async || {
        incident.seen.times().contains_key("hangs")
    })
    .await;
    own.stop();
    running.await??;
    let lines = incident.notes.log().into_iter().map(|event| event.line());
    let log = normal(lines.collect());
    incident.pool.close().await;
    compare(&log)
}

/// The log without what differs from run to run: ids are counted from 1, ports and durations are always the same.
fn normal(lines: Vec<String>) -> String {
    let mut ids: HashMap<(bool, String), usize> = HashMap::new();
    let mut log = String::new();
    let mut was_away = false;
    for line in lines {
        if line.contains("server away for") {
            // How often it is reported depends on how long it took.
            if was_away {
                continue;
            }
            was_away = true;
        }
        let mut words = Vec::new();
        for word in line.split(' ') {
            let (name, value) = word.split_once('=').unwrap_or(("", word));
            let is_message = name == "message_id";
            if is_message || name.ends_with("worker_id") {
                let known = ids
                    .keys()
                    .filter(|(of_message, _)| *of_message == is_message);
                let next = known.count() + 1;
                let id = ids.entry((is_message, value.to_owned())).or_insert(next);
                words.push(format!("{name}={id}"));
            } else if name == "server" {
                words.push("server=\"db.example.com:5432/app\"".to_owned());
            } else {
                words.push(word.to_owned());
            }
        }
        let mut line = words.join(" ");
        if line.contains("server away for") {
            line = between(&line, "server away for ", " s", "5");
        }
        if line.contains("server is back after") {
            line = between(&line, "server is back after ", " s", "8");
        }
        if line.contains("server away") {
            // Which statement was under way is chance, and so is how it failed.
            line = between(
                &line,
                "error=\"",
                "\" error.type",
                "can't connect to PostgreSQL; check the URL, and that the \
                server runs and accepts connections: error communicating with database: Connection refused (os error 111)",
            );
            line = between(&line, "error.type=\"", "\"", "Connect");
        }
        log += &line;
        log.push('\n');
    }
    log
}

/// Replaces what is between two texts.
fn between(line: &str, before: &str, after: &str, new: &str) -> String {
    let Some((head, rest)) = line.split_once(before) else {
        return line.to_owned();
    };
    let Some(end) = rest.find(after) else {
        return line.to_owned();
    };
    format!("{head}{before}{new}{}", &rest[end..])
}

/// Compares the log with the one in the documentation, or replaces that one with `ACCEPT=1`.
fn compare(log: &str) -> TestResult {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/operating.md");
    let text = fs::read_to_string(&page)?;
    let (head, rest) = text
        .split_once("<!-- the log -->\n\n```text\n")
        .ok_or("the log begins")?;
    let (documented, tail) = rest.split_once("```\n").ok_or("the log ends")?;
    if env::var_os("ACCEPT").is_some() {
        fs::write(
            &page,
            format!("{head}<!-- the log -->\n\n```text\n{log}```\n{tail}"),
        )?;
        return Ok(());
    }
    assert_eq!(
        log, documented,
        "docs/guide/operating.md shows another log; to accept this one: `ACCEPT=1 cargo xtask test an_incident`"
    );
    Ok(())
}
