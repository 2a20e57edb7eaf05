//! A fail-over to a standby that replicates while messages are sent: what was acknowledged is counted, and what of it is
//! left.

use super::*;
use crate::support::chain;

/// A primary and its standby. `link` is what the standby replicates through, `clients` what stores connect to.
struct Pair {
    primary: Server,
    standby: Server,
    link: Proxy,
    clients: Proxy,
}

/// Waits until a standby replicates.
pub(super) async fn replicates(primary: &Server, synchronous: bool) -> TestResult {
    let direct = PgPool::connect(&primary.url()).await?;
    let wanted = if synchronous { "sync" } else { "async" };
    until("the standby replicates", async || {
        let state = "select sync_state from pg_stat_replication where state = 'streaming'";
        let state: Result<String, _> = sqlx::query_scalar(state).fetch_one(&direct).await;
        state.is_ok_and(|state| state == wanted)
    })
    .await;
    direct.close().await;
    Ok(())
}

/// From now on each commit waits for a standby. Copies of the server will do so too, once they are promoted.
pub(super) async fn wait_for_standbys(primary: &Server) -> TestResult {
    change(primary, "alter system set synchronous_standby_names = '*'").await
}

/// Changes a setting of a server.
pub(super) async fn change(server: &Server, statement: &'static str) -> TestResult {
    let direct = PgPool::connect(&server.url()).await?;
    sqlx::raw_sql(statement).execute(&direct).await?;
    sqlx::raw_sql("select pg_reload_conf()")
        .execute(&direct)
        .await?;
    direct.close().await;
    Ok(())
}

impl Pair {
    /// With the queue `tasks`. The standby is up to date.
    async fn start(synchronous: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let primary = Server::start().await?;
        servers::installed(primary.url()).await?;
        let link = Proxy::start("127.0.0.1", primary.port()).await?;
        let standby = primary.standby(link.port())?;
        standby.up()?;
        if synchronous {
            wait_for_standbys(&primary).await?;
        }
        replicates(&primary, synchronous).await?;
        let clients = Proxy::start("127.0.0.1", primary.port()).await?;
        Ok(Self {
            primary,
            standby,
            link,
            clients,
        })
    }

    async fn store(&self) -> pgqrs::Result<Store> {
        let url = format!(
            "postgres://postgres@127.0.0.1:{}/postgres",
            self.clients.port()
        );
        pgqrs::connect(&url).await
    }

    /// Waits until the standby has on its disk what the primary has.
    async fn catch_up(&self) -> TestResult {
        let direct = PgPool::connect(&self.primary.url()).await?;
        let written: String = sqlx::query_scalar("select pg_current_wal_flush_lsn()::text")
            .fetch_one(&direct)
            .await?;
        until("the standby has it all", async || {
            let flushed = "select flush_lsn >= $1::pg_lsn from pg_stat_replication";
            let flushed: Result<bool, _> = sqlx::query_scalar(flushed)
                .bind(&written)
                .fetch_one(&direct)
                .await;
            flushed.is_ok_and(|flushed| flushed)
        })
        .await;
        direct.close().await;
        Ok(())
    }

    /// The primary crashes, and the standby takes its place.
    fn fail_over(&self) -> TestResult {
        self.primary.down("immediate")?;
        self.standby.promote()?;
        self.clients.fail_over(self.standby.port());
        Ok(())
    }
}

fn payloads(sends: &[i64]) -> HashSet<String> {
    sends.iter().map(|n| json!(n).to_string()).collect()
}

/// The payloads of all messages. No two are the same.
async fn left(direct: &PgPool) -> Result<HashSet<String>, Box<dyn std::error::Error>> {
    let stored = stored(direct).await?;
    let payloads: HashSet<_> = stored.iter().map(|one| one.payload.clone()).collect();
    assert_eq!(payloads.len(), stored.len(), "a message is stored twice");
    Ok(payloads)
}

/// While the standby can't be reached, no send is acknowledged; those that waited are stored once on the new primary.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_synchronous_standby_a_fail_over_loses_nothing_that_was_acknowledged() -> TestResult
{
    let pair = Pair::start(true).await?;
    let store = pair.store().await?;
    let sends: Vec<i64> = (0..50).collect();
    for n in &sends {
        support::send(&store, &[n]).await?;
    }
    let settled: Vec<_> = support::claim(&store, 10).await?;
    let mut expected = payloads(&sends);
    for delivery in settled {
        expected.remove(&delivery.payload()?.to_string());
        delivery.ack(&store).await?;
    }
    pair.link.stall();
    let waiting: Vec<i64> = (1_000..1_020).collect();
    let calls: Vec<_> = waiting
        .iter()
        .map(|n| {
            let (store, n) = (store.clone(), *n);
            tokio::spawn(async move { support::send(&store, &[n]).await })
        })
        .collect();
    let direct = PgPool::connect(&pair.primary.url()).await?;
    until("a commit waits for the standby", async || {
        let waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        let waits: Result<i64, _> = sqlx::query_scalar(waits).fetch_one(&direct).await;
        waits.is_ok_and(|waits| waits > 0)
    })
    .await;
    direct.close().await;
    assert!(calls.iter().all(|call| !call.is_finished()));
    pair.fail_over()?;
    for call in calls {
        timeout(Duration::from_secs(30), call).await???;
    }
    expected.extend(payloads(&waiting));
    let direct = PgPool::connect(&pair.standby.url()).await?;
    assert_eq!(left(&direct).await?, expected);
    direct.close().await;
    Ok(())
}

/// What it has not received is lost, and only that.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_asynchronous_standby_a_fail_over_loses_what_was_acknowledged_while_it_was_behind()
-> TestResult {
    let pair = Pair::start(false).await?;
    let store = pair.store().await?;
    let received: Vec<i64> = (0..50).collect();
    support::send(&store, &received).await?;
    pair.catch_up().await?;
    pair.link.stall();
    let behind: Vec<i64> = (1_000..1_020).collect();
    for n in &behind {
        support::send(&store, &[n]).await?;
    }
    pair.fail_over()?;
    let after: Vec<i64> = (2_000..2_020).collect();
    for n in &after {
        support::send(&store, &[n]).await?;
    }
    let direct = PgPool::connect(&pair.standby.url()).await?;
    let mut expected = payloads(&received);
    expected.extend(payloads(&after));
    assert_eq!(left(&direct).await?, expected);
    direct.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_standby_queues_can_be_read_and_a_send_is_refused() -> TestResult {
    let pair = Pair::start(false).await?;
    support::send(&pair.store().await?, &[1, 2, 3]).await?;
    pair.catch_up().await?;
    let options = ConnectOptions::builder()
        .url(pair.standby.url())
        .retry_for(Duration::ZERO);
    let replica = pgqrs::connect_with(options.build()).await?;
    let admin = pgqrs::admin(&replica);
    until("the standby shows what it has", async || {
        let stats = admin.queue_stats("tasks").await;
        stats.is_ok_and(|stats| stats.ready == 3)
    })
    .await;
    admin.health().await?;
    let refused = support::send(&replica, &[4]).await.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    assert!(chain(&refused).contains("read-only"), "{refused:?}");
    Ok(())
}
