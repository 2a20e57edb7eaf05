//! On Citus, with the tables of this crate on the node that a store is connected to, and the application's ones
//! distributed. Each test has a cluster of its own; if there is no Citus on the machine, there is nothing to test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use pgqrs::{
    ConnectOptions, Delivery, Error, FindingKind, SchemaVersion, Severity, Store, Transaction,
    Unchecked,
};
use serde_json::Value;
use sqlx::{Executor as _, PgConnection, PgPool};
use tokio::task::JoinSet;

use crate::support::{
    self, TestResult, chain,
    citus::{Cluster, create_distributed},
    count,
    server::Server,
    until, until_within,
};

/// With the schema and the queue `tasks`, on this node.
async fn store(node: &Server) -> pgqrs::Result<Store> {
    let options = ConnectOptions::builder().url(node.url()).install(true);
    let store = pgqrs::connect_with(options.build()).await?;
    store.queue("tasks").await?;
    Ok(store)
}

async fn numbers(on: &PgPool, table: &str) -> sqlx::Result<Vec<i64>> {
    let select = match table {
        "orders" => "select number from orders order by number",
        _ => "select number from shipped order by number",
    };
    sqlx::query_scalar(select).fetch_all(on).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_stores_reads_and_changes_distributed_tables() -> TestResult {
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    let store = store(&cluster.coordinator).await?;
    create_distributed(store.pool(), "orders").await?;
    for commits in [false, true] {
        let mut transaction = store.begin().await?;
        for number in 1..=20_i64 {
            sqlx::query("insert into orders (number, note) values ($1, 'new')")
                .bind(number)
                .execute(&mut **transaction)
                .await?;
            // More often than a session plans a statement anew unless it has to.
            let changed = sqlx::query("update orders set note = $2 where number = $1")
                .bind(number)
                .bind("paid")
                .execute(&mut **transaction)
                .await?;
            assert_eq!(changed.rows_affected(), 1);
            let note: String = sqlx::query_scalar("select note from orders where number = $1")
                .bind(number)
                .fetch_one(&mut **transaction)
                .await?;
            assert_eq!(note, "paid");
            let enqueue = pgqrs::enqueue().message(&number).to("tasks");
            enqueue.execute(&mut transaction).await?;
        }
        if commits {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        let stored = if commits { 20 } else { 0 };
        assert_eq!(count(store.pool()).await?, stored);
        assert_eq!(numbers(store.pool(), "orders").await?.len() as i64, stored);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_can_have_queues_of_its_own_beside_distributed_tables() -> TestResult {
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    let direct = PgPool::connect(&cluster.coordinator.url()).await?;
    create_distributed(&direct, "orders").await?;
    // A worker before the coordinator, and another after it.
    let [coordinator, first, second] = cluster.nodes();
    for (n, node) in (0_i64..).zip([first, coordinator, second]) {
        let store = store(node).await?;
        assert_eq!(
            count(store.pool()).await?,
            0,
            "it doesn't see the others' messages"
        );
        let mut transaction = store.begin().await?;
        for number in n * 10..n * 10 + 10 {
            sqlx::query("insert into orders (number) values ($1)")
                .bind(number)
                .execute(&mut **transaction)
                .await?;
            let enqueue = pgqrs::enqueue().message(&number).to("tasks");
            enqueue.execute(&mut transaction).await?;
        }
        transaction.commit().await?;
        assert_eq!(count(store.pool()).await?, 10);
    }
    assert_eq!(numbers(&direct, "orders").await?, Vec::from_iter(0..30));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_citus_manages_are_reported_and_can_be_made_local_again() -> TestResult {
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    let broken = store(&cluster.coordinator).await?;
    let admin = pgqrs::admin(&broken);
    let is_local = |version: &SchemaVersion| matches!(version, SchemaVersion::UpToDate { on_citus, .. } if *on_citus);
    assert!(is_local(&admin.verify().await?));
    support::send(&broken, &[1]).await?;
    let direct = PgPool::connect(&cluster.coordinator.url()).await?;
    for statement in [
        "select citus_add_local_table_to_metadata('pgqrs.archive')",
        "select create_reference_table('pgqrs.messages')",
    ] {
        direct.execute(statement).await?;
    }
    let managed = ["archive", "messages"];
    let found = admin.verify().await?;
    assert!(
        matches!(&found, SchemaVersion::Distributed { tables, .. } if *tables == managed),
        "{found:?}"
    );
    let claim_of_one = pgqrs::dequeue().from("tasks").execute(&broken);
    let refused = claim_of_one.await.unwrap_err();
    assert!(matches!(refused, Error::Database(_)), "{refused:?}");
    let refused = store(&cluster.coordinator).await.unwrap_err();
    assert!(
        matches!(&refused, Error::SchemaDistributed { tables } if *tables == managed),
        "{refused:?}"
    );
    let health = admin.health().await?;
    assert!(health.findings.iter().any(|finding| {
        finding.severity == Severity::Critical && matches!(finding.kind, FindingKind::Schema { .. })
    }));

    // As a dump would save and load them.
    for statement in [
        "create table saved_queues as table pgqrs.queues",
        "create table saved_messages as table pgqrs.messages",
        "drop schema pgqrs cascade",
    ] {
        direct.execute(statement).await?;
    }
    admin.install().await?;
    for statement in [
        "insert into pgqrs.queues overriding system value table saved_queues",
        "insert into pgqrs.messages overriding system value table saved_messages",
    ] {
        direct.execute(statement).await?;
    }
    let whole = store(&cluster.coordinator).await?;
    assert!(is_local(&pgqrs::admin(&whole).verify().await?));
    let [delivery] = &claim(&whole).await[..] else {
        panic!("the message is there");
    };
    assert_eq!(delivery.payload()?, 1);
    Ok(())
}

/// In the order of two transactions that can't be serialized: the first to commit wins.
async fn reads_and_writes(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection.execute("select * from skew").await?;
    connection.execute("insert into skew values (1)").await?;
    Ok(())
}

/// The commit of the store's node fails after everything else has succeeded.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_leaves_nothing_elsewhere_if_it_has_two_phases() -> TestResult {
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    let store = store(&cluster.coordinator).await?;
    create_distributed(store.pool(), "orders").await?;
    let direct = PgPool::connect(&cluster.coordinator.url()).await?;
    prepare_two_phases(&direct).await?;
    direct.execute("create table skew (n integer)").await?;
    let serializable = "set transaction isolation level serializable";
    for two_phases in [true, false] {
        let mut transaction = store.begin().await?;
        transaction.execute(serializable).await?;
        if two_phases {
            transaction.execute(TWO_PHASES).await?;
        }
        reads_and_writes(&mut transaction).await?;
        transaction
            .execute("insert into orders (number) values (1)")
            .await?;
        let enqueue = pgqrs::enqueue().message(&1).to("tasks");
        enqueue.execute(&mut transaction).await?;
        let mut other = direct.begin().await?;
        other.execute(serializable).await?;
        reads_and_writes(&mut other).await?;
        other.commit().await?;
        let failed = transaction.commit().await.unwrap_err();
        assert!(chain(&failed).contains("serialize"), "{failed:?}");
        assert_eq!(count(&direct).await?, 0);
        // With one phase, the other node commits before the store's own.
        let left = if two_phases { vec![] } else { vec![1] };
        assert_eq!(numbers(&direct, "orders").await?, left);
    }
    Ok(())
}

/// What the tasks of a run share.
#[derive(Default)]
struct Run {
    number: AtomicU64,
    stopped: AtomicBool,
    failures: AtomicU64,
}

impl Run {
    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// With it in a transaction, Citus commits in two phases, also if rows on a single other node have changed: it changes a
/// table that Citus manages on the coordinator. That this one has no rows doesn't matter.
const TWO_PHASES: &str = "update two_phases set unused = 0";

async fn prepare_two_phases(direct: &PgPool) -> TestResult {
    for statement in [
        "create table two_phases (unused integer)",
        "select citus_add_local_table_to_metadata('two_phases')",
    ] {
        direct.execute(statement).await?;
    }
    Ok(())
}

async fn begin(store: &Store) -> pgqrs::Result<Transaction> {
    let mut transaction = store.begin().await?;
    transaction.execute(TWO_PHASES).await?;
    Ok(transaction)
}

/// An order, and the message that has it shipped.
async fn order(store: &Store, number: i64) -> Done {
    let mut transaction = begin(store).await?;
    sqlx::query("insert into orders (number) values ($1)")
        .bind(number)
        .execute(&mut **transaction)
        .await?;
    let enqueue = pgqrs::enqueue().message(&number).to("tasks");
    enqueue.execute(&mut transaction).await?;
    Ok(transaction.commit().await?)
}

async fn ship(store: &Store, delivery: Delivery<Value, Unchecked>) -> Done {
    let number = delivery.payload()?.as_i64();
    let mut transaction = begin(store).await?;
    sqlx::query("insert into shipped (number) values ($1)")
        .bind(number)
        .execute(&mut **transaction)
        .await?;
    delivery.ack(&mut transaction).await?;
    Ok(transaction.commit().await?)
}

async fn orders(store: Store, run: Arc<Run>) {
    while !run.is_over() {
        let number = run.number.fetch_add(1, Ordering::Relaxed).cast_signed();
        if order(&store, number).await.is_err() {
            run.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Leases are short, so that what a failed attempt has left comes soon again.
async fn claim(store: &Store) -> Vec<Delivery<Value, Unchecked>> {
    let dequeue = pgqrs::dequeue().from("tasks").limit(5);
    let claimed = dequeue.lease(Duration::from_secs(2)).execute(store).await;
    claimed.unwrap_or_default()
}

async fn ships(store: Store, run: Arc<Run>) {
    while !run.is_over() {
        for delivery in claim(&store).await {
            if ship(&store, delivery).await.is_err() {
                run.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Transactions over two nodes: the message on the coordinator, a row on a worker.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_node_is_killed_messages_and_distributed_rows_agree() -> TestResult {
    let Some(cluster) = Cluster::start().await? else {
        return Ok(());
    };
    let store = store(&cluster.coordinator).await?;
    let direct = PgPool::connect(&cluster.coordinator.url()).await?;
    create_distributed(&direct, "orders").await?;
    create_distributed(&direct, "shipped").await?;
    prepare_two_phases(&direct).await?;
    let run = Arc::new(Run::default());
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        tasks.spawn(orders(store.clone(), Arc::clone(&run)));
        tasks.spawn(ships(store.clone(), Arc::clone(&run)));
    }
    let rounds = 2 * support::scale();
    for _ in 0..rounds {
        for node in cluster.nodes() {
            let before = run.number.load(Ordering::Relaxed);
            let goes_on = async || run.number.load(Ordering::Relaxed) > before + 50;
            until("orders come in", goes_on).await;
            node.down("immediate")?;
            node.up()?;
        }
    }
    // A call that was cut off may wait for its time-out.
    run.stopped.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    for node in cluster.workers.iter() {
        let node = PgPool::connect(&node.url()).await?;
        let prepared = "select count(*) from pg_prepared_xacts";
        let resolved = until_within(Duration::from_secs(30), async || {
            sqlx::query_scalar::<_, i64>(prepared)
                .fetch_one(&node)
                .await
                .is_ok_and(|prepared| prepared == 0)
        });
        assert!(resolved.await, "a transaction is in doubt");
    }
    let drained = until_within(Duration::from_secs(30), async || {
        for delivery in claim(&store).await {
            let _ = ship(&store, delivery).await;
        }
        count(&direct).await.is_ok_and(|left| left == 0)
    });
    assert!(drained.await, "messages are left");
    let (ordered, shipped) = (
        numbers(&direct, "orders").await?,
        numbers(&direct, "shipped").await?,
    );
    let kills = 3 * rounds;
    let failures = run.failures.load(Ordering::Relaxed);
    println!(
        "tried: {kills} kills, {} orders, {failures} transactions that failed",
        ordered.len()
    );
    assert_eq!(ordered, shipped);
    assert!(ordered.len() > 50);
    direct.close().await;
    Ok(())
}
