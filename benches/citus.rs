//! Queues on Citus, beside a PostgreSQL of the same version without the extension: on the coordinator, on each of three
//! nodes, and in transactions that also write a row of a distributed table. All servers share this machine's
//! processors and its disk, so the ratios are what Citus costs, and not what more machines bring.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pgqrs::{ConnectOptions, Store};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::{
    Outcome,
    enqueue::tasks,
    figures::Samples,
    meter::{Cost, Meter},
    report::{Report, Rounds, Table, many},
    telemetry::work,
};

const PLAIN: &str = "plain PostgreSQL";
const COORDINATOR: &str = "Citus, on the coordinator";
const DIVIDED: &str = "Citus, divided among three nodes";
const EACH_NODE: &str = "Citus, as much on each of three nodes";

/// Of a place, or of each of its nodes.
const TASKS: usize = 64;
const QUEUES: usize = 16;
/// Where no other node is involved, the extension may cost a tenth.
const OVERHEAD: f64 = 0.9;
/// Of each store. As many transactions as there are connections run at once.
const CONNECTIONS: u32 = 16;

/// Writes a report of its own, since the machine's is of another version of the server.
pub(crate) async fn report(plain: &str, meter: &Meter, machine: Report, quick: bool) -> Outcome {
    let started = Instant::now();
    let nodes = env::var("PGQRS_BENCH_CITUS").map_err(|_| "run it as `cargo xtask bench citus`")?;
    let servers = Servers::connect(plain, meter, &nodes).await?;
    let mut report = Report::new("citus", quick);
    report.facts = machine.facts;
    let version: String = sqlx::query_scalar("select citus_version()")
        .fetch_one(servers.nodes[0].pool())
        .await?;
    let version = version.split(" on ").next().unwrap_or_default();
    report
        .facts
        .push(("extension".to_owned(), version.to_owned()));
    for queues in [1, QUEUES] {
        report.tables.push(sends(&servers, queues, quick).await?);
        report.tables.push(drains(&servers, queues, quick).await?);
    }
    for tasks in [1, CONNECTIONS as usize] {
        let table = transactions(&servers, tasks, quick).await?;
        report.tables.push(table);
    }
    report.write()?;
    eprintln!("citus took {:.0} s\n", started.elapsed().as_secs_f64());
    Ok(())
}

/// A plain server, and a coordinator with two workers. Each has a schema with queues of its own.
struct Servers<'m> {
    plain: Store,
    plain_meter: &'m Meter,
    nodes: Vec<Store>,
    node_meters: Vec<Meter>,
    /// Keys whose rows are on the first worker.
    numbers: Arc<Vec<i64>>,
}

/// Where a row's messages go, and the servers whose cost is counted.
struct Place<'s> {
    row: &'static str,
    stores: &'s [Store],
    meters: Vec<&'s Meter>,
    /// How many times as much is done here as on the plain server.
    times: usize,
}

impl<'m> Servers<'m> {
    async fn connect(plain: &str, plain_meter: &'m Meter, nodes: &str) -> Outcome<Self> {
        let plain = store(plain).await?;
        sqlx::raw_sql(ORDERS).execute(plain.pool()).await?;
        let (mut stores, mut node_meters) = (Vec::new(), Vec::new());
        for url in nodes.split(' ') {
            stores.push(store(url).await?);
            node_meters.push(Meter::new(url).await?);
        }
        let coordinator = stores.first().ok_or("no node")?.pool();
        sqlx::raw_sql(ORDERS).execute(coordinator).await?;
        for statement in [
            "select create_distributed_table('orders', 'number', shard_count := 4)",
            "create table two_phases (unused integer)",
            "select citus_add_local_table_to_metadata('two_phases')",
        ] {
            sqlx::query(statement).execute(coordinator).await?;
        }
        let first_worker = stores.get(1).ok_or("no worker")?.pool();
        let numbers = numbers_on(first_worker).await?;
        Ok(Self {
            plain,
            plain_meter,
            nodes: stores,
            node_meters,
            numbers: Arc::new(numbers),
        })
    }

    fn places(&self) -> [Place<'_>; 4] {
        let meters: Vec<&Meter> = self.node_meters.iter().collect();
        [
            Place {
                row: PLAIN,
                stores: std::slice::from_ref(&self.plain),
                meters: vec![self.plain_meter],
                times: 1,
            },
            Place {
                row: COORDINATOR,
                stores: &self.nodes[..1],
                meters: meters[..1].to_vec(),
                times: 1,
            },
            Place {
                row: DIVIDED,
                stores: &self.nodes,
                meters: meters.clone(),
                times: 1,
            },
            Place {
                row: EACH_NODE,
                stores: &self.nodes,
                meters,
                times: self.nodes.len(),
            },
        ]
    }

    async fn clear(&self) -> Outcome {
        for store in [&self.nodes[0], &self.plain] {
            sqlx::query("truncate orders").execute(store.pool()).await?;
        }
        for store in self.nodes.iter().chain([&self.plain]) {
            clear(store.pool()).await?;
        }
        Ok(())
    }
}

async fn clear(pool: &PgPool) -> Outcome {
    sqlx::raw_sql("truncate pgqrs.messages; checkpoint")
        .execute(pool)
        .await?;
    Ok(())
}

const ORDERS: &str = "create table orders (number bigint not null, note text)";

async fn store(url: &str) -> Outcome<Store> {
    let options = ConnectOptions::builder()
        .url(url)
        .max_connections(CONNECTIONS)
        .install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    for n in 0..QUEUES {
        store.queue(queue(n)).await?;
    }
    Ok(store)
}

fn queue(n: usize) -> String {
    format!("queue-{n}")
}

/// The first thousand keys of `orders` whose rows are on this node.
async fn numbers_on(node: &PgPool) -> Outcome<Vec<i64>> {
    Ok(sqlx::query_scalar(
        "select number from generate_series(1, 10000::bigint) number
         join pg_dist_placement on shardid = get_shard_id_for_distribution_column('orders', number)
         where groupid = (select groupid from pg_dist_local_group)
         order by number limit 1000",
    )
    .fetch_all(node)
    .await?)
}

/// As [`Rounds::measure`], with the cost of several servers. Returns that of each, the first with the client's.
async fn measure(
    table: &mut Rounds<'_>,
    row: &str,
    messages: usize,
    meters: &[&Meter],
    work: impl AsyncFnOnce(&mut Samples) -> Outcome,
) -> Outcome<Vec<Cost>> {
    let mut calls = Samples::default();
    let mut before = Vec::new();
    for meter in meters {
        before.push(meter.read().await?);
    }
    let started = Instant::now();
    work(&mut calls).await?;
    let took = started.elapsed();
    let mut costs = Vec::new();
    let mut all = Cost::default();
    for (meter, before) in meters.iter().zip(&before) {
        let mut cost = before.until(&meter.read().await?);
        // Each reading has all of this process's time.
        if !costs.is_empty() {
            cost.client = Duration::ZERO;
        }
        costs.push(cost);
        all += cost;
    }
    table.add(row, messages, took, calls, Some(all));
    Ok(costs)
}

/// Each send goes to the next store and the next queue in turn.
async fn sends(servers: &Servers<'_>, queues: usize, quick: bool) -> Outcome<Table> {
    let (each, rounds) = if quick { (64, 3) } else { (256, 10) };
    let queues_named = many(queues, "queue");
    let title =
        format!("{TASKS} tasks, each {each} single sends one after another, {queues_named}");
    let mut table = Rounds::new(servers.plain_meter, title, rounds);
    while table.next() {
        for place in servers.places() {
            let (n, stores) = (TASKS * place.times, Arc::new(place.stores.to_vec()));
            let next = Arc::new(AtomicUsize::new(0));
            let call = move || {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let (store, n) = (stores[n % stores.len()].clone(), n / stores.len());
                async move {
                    let payload = "x".repeat(198);
                    let enqueue = pgqrs::enqueue().message(&payload).to(queue(n % queues));
                    enqueue.execute(&store).await?;
                    Ok(())
                }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            measure(&mut table, place.row, n * each, &place.meters, work).await?;
            take_away(&place, n * each).await?;
        }
    }
    let what = format!("{TASKS} tasks, {queues_named}, on a coordinator, to plain PostgreSQL");
    table.at_least(OVERHEAD, COORDINATOR, PLAIN, what);
    Ok(table.finish())
}

/// Deletes what was sent. Fails unless each node had its share of it.
async fn take_away(place: &Place<'_>, messages: usize) -> Outcome {
    let share = (messages / place.stores.len()).cast_signed() as i64;
    for store in place.stores {
        let stored: i64 = sqlx::query_scalar("select count(*) from pgqrs.messages")
            .fetch_one(store.pool())
            .await?;
        if !(share..=share + 1).contains(&stored) {
            return Err(format!("{stored} messages on a node, and not {share}").into());
        }
        clear(store.pool()).await?;
    }
    Ok(())
}

/// A consumer for each queue of each store.
async fn drains(servers: &Servers<'_>, queues: usize, quick: bool) -> Outcome<Table> {
    let (messages, rounds) = if quick { (4_800, 3) } else { (24_000, 8) };
    let queues_named = many(queues, "queue");
    let title = format!(
        "draining {messages} messages, handler that does nothing, concurrency 8, {queues_named}"
    );
    let mut table = Rounds::new(servers.plain_meter, title, rounds);
    while table.next() {
        for place in servers.places() {
            let messages = messages * place.times;
            let each = messages / place.stores.len() / queues;
            for store in place.stores {
                fill(store, queues, each).await?;
            }
            let work = async |_: &mut Samples| {
                let mut consumers = JoinSet::new();
                for store in place.stores {
                    for n in 0..queues {
                        let store = store.clone();
                        // Fails unless each message was acknowledged.
                        consumers.spawn(async move { work::drain(&store, &queue(n), each).await });
                    }
                }
                while let Some(drained) = consumers.join_next().await {
                    drained??;
                }
                Ok(())
            };
            measure(&mut table, place.row, messages, &place.meters, work).await?;
        }
    }
    let what = format!("draining, {queues_named}, on a coordinator, to plain PostgreSQL");
    table.at_least(OVERHEAD, COORDINATOR, PLAIN, what);
    Ok(table.finish())
}

async fn fill(store: &Store, queues: usize, each: usize) -> Outcome {
    sqlx::query("truncate pgqrs.messages")
        .execute(store.pool())
        .await?;
    let payloads = vec!["x".repeat(198); each];
    for n in 0..queues {
        let enqueue = pgqrs::enqueue().messages(&payloads).to(queue(n));
        enqueue.execute(store).await?;
    }
    for statement in ["vacuum analyze pgqrs.messages", "checkpoint"] {
        sqlx::query(statement).execute(store.pool()).await?;
    }
    Ok(())
}

const ANOTHER_NODE: &str = "Citus, the row on another node, one phase";
const TWO_PHASES: &str = "Citus, the row on another node, two phases";
/// What of it the coordinator does, which decides how many nodes it is enough for.
const ANOTHER_NODES_SHARE: &str = "the coordinator's part of one phase";
const TWO_PHASES_SHARE: &str = "the coordinator's part of two phases";
const SAME_NODE: &str = "Citus, the row on the store's node";

/// A message and a row, whose keys are the same for all.
async fn transactions(servers: &Servers<'_>, n: usize, quick: bool) -> Outcome<Table> {
    let each = if n == 1 { 100 } else { 50 };
    let rounds = if quick { 3 } else { 20 };
    let title = format!("transactions with a row and a message, {n} at a time");
    let mut table = Rounds::new(servers.plain_meter, title, rounds);
    let nodes: Vec<&Meter> = servers.node_meters.iter().collect();
    while table.next() {
        for (row, store) in [
            (PLAIN, &servers.plain),
            (ANOTHER_NODE, &servers.nodes[0]),
            (TWO_PHASES, &servers.nodes[0]),
            (SAME_NODE, &servers.nodes[1]),
        ] {
            let next = AtomicUsize::new(0);
            let (next, numbers, store) =
                (Arc::new(next), Arc::clone(&servers.numbers), store.clone());
            let call = move || {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let (number, store) = (numbers[n % numbers.len()], store.clone());
                async move { order(&store, number, row == TWO_PHASES).await }
            };
            let work = async |calls: &mut Samples| tasks(calls, n, each, call).await;
            let meters = match row {
                PLAIN => &[servers.plain_meter][..],
                _ => &nodes,
            };
            let costs = measure(&mut table, row, n * each, meters, work).await?;
            let share = match row {
                ANOTHER_NODE => ANOTHER_NODES_SHARE,
                TWO_PHASES => TWO_PHASES_SHARE,
                _ => continue,
            };
            let coordinator = costs.first().map(|cost| Cost {
                client: Duration::ZERO,
                ..*cost
            });
            let (none, calls) = (Duration::ZERO, Samples::default());
            table.add(share, n * each, none, calls, coordinator);
        }
        servers.clear().await?;
    }
    let what =
        format!("transactions, {n} at a time, the row on the same node, to plain PostgreSQL");
    table.at_least(OVERHEAD, SAME_NODE, PLAIN, what);
    Ok(table.finish())
}

async fn order(store: &Store, number: i64, two_phases: bool) -> Outcome {
    let mut transaction = store.begin().await?;
    if two_phases {
        sqlx::query("update two_phases set unused = 0")
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query("insert into orders (number, note) values ($1, 'new')")
        .bind(number)
        .execute(&mut **transaction)
        .await?;
    let enqueue = pgqrs::enqueue().message(&number).to(queue(0));
    enqueue.execute(&mut transaction).await?;
    transaction.commit().await?;
    Ok(())
}
