//! Whatever breaks between clients and server, and whichever process is killed: what was acknowledged is stored once,
//! what was refused is not, and what was stored is handled. Faults are drawn from a seed, which is printed;
//! `PGQRS_SEED` makes the same draws again, and `PGQRS_FAULTS` asks for more of them.

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

use pgqrs::{ConnectOptions, Delivery, Error, Outcome, SchemaVersion, Store};
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
        let payloads: Vec<Value> = (0..messages)
            .map(|_| {
                n += 1;
                json!({"sender": sender, "n": n})
            })
            .collect();
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
        ledger.note(payloads.iter().map(Value::to_string).collect(), returned);
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
    let (mut acknowledged, mut refused, mut unknown, mut unknown_stored) = (0, 0, 0, 0);
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
        "{acknowledged} messages acknowledged, {refused} refused ({errors:?}), {unknown} of unknown outcome, \
         {unknown_stored} of them stored; {} handlings of {} messages",
        handled.len(),
        log.len(),
    ))
}

/// Past whatever is in between, and with all that a test needs.
async fn installed(url: String) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder()
        .url(url)
        .install(true)
        .acquire_timeout(Duration::from_secs(2));
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    Ok(store)
}

/// The disk is full in the middle of a batch: no file can grow beyond eight MiB and half a page.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_batch_whole_and_stops_no_worker_for_good() -> TestResult {
    const FULL: u64 = (8 << 20) + 4096;
    let server = Server::start().await?;
    let store = installed(server.url()).await?;
    server.down("fast")?;
    server.limit_files(Some(FULL));
    server.up()?;
    let direct = PgPool::connect(&server.url()).await?;
    // Two of them are all that a page takes: the rest of it is for their claims.
    let payloads = |range: std::ops::Range<usize>| -> Vec<String> {
        range
            .map(|n| format!("{n} {}", "x".repeat(1_500)))
            .collect()
    };
    let first = support::send(&store, &payloads(0..1_000)).await?;
    let before = count(&direct).await?;
    assert_eq!(before, 1_000);
    // Its first statement fits.
    let large = payloads(1_000..3_500);
    let started = Instant::now();
    let refused = support::send(&store, &large).await.unwrap_err();
    let Error::Database(why) = &refused else {
        panic!("{refused:?}");
    };
    let code = why.as_database_error().and_then(|refusal| refusal.code());
    // A full disk is 53100. This one is a limit to the size of files, for which PostgreSQL 18 has no code of its own.
    let is_full = match code.as_deref() {
        Some("53100") => true,
        Some("XX000") => why.to_string().contains("File too large"),
        _ => false,
    };
    assert!(is_full, "{why}");
    assert!(started.elapsed() < Duration::from_secs(20), "it waited");
    assert_eq!(count(&direct).await?, before, "nothing of it is stored");

    // A consumer needs room as well, for its leases: it goes on as soon as there is some.
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    server.down("fast")?;
    server.limit_files(None);
    server.up()?;
    let second = support::send(&store, &large).await?;
    drained(&direct).await;
    running.stop().await?;
    assert_eq!(seen.len(), first.len() + second.len());
    direct.close().await;
    Ok(())
}

/// Two servers: the new one is a copy of the old one, from before the old one's last messages. So it draws
/// their ids again, and knows nothing of the sends whose answers are outstanding.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_fail_over_that_lost_the_tail_what_is_under_way_is_stored_once() -> TestResult {
    let old = Server::start().await?;
    let proxy = Proxy::start("127.0.0.1", old.port()).await?;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    let store = installed(url.clone()).await?;
    let mut expected: HashMap<i64, String> = HashMap::new();
    for id in support::send(&store, &["before"; 10]).await? {
        expected.insert(id.get(), json!("before").to_string());
    }
    old.down("fast")?;
    let new = old.standby()?;
    old.up()?;
    let mut tail = support::send(&store, &["the tail"; 200]).await?.to_vec();
    let other = pgqrs::connect(&url).await?;
    tail.push(support::warm(&other).await?);

    // Whatever the old one says from now on is lost.
    proxy.swallow();
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let store = other.clone();
            let call = tokio::spawn(async move { support::send(&store, &[n]).await });
            (n, call)
        })
        .collect();
    let direct = PgPool::connect(&old.url()).await?;
    until("the old one has stored some of them", async || {
        count(&direct).await.is_ok_and(|stored| stored > 211)
    })
    .await;
    direct.close().await;
    new.up()?;
    proxy.fail_over(new.port());
    old.down("immediate")?;

    // The new one only reads at first.
    let direct = PgPool::connect(&new.url()).await?;
    until("the store has found it", async || {
        let sessions = "select count(*) from pg_stat_activity where application_name = 'pgqrs'";
        let sessions: Result<i64, _> = sqlx::query_scalar(sessions).fetch_one(&direct).await;
        sessions.is_ok_and(|sessions| sessions > 0)
    })
    .await;
    assert!(calls.iter().all(|(_, call)| !call.is_finished()));
    assert_eq!(count(&direct).await?, 10);
    new.promote()?;
    for (n, call) in calls {
        let ids = timeout(Duration::from_secs(30), call).await???;
        expected.insert(ids[0].get(), n.to_string());
    }
    let after = support::send(&store, &["after"]).await?;
    expected.insert(after[0].get(), json!("after").to_string());
    let stored = stored(&direct).await?;
    let stored: HashMap<_, _> = stored.into_iter().map(|m| (m.id, m.payload)).collect();
    assert_eq!(stored, expected);
    assert!(
        tail.iter().any(|id| stored.contains_key(&id.get())),
        "no id was drawn twice, so this has shown less than it should"
    );
    direct.close().await;
    Ok(())
}

/// A process forks in order to start another, while connections are in use.
#[cfg(target_os = "linux")]
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn a_child_process_inherits_no_connection(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect_to(&pool).await?;
    let mut senders = JoinSet::new();
    for n in 0..100 {
        let store = store.clone();
        senders.spawn(async move { support::send(&store, &[n]).await });
    }
    for _ in 0..10 {
        let child = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let inherited = String::from_utf8(child.await?.stdout)?;
        assert!(inherited.contains("/proc/"), "{inherited}");
        assert!(!inherited.contains("socket:"), "{inherited}");
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    assert_eq!(count(&pool).await?, 100);
    Ok(())
}

async fn change_schema(pool: &PgPool, change: &'static str) -> sqlx::Result<()> {
    sqlx::raw_sql(change).execute(pool).await.map(drop)
}

/// What this version does, all at once, for as long as it isn't over. Each task returns how many messages it has sent to
/// `tasks`, or the first error.
fn everything_at_once(store: &Store, over: &Arc<AtomicBool>) -> JoinSet<pgqrs::Result<u64>> {
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let (store, over) = (store.clone(), Arc::clone(over));
        tasks.spawn(async move {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                let batch: Vec<String> = (0..=task * 2)
                    .map(|n| format!("{task} {sent} {n}"))
                    .collect();
                let enqueue = || pgqrs::enqueue().messages(&batch).to("tasks");
                match task {
                    0 => enqueue().execute(store.pool()).await?,
                    1 => {
                        let mut transaction = store.pool().begin().await?;
                        let ids = enqueue().execute(&mut transaction).await?;
                        transaction.commit().await?;
                        ids
                    }
                    _ => enqueue().execute(&store).await?,
                };
                sent += batch.len() as u64;
            }
            Ok(sent)
        });
    }
    let (settling, settling_over) = (store.clone(), Arc::clone(over));
    tasks.spawn(async move {
        while !settling_over.load(Ordering::Relaxed) {
            settle_in_each_way(&settling).await?;
        }
        Ok(0)
    });
    let (living, over) = (store.clone(), Arc::clone(over));
    tasks.spawn(async move {
        while !over.load(Ordering::Relaxed) {
            live(&living).await?;
        }
        Ok(0)
    });
    tasks
}

/// Without a loop, in a queue of its own.
async fn settle_in_each_way(store: &Store) -> pgqrs::Result<()> {
    let admin = pgqrs::admin(store);
    let sent = pgqrs::enqueue().messages(&[1; 7]).to("settled");
    sent.execute(store).await?;
    let claim = pgqrs::dequeue().from("settled").limit(7);
    for (way, delivery) in claim.execute(store).await?.into_iter().enumerate() {
        match way {
            0 => delivery.ack(store).await?,
            1 => delivery.nack(store).await.map(drop)?,
            2 => delivery
                .retry_in(Duration::from_secs(60), store)
                .await
                .map(drop)?,
            3 => delivery.archive(store).await?,
            4 => delivery.dead_letter("for ever", store).await?,
            5 => {
                delivery.extend(Duration::from_secs(60)).await?;
                let mut transaction = store.pool().begin().await?;
                delivery.ack(&mut transaction).await?;
                transaction.commit().await?;
            }
            _ => pgqrs::ack_all(vec![delivery], store).await.map(drop)?,
        }
    }
    admin.requeue_all("settled", Duration::ZERO).await?;
    admin.purge_archive("settled", Duration::ZERO).await?;
    admin.purge_queue("settled").await?;
    Ok(())
}

/// The steps of a worker's life, and an operator's queries meanwhile.
async fn live(store: &Store) -> pgqrs::Result<()> {
    let admin = pgqrs::admin(store);
    let producer = pgqrs::producer("my-service", 3000, "tasks")
        .create(store)
        .await?;
    producer.heartbeat().await?;
    producer.suspend().await?;
    producer.resume().await?;
    admin.queue_stats("tasks").await?;
    admin.queues().await?;
    admin.workers(&pgqrs::WorkerFilter::default()).await?;
    admin.dead_letters("tasks", pgqrs::Page::default()).await?;
    admin.archived("tasks", pgqrs::Page::default()).await?;
    let id = producer.id();
    producer.shutdown().await?;
    admin.remove_worker(id).await
}

/// What a newer version's migration may do: workers, sends, claims, settlements and operators of this version go on beside
/// it, under load.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_upgrade_that_only_adds_stops_no_running_worker(pool: PgPool) -> TestResult {
    with_queues(&pool, &["tasks", "settled"]).await?;
    let (store, elsewhere) = (connect_to(&pool).await?, connect_to(&pool).await?);
    let seen = Seen::default();
    let consumers = [(3001, &store), (3002, &elsewhere)].map(|(port, store)| {
        let seen = seen.clone();
        async move {
            let consumer = pgqrs::consumer("tasks").identity("my-service", port);
            let consumer = prepare(consumer).concurrency(8);
            let running = start(consumer.create(store).await?, move |delivery| {
                let first = delivery.attempt() == 1;
                let outcome = match delivery.id().get() % 8 {
                    0 => Outcome::Archive,
                    1 if first => Outcome::Retry,
                    2 => Outcome::DeadLetter("for ever".into()),
                    _ => Outcome::Done,
                };
                if !matches!(outcome, Outcome::Retry) {
                    seen.note(delivery.id().to_string());
                }
                std::future::ready(outcome)
            });
            Ok::<_, Error>(running)
        }
    });
    let [first, second] = consumers;
    let (first, second) = (first.await?, second.await?);
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = everything_at_once(&store, &over);
    let admin = pgqrs::admin(&store);
    for change in [
        "alter table pgqrs.messages add column later text",
        "alter table pgqrs.messages add column counted integer not null default 0",
        // Writes the table anew, and so every message is in another place.
        "alter table pgqrs.messages add column stamped timestamptz not null default clock_timestamp()",
        "create index later on pgqrs.messages (queue_id, later)",
        "create index concurrently later_still on pgqrs.messages (counted)",
        "alter table pgqrs.messages add constraint later_check check (counted >= 0) not valid",
        "alter table pgqrs.messages validate constraint later_check",
        "alter table pgqrs.dead_letters add column later text",
        "alter table pgqrs.archive add column later text not null default ''",
        "alter table pgqrs.queues add column later text",
        "alter table pgqrs.workers add column later text",
        "alter table pgqrs.writers add column later text",
        "create table pgqrs.extras (queue_id integer primary key)",
        "insert into pgqrs._sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of a later version', true, '', 0)",
    ] {
        let before = seen.len();
        change_schema(&pool, change).await?;
        until("messages are sent and handled", async || seen.len() > before + 100).await;
    }
    // It knows that it is the older one, and leaves the schema as it is.
    let version = admin.verify().await?;
    assert!(
        matches!(
            version,
            SchemaVersion::Newer {
                installed: 9999,
                ..
            }
        ),
        "{version:?}"
    );
    let refused = admin.install().await;
    assert!(
        matches!(refused, Err(Error::SchemaNewer { .. })),
        "{refused:?}"
    );
    over.store(true, Ordering::Relaxed);
    let mut sent = 0;
    while let Some(ended) = tasks.join_next().await {
        sent += ended??;
    }
    drained(&pool).await;
    let (first, second) = (first.stop().await?, second.stop().await?);
    let handled = [first, second]
        .iter()
        .map(|one| one.done + one.archived + one.dead)
        .sum::<u64>();
    assert_eq!(handled, sent, "{first:?} {second:?}");
    assert_eq!(
        (first.lost + second.lost, first.unknown + second.unknown),
        (0, 0)
    );
    assert!(seen.times().values().all(|times| *times == 1));
    assert_eq!(seen.len() as u64, sent);
    Ok(())
}

/// An upgrade, or a way back, that takes something away which this version needs.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn an_upgrade_that_removes_a_column_is_reported_to_running_workers(
    pool: PgPool,
) -> TestResult {
    with_queues(&pool, &["tasks"]).await?;
    let store = connect_to(&pool).await?;
    let seen = Seen::default();
    let running = start(consumer().create(&store).await?, seen.handler());
    support::send(&store, &[1]).await?;
    until("it is handled", async || seen.len() == 1).await;
    change_schema(
        &pool,
        "alter table pgqrs.messages rename column enqueued_at to sent_at",
    )
    .await?;
    let ended = timeout(Duration::from_secs(20), running.task).await??;
    assert!(matches!(ended, Err(Error::SchemaOutdated)), "{ended:?}");
    let refused = support::send(&store, &[2]).await;
    assert!(matches!(refused, Err(Error::SchemaOutdated)), "{refused:?}");
    assert_eq!(count(&pool).await?, 0);
    change_schema(
        &pool,
        "alter table pgqrs.messages rename column sent_at to enqueued_at",
    )
    .await?;
    support::send(&store, &[3]).await?;
    assert_eq!(count(&pool).await?, 1);
    Ok(())
}
