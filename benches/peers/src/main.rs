//! Other Rust queues on PostgreSQL beside this one: each by its own best public way, in a database of its own
//! on the same server, in turn. `cargo xtask bench peers` builds and runs it; `docs/benchmarks.md` shows what
//! came of it.

#[path = "../../chart.rs"]
mod chart;
#[path = "../../figures.rs"]
mod figures;
mod handled;
#[path = "../../machine.rs"]
mod machine;
#[path = "../../meter.rs"]
mod meter;
mod peer;
#[path = "../../report.rs"]
#[expect(dead_code, reason = "the rest is for the library's own benchmarks")]
mod report;

use std::{
    env,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines, stdin},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    figures::Samples,
    meter::Meter,
    peer::{For, Peer},
    report::{Report, Rounds, Table},
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// About 200 bytes as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    /// Nanoseconds since 1970.
    sent: u64,
    text: String,
}

impl Payload {
    fn new() -> Self {
        Self {
            sent: handled::now(),
            text: "x".repeat(160),
        }
    }
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let url = env::var("DATABASE_URL").map_err(|_| "run it as `cargo xtask bench peers`")?;
    if let [what, name] = &arguments[..]
        && what == "receive"
    {
        return receive(name, &url).await;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let wanted = |name: &str| {
        let mut names = arguments.iter().filter(|a| !a.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|part| name.contains(part.as_str()))
    };
    let mut meter = Meter::new(&url).await?;
    machine::report(&mut meter, quick).await?.write()?;
    let mut peers: Vec<Arc<dyn Peer>> = Vec::new();
    for name in peer::NAMES.into_iter().filter(|name| wanted(name)) {
        let url = database(&meter, &url, name).await?;
        peers.push(peer::connect(name, &url, true).await?);
    }
    let mut report = Report::new("peers", quick);
    // Those first that need an empty queue: the others leave messages behind that are not handled.
    let end_to_end = end_to_end(&meter, &peers, quick).await?;
    let wake_up = wake_up(&meter, &peers, &url, quick).await?;
    report.tables = vec![
        single(&meter, &peers, if quick { 4 } else { 30 }).await?,
        concurrent(&meter, &peers, quick).await?,
        batch(&meter, &peers, if quick { 5 } else { 40 }).await?,
        end_to_end,
        wake_up,
    ];
    report.write()
}

/// A new database, and its URL.
async fn database(meter: &Meter, url: &str, name: &str) -> Outcome<String> {
    let database = database_name(name);
    for statement in ["drop database if exists", "create database"] {
        // The name is one of ours.
        sqlx::raw_sql(AssertSqlSafe(format!("{statement} {database}")))
            .execute(meter.pool())
            .await?;
    }
    Ok(url_of(url, name))
}

fn database_name(peer: &str) -> String {
    let letters = peer
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    format!("peer_{}", letters.collect::<String>())
}

fn url_of(url: &str, peer: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap_or((url, ""));
    format!("{server}/{}", database_name(peer))
}

async fn single(meter: &Meter, peers: &[Arc<dyn Peer>], rounds: usize) -> Outcome<Table> {
    const BLOCK: usize = 25;
    let title = "peers: one message after another";
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        for peer in peers {
            table
                .measure(peer.name(), BLOCK, async |calls| {
                    for _ in 0..BLOCK {
                        let started = Instant::now();
                        peer.send(Payload::new()).await?;
                        calls.push(started.elapsed());
                    }
                    Ok(())
                })
                .await?;
        }
    }
    Ok(table.finish())
}

async fn concurrent(meter: &Meter, peers: &[Arc<dyn Peer>], quick: bool) -> Outcome<Table> {
    const TASKS: usize = 64;
    let (each, rounds) = if quick { (8, 3) } else { (32, 10) };
    let title = format!("peers: {TASKS} tasks, each {each} single sends");
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        for peer in peers {
            let work = async |calls: &mut Samples| tasks(calls, peer, TASKS, each).await;
            table.measure(peer.name(), TASKS * each, work).await?;
        }
    }
    Ok(table.finish())
}

async fn tasks(calls: &mut Samples, peer: &Arc<dyn Peer>, tasks: usize, each: usize) -> Outcome {
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let peer = Arc::clone(peer);
            tokio::spawn(async move {
                let mut calls = Samples::default();
                for _ in 0..each {
                    let started = Instant::now();
                    peer.send(Payload::new()).await?;
                    calls.push(started.elapsed());
                }
                Outcome::Ok(calls)
            })
        })
        .collect();
    for task in running {
        calls.extend(task.await??);
    }
    Ok(())
}

fn thousand() -> Vec<Payload> {
    vec![Payload::new(); 1_000]
}

async fn batch(meter: &Meter, peers: &[Arc<dyn Peer>], rounds: usize) -> Outcome<Table> {
    let title = "peers: batches of 1000 messages";
    let mut table = Rounds::new(meter, title, rounds).compared();
    while table.next() {
        for peer in peers {
            table
                .measure(peer.name(), 1_000, async |calls| {
                    let started = Instant::now();
                    peer.send_all(thousand()).await?;
                    calls.push(started.elapsed());
                    Ok(())
                })
                .await?;
        }
    }
    Ok(table.finish())
}

/// From the first send to the last handler, while the handlers are running.
async fn end_to_end(meter: &Meter, peers: &[Arc<dyn Peer>], quick: bool) -> Outcome<Table> {
    const START_TIMEOUT: Duration = Duration::from_secs(180);
    let (messages, rounds) = if quick { (1_000, 2) } else { (5_000, 4) };
    let title = format!("peers: {messages} messages in batches of 1000, sent and handled");
    let mut table = Rounds::new(meter, title, rounds).compared();
    let mut failed = Vec::new();
    while table.next() {
        for peer in peers {
            if failed.contains(&peer.name()) {
                continue;
            }
            let running = peer.handle(For::Throughput).await?;
            // A worker that has just started may still be registering itself.
            let first = handled::expect(1);
            peer.send(Payload::new()).await?;
            let ready = timeout(START_TIMEOUT, first).await;
            let work = async |_: &mut Samples| {
                let all = handled::expect(messages);
                for _ in 0..messages / 1_000 {
                    peer.send_all(thousand()).await?;
                }
                Ok(timeout(START_TIMEOUT, all).await?)
            };
            let done = match ready {
                Ok(()) => table.measure(peer.name(), messages, work).await,
                Err(late) => Err(late.into()),
            };
            // One that doesn't get there leaves its row as it is, and the others go on.
            if let Err(error) = done {
                eprintln!("{}: {error}", peer.name());
                table.leave_empty(peer.name());
                failed.push(peer.name());
            }
            running.stop().await?;
        }
    }
    for peer in &peers[1..] {
        let (ours, other) = (peers[0].name(), peer.name());
        table.at_least(1.0, ours, other, format!("sent and handled, to {other}"));
    }
    Ok(table.finish())
}

/// From before a send to the start of its handler, in another process that is idle. No other peer's is there at
/// that time: some are busy while they have nothing to do, and all share the processors.
async fn wake_up(meter: &Meter, peers: &[Arc<dyn Peer>], url: &str, quick: bool) -> Outcome<Table> {
    const BLOCK: usize = 40;
    let rounds = if quick { 1 } else { 10 };
    let title = "peers: from before a send to the start of its handler, in another, idle process";
    let mut table = Rounds::new(meter, title, rounds);
    while table.next() {
        for peer in peers {
            let measured = async {
                let mut receiver = Receiver::start(&url_of(url, peer.name()), peer).await?;
                let mut tick = tokio::time::interval(Duration::from_millis(20));
                let mut samples = Samples::default();
                for _ in 0..BLOCK {
                    tick.tick().await;
                    samples.push(receiver.send(peer).await?);
                }
                receiver.stop().await?;
                Outcome::Ok(samples)
            };
            match measured.await {
                Ok(samples) => {
                    let median = samples.quantile(0.5).unwrap_or_default();
                    table.add(peer.name(), 1, median, samples, None);
                }
                // That round is without it, and the others go on.
                Err(error) => {
                    eprintln!("{}: {error}", peer.name());
                    table.leave_empty(peer.name());
                }
            }
        }
    }
    Ok(table.finish())
}

/// Another process that handles one peer's messages, and prints how long each was on its way.
struct Receiver {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Receiver {
    async fn start(url: &str, peer: &Arc<dyn Peer>) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["receive", peer.name()])
            .env("DATABASE_URL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut receiver = Self { process, lines };
        // The first one takes as long as its worker takes to start.
        receiver.send(peer).await?;
        Ok(receiver)
    }

    /// Sends one message, and returns how long it was on its way.
    async fn send(&mut self, peer: &Arc<dyn Peer>) -> Outcome<Duration> {
        let payload = Payload::new();
        let sent = payload.sent;
        peer.send(payload).await?;
        loop {
            let line = timeout(Duration::from_secs(70), self.lines.next_line()).await??;
            let line = line.ok_or("the other process ended")?;
            let (of, took) = line.split_once(' ').ok_or("two numbers")?;
            // Another one may come from before, whose acknowledgement was late.
            if of.parse::<u64>()? == sent {
                return Ok(Duration::from_nanos(took.parse()?));
            }
        }
    }

    async fn stop(mut self) -> Outcome {
        drop(self.process.stdin.take());
        if timeout(Duration::from_secs(30), self.process.wait())
            .await
            .is_err()
        {
            self.process.kill().await?;
        }
        Ok(())
    }
}

/// Until its standard input ends.
async fn receive(name: &str, url: &str) -> Outcome {
    let peer = peer::connect(name, url, false).await?;
    handled::print();
    let running = peer.handle(For::Latency).await?;
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {}
    running.stop().await
}
