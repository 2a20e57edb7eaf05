//! Time from before a send, or a commit, to the start of the handler, in another, idle process; beside the minimum that
//! PostgreSQL needs: an insert with `pg_notify` in one statement, LISTEN, and a delete.

use std::{
    env,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pgqrs::{Delivery, Outcome as Handled};
use sqlx::{PgPool, postgres::PgListener};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    Outcome,
    figures::Samples,
    fresh,
    meter::Meter,
    report::{Rounds, Table},
};

const QUEUE: pgqrs::Queue<u64> = pgqrs::Queue::new("latency");

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

const BARE: &str = "insert and pg_notify, LISTEN, delete";
const OURS: &str = "enqueue, consumer.run";
const COMMIT: &str = "commit of store.begin(), consumer.run";
/// Messages of each row in a round.
const BLOCK: usize = 20;

pub(crate) async fn run(url: &str, meter: &Meter, quick: bool) -> Outcome<Vec<Table>> {
    let store = fresh(url).await?;
    store.queue(QUEUE).await?;
    sqlx::raw_sql(
        "drop table if exists bare; create table bare (id bigint generated always as identity primary key,
         sent bigint not null)",
    )
    .execute(store.pool())
    .await?;
    let rounds = if quick { 8 } else { 75 };
    let title =
        "from before a send to the start of its handler, in another, idle process; one each 20 ms";
    let mut table = Rounds::new(meter, title, rounds);
    let (mut ours, mut bare) = (
        Receiver::start(url, "ours").await?,
        Receiver::start(url, "bare").await?,
    );
    let mut connection = store.pool().acquire().await?;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while table.next() {
        let (mut of_ours, mut of_bare) = (Samples::default(), Samples::default());
        let mut of_commit = Samples::default();
        for _ in 0..BLOCK {
            tick.tick().await;
            let sent = now();
            pgqrs::enqueue()
                .message(&sent)
                .to(QUEUE)
                .execute(&store)
                .await?;
            of_ours.push(ours.took(sent, sent).await?);
            tick.tick().await;
            let mut tx = store.begin().await?;
            let sent = now();
            let enqueue = pgqrs::enqueue().message(&sent).to(QUEUE);
            enqueue.execute(&mut tx).await?;
            let committed = now();
            tx.commit().await?;
            of_commit.push(ours.took(sent, committed).await?);
            tick.tick().await;
            let sent = now();
            sqlx::query(
                "with sent as (insert into bare (sent) values ($1)) select pg_notify('bare', '')",
            )
            .bind(sent as i64)
            .execute(&mut *connection)
            .await?;
            of_bare.push(bare.took(sent, sent).await?);
        }
        for (name, samples) in [(BARE, of_bare), (OURS, of_ours), (COMMIT, of_commit)] {
            // A round's time is its median, since one slow message says nothing about the others.
            let median = samples.quantile(0.5).unwrap_or_default();
            table.add(name, 1, median, samples, None);
        }
    }
    table.quantile_at_most(1.5, 0.5, OURS, BARE, "wake-up, p50, to LISTEN and NOTIFY");
    table.quantile_at_most(2.0, 0.99, OURS, BARE, "wake-up, p99, to LISTEN and NOTIFY");
    table.quantile_at_most(
        1.2,
        0.5,
        COMMIT,
        OURS,
        "wake-up, p50, by a commit to by a send",
    );
    Ok(vec![table.finish()])
}

/// The other process, and its output: when a handler started, and when its message was sent.
struct Receiver {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Receiver {
    async fn start(url: &str, how: &str) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["receive", how])
            .env("DATABASE_URL", url)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut receiver = Self {
            _process: process,
            lines,
        };
        receiver.line().await?;
        Ok(receiver)
    }

    async fn line(&mut self) -> Outcome<String> {
        let line = tokio::time::timeout(Duration::from_secs(10), self.lines.next_line()).await??;
        Ok(line.ok_or("the other process ended")?)
    }

    /// The time from `since` to the start of the handler of the message sent at `sent`.
    async fn took(&mut self, sent: u64, since: u64) -> Outcome<Duration> {
        let line = self.line().await?;
        let (started, of) = line.split_once(' ').ok_or("two numbers")?;
        if of.parse::<u64>()? != sent {
            return Err(format!("{of} was received, and {sent} was sent").into());
        }
        Ok(Duration::from_nanos(
            started.parse::<u64>()?.saturating_sub(since),
        ))
    }
}

pub(crate) async fn receive(url: &str, how: &str) -> Outcome {
    if how == "ours" {
        let store = pgqrs::connect(url).await?;
        let consumer = pgqrs::consumer(QUEUE).create(&store).await?;
        println!("ready");
        consumer
            .run(|delivery: Delivery<u64>| async move {
                let started = now();
                println!("{started} {}", delivery.raw_payload());
                Handled::Done
            })
            .await?;
        return Ok(());
    }
    let pool = PgPool::connect(url).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("bare").await?;
    let mut connection = pool.acquire().await?;
    println!("ready");
    loop {
        listener.recv().await?;
        let rows: Vec<(i64,)> = sqlx::query_as("delete from bare returning sent")
            .fetch_all(&mut *connection)
            .await?;
        let started = now();
        for (sent,) in rows {
            println!("{started} {sent}");
        }
    }
}
