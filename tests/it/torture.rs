//! Short leases, late commits, late settlements and killed connections, all at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use pgqrs::{Delivery, MessageId, Priority, QueueOptions, Store, Unchecked};
use rand::RngExt;
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{TestResult, connect, count, until, url, with_queues};

const LEASE: Duration = Duration::from_millis(150);
const RUN: Duration = Duration::from_secs(8);

/// A delivery, by the database's clock.
#[derive(Debug, Clone, Copy)]
struct Held {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    /// Its holder has settled it, or nobody knows whether it has.
    is_over: bool,
    /// When its claim was sent, by our clock.
    sent: Instant,
}

#[derive(Debug, Default)]
struct Ledger {
    stored: HashSet<MessageId>,
    held: HashMap<MessageId, Vec<Held>>,
    /// When the answer to an acknowledgement was received.
    acked: HashMap<MessageId, Instant>,
    /// Acknowledged, but the answer was lost.
    unknown: HashSet<MessageId>,
}

type Shared = Arc<Mutex<Ledger>>;

/// What a consumer does with a delivery.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Ack,
    Fail,
    /// Drops it, as if the consumer had crashed.
    Abandon,
    /// Acknowledges it when its lease has run out.
    AckLate,
    ExtendAndAck,
}

impl Deed {
    fn random() -> Self {
        match rand::rng().random_range(0..100) {
            0..60 => Self::Ack,
            60..78 => Self::Fail,
            78..86 => Self::Abandon,
            86..93 => Self::AckLate,
            _ => Self::ExtendAndAck,
        }
    }
}

async fn consume(store: Store, ledger: Shared, is_over: Arc<AtomicBool>) {
    while !is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let limit = rand::rng().random_range(1..=20);
        let claim = pgqrs::dequeue().from("tasks").limit(limit).lease(LEASE);
        // Its connection was killed.
        let Ok(deliveries) = claim.execute(&store).await else {
            continue;
        };
        let mut place = HashMap::new();
        {
            let mut ledger = ledger.lock().expect("no panic");
            for delivery in &deliveries {
                let until = delivery.lease_expires_at();
                let held = ledger.held.entry(delivery.id()).or_default();
                place.insert(delivery.id(), held.len());
                held.push(Held {
                    from: until - LEASE,
                    until,
                    is_over: false,
                    sent,
                });
            }
        }
        for delivery in deliveries {
            let id = delivery.id();
            settle(&store, &ledger, delivery, place[&id]).await;
        }
    }
}

async fn settle(
    store: &Store,
    ledger: &Shared,
    delivery: Delivery<Value, Unchecked>,
    place: usize,
) {
    let id = delivery.id();
    let deed = Deed::random();
    let change = |change: &dyn Fn(&mut Held)| {
        let mut ledger = ledger.lock().expect("no panic");
        change(&mut ledger.held.get_mut(&id).expect("noted")[place]);
    };
    match deed {
        Deed::Abandon => return,
        Deed::AckLate => sleep(LEASE + Duration::from_millis(100)).await,
        Deed::ExtendAndAck => {
            if delivery.extend(LEASE).await.is_ok() {
                let until = delivery.lease_expires_at();
                change(&|held| held.until = until);
            }
        }
        Deed::Ack | Deed::Fail => {}
    }
    // From now on, others may have it.
    change(&|held| held.is_over = true);
    match deed {
        Deed::Fail => {
            let wait = Duration::from_millis(rand::rng().random_range(0..60));
            let _ = delivery.retry_in(wait, store).await;
        }
        _ => {
            let acked = delivery.ack(store).await;
            let mut ledger = ledger.lock().expect("no panic");
            match acked {
                Ok(()) => {
                    ledger.acked.insert(id, Instant::now());
                }
                Err(pgqrs::Error::LeaseLost { .. }) => {}
                Err(_) => {
                    ledger.unknown.insert(id);
                }
            }
        }
    }
}

async fn produce(url: String, ledger: Shared, until: Instant) -> TestResult {
    let mut connection = PgConnection::connect(&url).await?;
    let mut first = 0_u64;
    while Instant::now() < until {
        let (many, open, rolls_back, priority) = {
            let mut random = rand::rng();
            let open = match random.random_range(0..3) {
                0 => random.random_range(0..400),
                _ => 0,
            };
            let priority = [Priority::High, Priority::Normal, Priority::Low];
            (
                random.random_range(1..=30),
                Duration::from_millis(open),
                random.random_range(0..12) == 0,
                priority[random.random_range(0..3)],
            )
        };
        let payloads: Vec<_> = (first..first + many).collect();
        first += many;
        let mut transaction = connection.begin().await?;
        let enqueue = pgqrs::enqueue().messages(&payloads).to("tasks");
        let ids = enqueue.priority(priority).execute(&mut transaction).await?;
        sleep(open).await;
        if rolls_back {
            transaction.rollback().await?;
        } else {
            transaction.commit().await?;
            ledger.lock().expect("no panic").stored.extend(&*ids);
        }
    }
    connection.close().await?;
    Ok(())
}

/// Two processes, each with four consumers.
#[sqlx::test(migrator = "pgqrs::MIGRATOR")]
async fn whatever_happens_a_message_has_one_lease_and_is_acknowledged(pool: PgPool) -> TestResult {
    let admin = with_queues(pool.clone(), &["tasks"]).await?;
    let patient = QueueOptions::builder().max_attempts(1_000_000).build();
    pgqrs::admin(&admin)
        .configure_queue("tasks", patient)
        .await?;
    let (ledger, is_over) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let ends = Instant::now() + RUN;
    let (mut consumers, mut producers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..2 {
        let store = connect(&pool).await?;
        for _ in 0..4 {
            let (ledger, is_over) = (Arc::clone(&ledger), Arc::clone(&is_over));
            consumers.spawn(consume(store.clone(), ledger, is_over));
        }
    }
    for _ in 0..3 {
        let (url, ledger) = (url(&pool), Arc::clone(&ledger));
        producers.spawn(async move {
            produce(url, ledger, ends)
                .await
                .map_err(|error| error.to_string())
        });
    }
    let mut killed = 0;
    while Instant::now() < ends {
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name = 'pgqrs'
                    order by random() limit 1";
        killed += sqlx::query(kill).fetch_all(&pool).await?.len();
        sleep(Duration::from_millis(30)).await;
    }
    while let Some(producer) = producers.join_next().await {
        producer??;
    }
    until("all is acknowledged", async || {
        count(&pool).await.expect("counted") == 0
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    consumers.join_all().await;

    let ledger = ledger.lock().expect("no panic");
    let mut deliveries = 0;
    for (id, held) in &ledger.held {
        let mut held = held.clone();
        held.sort_unstable_by_key(|held| held.from);
        deliveries += held.len();
        for pair in held.windows(2) {
            let [first, second] = pair else { continue };
            assert!(
                first.is_over || second.from >= first.until,
                "{id} has two leases: {first:?}, {second:?}"
            );
        }
        if let Some(acked) = ledger.acked.get(id) {
            let late = held.iter().find(|held| held.sent > *acked);
            assert!(late.is_none(), "{id} came back: {late:?}");
        }
    }
    for id in &ledger.stored {
        assert!(
            ledger.acked.contains_key(id) || ledger.unknown.contains(id),
            "{id} is lost: {:?}",
            ledger.held.get(id)
        );
    }
    // So that the test is about something.
    assert!(killed > 20, "{killed} connections were killed");
    assert!(
        deliveries > ledger.stored.len() && ledger.stored.len() > 500,
        "{deliveries} deliveries of {} messages",
        ledger.stored.len()
    );
    Ok(())
}
