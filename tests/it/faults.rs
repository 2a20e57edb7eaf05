//! Whatever breaks between clients and server, and whichever process is killed: what was acknowledged is stored once,
//! what was refused is not, and what was stored is handled. Faults are drawn from a seed, which is printed;
//! `PGQRS_SEED` makes the same draws again, and `PGQRS_FAULTS` asks for more of them.

mod fail_overs;
mod hosts;
mod servers;
mod standby;
mod upgrades;

use std::{
    collections::{HashMap, HashSet},
    env,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pgqrs::{ConnectOptions, Delivery, Enqueued, Error, MessageId, Outcome, SchemaVersion, Store};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{
    examples::compiled,
    support::{
        self, TestResult, connect as connect_to,
        consumers::{Seen, consumer, drained, prepare, start},
        count,
        proxy::Proxy,
        server::Server,
        stored, until, until_within, with_queues,
    },
};

type Outcomes<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// One call: its payloads, and what it returned.
struct Call {
    payloads: Vec<String>,
    returned: Returned,
}

enum Returned {
    Stored(Vec<i64>),
    /// Not stored, since this message has its key.
    Duplicate(i64),
    Refused(String),
    /// The ids, if it returned them.
    Unknown(Option<Vec<i64>>),
}

#[derive(Default)]
pub(crate) struct Ledger {
    calls: Mutex<Vec<Call>>,
    handled: Mutex<Vec<(i64, String)>>,
    over: AtomicBool,
    pub(crate) sent: AtomicUsize,
}

impl Ledger {
    fn note(&self, payloads: Vec<String>, returned: Returned) {
        self.sent.fetch_add(payloads.len(), Ordering::Relaxed);
        let mut calls = self.calls.lock().expect("no panic while it is held");
        calls.push(Call { payloads, returned });
    }

    fn handle(&self, id: i64, payload: &str) {
        let mut handled = self.handled.lock().expect("no panic while it is held");
        handled.push((id, payload.to_owned()));
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let value = env::var(variable).ok();
    value.and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_what_is_acknowledged_is_stored_once_and_handled() -> TestResult {
    let seed = number("PGQRS_SEED", rand::random::<u32>().into());
    let wanted = usize::try_from(number("PGQRS_FAULTS", 500))?;
    eprintln!("{wanted} faults; the same draws again: PGQRS_SEED={seed}");
    let server = Arc::new(Server::start().await?);
    let direct = direct(&server).await?;
    let proxy = Proxy::with_seed("127.0.0.1", server.port(), seed).await?;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let ledger = Arc::new(Ledger::default());

    let mut senders = JoinSet::new();
    let mut consumers = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for n in 0..2_u64 {
        let store = connect(&url).await?;
        for task in 0..4 {
            let random = StdRng::seed_from_u64(seed ^ (n * 4 + task + 1));
            senders.spawn(send(
                store.clone(),
                n * 4 + task,
                Arc::clone(&ledger),
                random,
            ));
        }
        let store = connect(&url).await?;
        consumers.spawn(consume(store, Arc::clone(&ledger), stopped.clone()));
    }
    proxy.arm(true);

    // What an operator does, or what fails.
    let mut random = StdRng::seed_from_u64(seed);
    let mut processes = 0;
    let mut others = 0;
    let mut printed = Instant::now();
    while proxy.faults() + others < wanted {
        match random.random_range(0..100) {
            0..75 => terminate_one(&direct).await,
            75..85 => {
                processes += 1;
                let program = ["producer_process", "handler_process"][processes % 2];
                kill_a_process(program, &server.url(), processes, &ledger, &mut random).await?;
            }
            _ => {
                let mode = ["fast", "immediate"][random.random_range(0..2)];
                server.restart_beside(mode).await?;
            }
        }
        others += 1;
        // Between them there is time for the proxy's own, and for calls that succeed.
        let so_far = proxy.faults();
        until_within(Duration::from_millis(400), async || {
            proxy.faults() >= so_far + 10
        })
        .await;
        if printed.elapsed() > Duration::from_secs(5) {
            printed = Instant::now();
            let faults = proxy.faults() + others;
            let sent = ledger.sent.load(Ordering::Relaxed);
            eprintln!("{faults} of {wanted} faults, {sent} messages sent");
        }
    }
    ledger.over.store(true, Ordering::Relaxed);
    let faults = proxy.faults() + others;

    // Every call ends while faults continue; what is left is handled without faults.
    let calls = async { while senders.join_next().await.is_some() {} };
    timeout(Duration::from_secs(60), calls)
        .await
        .map_err(|_| format!("a send hangs; seed {seed}"))?;
    proxy.arm(false);
    let drained = until_within(Duration::from_secs(60), async || {
        count(&direct).await.is_ok_and(|left| left == 0)
    });
    assert!(drained.await, "messages are left; seed {seed}");
    stop.send(true)?;
    let ends = async {
        while let Some(ended) = consumers.join_next().await {
            ended??;
        }
        Outcomes::Ok(())
    };
    timeout(Duration::from_secs(60), ends)
        .await
        .map_err(|_| format!("a consumer hangs; seed {seed}"))?
        .map_err(|error| format!("a consumer ended: {error}; seed {seed}"))?;

    let summary = check(&ledger, &direct)
        .await
        .map_err(|why| format!("{why}; seed {seed}"))?;
    eprintln!("{faults} faults: {summary}");
    Ok(())
}

/// Past the proxy: the schema, and a log of all that is ever stored.
pub(crate) async fn direct(server: &Server) -> Result<PgPool, Box<dyn std::error::Error>> {
    let options = ConnectOptions::builder()
        .url(server.url())
        .install(true)
        .build();
    let store = pgqrs::connect_with(options).await?;
    store.queue("tasks").await?;
    // None becomes a dead letter: each delivery that a fault undoes counts as an attempt.
    sqlx::raw_sql(
        "update pgqrs.queues set max_attempts = 1000000;
         create table public.log (id bigint not null, payload text not null);
         create function public.log() returns trigger language plpgsql as
             $$ begin insert into public.log values (new.id, new.payload::text); return new; end $$;
         create trigger log after insert on pgqrs.messages for each row execute function public.log()",
    )
    .execute(store.pool())
    .await?;
    // With pings: each restart breaks its connections.
    Ok(PgPool::connect(&server.url()).await?)
}

async fn connect(url: &str) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(2))
        .retry_for(Duration::from_secs(3))
        .build();
    pgqrs::connect_with(options).await
}

/// One message, a few, or more than fit into one statement.
async fn send(store: Store, sender: u64, ledger: Arc<Ledger>, mut random: StdRng) {
    let mut n = 0;
    while !ledger.is_over() {
        let messages = match random.random_range(0..200) {
            0 => 1_500,
            1..40 => random.random_range(2..40),
            _ => 1,
        };
        let way = random.random_range(0..6);
        let payloads: Vec<Value> = (0..messages)
            .map(|_| {
                n += 1;
                if way == 2 {
                    json!({"sender": sender, "n": n, "once": n / 5})
                } else {
                    json!({"sender": sender, "n": n})
                }
            })
            .collect();
        let texts = payloads.iter().map(Value::to_string);
        let enqueue = pgqrs::enqueue().to("tasks");
        let sent = match way {
            0 | 1 => {
                let enqueue = enqueue.unique_by(key).messages(&payloads);
                Some(enqueue.execute(&store).await)
            }
            2 => {
                let hour = Duration::from_secs(3600);
                let once = payloads
                    .iter()
                    .map(|payload| pgqrs::message(payload).once_within(key(payload), hour));
                Some(enqueue.batch(once).execute(&store).await)
            }
            _ => None,
        };
        if let Some(sent) = sent {
            note_each(&ledger, texts.collect(), sent);
            continue;
        }
        let sent = pgqrs::enqueue()
            .messages(&payloads)
            .to("tasks")
            .execute(&store)
            .await;
        let returned = match sent {
            Ok(ids) => Returned::Stored(ids.iter().map(|id| id.get()).collect()),
            Err(Error::OutcomeUnknown { ids, .. }) => {
                Returned::Unknown(Some(ids.iter().map(|id| id.get()).collect()))
            }
            Err(Error::NotStored { .. }) => Returned::Refused("time ran out".to_owned()),
            Err(error) => Returned::Refused(format!("{error:#?}")),
        };
        ledger.note(texts.collect(), returned);
    }
}

/// One that all senders use.
fn key(payload: &Value) -> String {
    match payload["once"].as_u64() {
        Some(once) => format!("once {once}"),
        None => format!("key {}", payload["n"].as_u64().unwrap_or_default() % 7),
    }
}

/// Messages with keys, one by one: any of them may be duplicates.
fn note_each(ledger: &Ledger, payloads: Vec<String>, sent: pgqrs::Result<Enqueued>) {
    let unknown = |ids: &[MessageId], place: usize| {
        let id = ids.get(place).map(|id| vec![id.get()]);
        Returned::Unknown(id)
    };
    let outcomes: Vec<_> = match &sent {
        Ok(enqueued) => enqueued.outcomes().collect(),
        Err(_) => Vec::new(),
    };
    for (place, payload) in payloads.into_iter().enumerate() {
        let returned = match &sent {
            Ok(_) if outcomes[place].new => Returned::Stored(vec![outcomes[place].id.get()]),
            Ok(_) => Returned::Duplicate(outcomes[place].id.get()),
            Err(Error::OutcomeUnknown { ids, .. }) => unknown(ids, place),
            Err(Error::NotStored { .. }) => Returned::Refused("time ran out".to_owned()),
            Err(error) => Returned::Refused(format!("{error:#?}")),
        };
        ledger.note(vec![payload], returned);
    }
}

/// Until it is stopped; it must not end by itself.
async fn consume(
    store: Store,
    ledger: Arc<Ledger>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) -> Outcomes<()> {
    let consumer = loop {
        let consumer = prepare(pgqrs::consumer("tasks"))
            .concurrency(8)
            .lease(Duration::from_secs(3))
            .poll_interval(Duration::from_millis(200));
        match consumer.create(&store).await {
            Ok(consumer) => break consumer,
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error.into()),
        }
    };
    let is_stopped = stopped.clone();
    let run = consumer.run(move |delivery: Delivery<Value>| {
        ledger.handle(delivery.id().get(), delivery.raw_payload());
        async { Outcome::Done }
    });
    run.with_graceful_shutdown(async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    })
    .await?;
    if *is_stopped.borrow() {
        Ok(())
    } else {
        Err("a consumer stopped by itself".into())
    }
}

async fn terminate_one(direct: &PgPool) {
    // The server may be away, or have no session to terminate.
    let _ = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'pgqrs' and backend_type = 'client backend' order by random() limit 1",
    )
    .execute(direct)
    .await;
}

/// A process that sends, or that consumes, is killed in the middle of it.
async fn kill_a_process(
    program: &str,
    url: &str,
    n: usize,
    ledger: &Arc<Ledger>,
    random: &mut StdRng,
) -> TestResult {
    let mut child: Child = Command::new(compiled(program))
        .arg(n.to_string())
        .env("DATABASE_URL", url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut left = random.random_range(1..200);
    while let Ok(Ok(Some(line))) = timeout(Duration::from_millis(500), lines.next_line()).await {
        note_line(&line, ledger);
        left -= 1;
        if left == 0 {
            break;
        }
    }
    child.start_kill()?;
    child.wait().await?;
    // What it said before it died still stands.
    while let Ok(Some(line)) = lines.next_line().await {
        note_line(&line, ledger);
    }
    Ok(())
}

pub(crate) fn note_line(line: &str, ledger: &Ledger) {
    let mut words = line.splitn(3, ' ');
    let (what, id, payload) = (words.next(), words.next(), words.next());
    let (Some(what), Some(Ok(id)), Some(payload)) = (what, id.map(str::parse), payload) else {
        return;
    };
    match what {
        "sent" => ledger.note(vec![payload.to_owned()], Returned::Stored(vec![id])),
        "done" => ledger.handle(id, payload),
        _ => {}
    }
}

pub(crate) async fn check(
    ledger: &Ledger,
    direct: &PgPool,
) -> Result<String, Box<dyn std::error::Error>> {
    let log: Vec<(i64, String)> = sqlx::query_as("select id, payload from public.log")
        .fetch_all(direct)
        .await?;
    let mut stored: HashMap<&str, i64> = HashMap::new();
    let mut ids = HashSet::new();
    for (id, payload) in &log {
        if let Some(other) = stored.insert(payload, *id) {
            return Err(format!("{payload} is stored twice: {other} and {id}").into());
        }
        if !ids.insert(id) {
            return Err(format!("id {id} is that of two messages").into());
        }
    }
    let mut once = HashSet::new();
    for (_, payload) in &log {
        let payload: Value = serde_json::from_str(payload)?;
        if payload["once"].is_u64() && !once.insert(key(&payload)) {
            return Err(format!("{payload} is stored, and its key was taken").into());
        }
    }
    let by_id: HashMap<i64, &str> = log.iter().map(|(id, payload)| (*id, &**payload)).collect();
    let (mut acknowledged, mut refused, mut unknown, mut unknown_stored) = (0, 0, 0, 0);
    let mut duplicates = 0;
    let mut errors: HashMap<String, usize> = HashMap::new();
    for Call { payloads, returned } in ledger
        .calls
        .lock()
        .expect("no panic while it is held")
        .iter()
    {
        let found = payloads
            .iter()
            .filter_map(|payload| stored.get(&**payload).copied());
        let found: Vec<_> = found.collect();
        match returned {
            Returned::Stored(ids) => {
                acknowledged += payloads.len();
                if found != *ids {
                    return Err(format!("{payloads:?} should be {ids:?}, and are {found:?}").into());
                }
            }
            Returned::Duplicate(holder) => {
                duplicates += 1;
                let key_of = |payload: &str| serde_json::from_str(payload).map(|json| key(&json));
                let holder = by_id
                    .get(holder)
                    .ok_or("a duplicate of a message that never was")?;
                if !found.is_empty() || key_of(holder)? != key_of(&payloads[0])? {
                    return Err(format!("{payloads:?} is no duplicate of {holder}").into());
                }
            }
            Returned::Refused(error) => {
                refused += payloads.len();
                *errors.entry(error.clone()).or_default() += 1;
                if !found.is_empty() {
                    return Err(format!("refused with {error:?}, and stored: {payloads:?}").into());
                }
            }
            Returned::Unknown(ids) => {
                unknown += payloads.len();
                unknown_stored += found.len();
                if !found.is_empty() && ids.as_ref().is_some_and(|ids| *ids != found) {
                    return Err(format!("{payloads:?} may be {ids:?}, and are {found:?}").into());
                }
            }
        }
    }
    let handled = ledger.handled.lock().expect("no panic while it is held");
    let at_least_once: HashSet<_> = handled
        .iter()
        .map(|(id, payload)| (*id, &**payload))
        .collect();
    for (id, payload) in &log {
        // One that a killed process had handled, and not yet said so, is gone with it.
        if !at_least_once.contains(&(*id, &**payload)) {
            return Err(format!("{id}, {payload}, was never handled").into());
        }
    }
    if acknowledged == 0 {
        return Err("nothing was acknowledged".into());
    }
    Ok(format!(
        "{acknowledged} messages acknowledged, {duplicates} duplicates, {refused} refused ({errors:?}), {unknown} of unknown outcome, \
         {unknown_stored} of them stored; {} handlings of {} messages",
        handled.len(),
        log.len(),
    ))
}
