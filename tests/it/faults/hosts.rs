//! A URL with the hosts of a primary and its standby: stores find the primary, and follow it through fail-overs.

use std::net::TcpListener;

use pgqrs::ConnectOptions;

use super::{
    standby::{change, replicates, wait_for_standbys},
    *,
};
use crate::support::{chain, notes::Notes};

/// A primary and its standby, by turns.
pub(super) struct Cluster {
    servers: [Arc<Server>; 2],
    /// The place of the primary.
    primary: usize,
    is_synchronous: bool,
}

/// While other tasks go on.
async fn beside(
    server: &Arc<Server>,
    run: impl FnOnce(&Server) -> TestResult + Send + 'static,
) -> TestResult {
    let server = Arc::clone(server);
    let ran = move || run(&server).map_err(|error| error.to_string());
    Ok(tokio::task::spawn_blocking(ran).await??)
}

impl Cluster {
    /// With the queue `tasks`, and a log of all that is ever stored. If it is synchronous, each commit waits for a
    /// standby, also after a promotion.
    pub(super) async fn start(is_synchronous: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let primary = Server::start().await?;
        direct(&primary).await?.close().await;
        if is_synchronous {
            wait_for_standbys(&primary).await?;
        }
        let standby = primary.standby(primary.port())?;
        let cluster = Self {
            servers: [Arc::new(primary), Arc::new(standby)],
            primary: 0,
            is_synchronous,
        };
        cluster.standby().up()?;
        replicates(cluster.primary(), is_synchronous).await?;
        Ok(cluster)
    }

    fn primary(&self) -> &Arc<Server> {
        &self.servers[self.primary]
    }

    fn standby(&self) -> &Arc<Server> {
        &self.servers[1 - self.primary]
    }

    fn url(&self) -> String {
        let [first, second] = &self.servers;
        url(&[first.port(), second.port()], "")
    }

    pub(super) async fn store(&self) -> pgqrs::Result<Store> {
        pgqrs::connect(&self.url()).await
    }

    /// Past the stores.
    pub(super) async fn direct(&self) -> Result<PgPool, Box<dyn std::error::Error>> {
        Ok(PgPool::connect(&self.primary().url()).await?)
    }

    /// The primary crashes, and the standby is promoted.
    pub(super) async fn fail_over(&mut self) -> TestResult {
        beside(self.primary(), |primary| primary.down("immediate")).await?;
        self.promote().await
    }

    async fn promote(&mut self) -> TestResult {
        beside(self.standby(), Server::promote).await?;
        self.primary = 1 - self.primary;
        Ok(())
    }

    /// The former primary, which is down, becomes the standby.
    pub(super) async fn rebuild(&self) -> TestResult {
        let primary = Arc::clone(self.primary());
        beside(self.standby(), move |standby| {
            standby.follow(&primary, primary.port())?;
            standby.up()
        })
        .await?;
        replicates(self.primary(), self.is_synchronous).await
    }
}

fn url(ports: &[u16], parameters: &str) -> String {
    let hosts: Vec<_> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    format!(
        "postgres://postgres:a-secret@{}/postgres{parameters}",
        hosts.join(",")
    )
}

fn port_of(store: &Store) -> u16 {
    store.pool().connect_options().get_port()
}

pub(super) async fn logged(direct: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar("select payload from public.log")
        .fetch_all(direct)
        .await
}

/// Sends, one after another, until it is stopped. Each must be stored.
#[derive(Default)]
struct Senders {
    tasks: JoinSet<pgqrs::Result<()>>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Senders {
    fn start(store: &Store, many: usize) -> Self {
        let mut senders = Self::default();
        for sender in 0..many {
            let store = store.clone();
            let (acknowledged, over) =
                (Arc::clone(&senders.acknowledged), Arc::clone(&senders.over));
            senders.tasks.spawn(async move {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let payload = json!({"sender": sender, "n": n});
                    support::send(&store, &[&payload]).await?;
                    let mut acknowledged = acknowledged.lock().expect("not poisoned");
                    acknowledged.push(payload.to_string());
                }
                Ok(())
            });
        }
        senders
    }

    fn many(&self) -> usize {
        self.acknowledged.lock().expect("not poisoned").len()
    }

    async fn until_more(&self, many: usize) {
        let enough = self.many() + many;
        until("more is acknowledged", async || self.many() >= enough).await;
    }

    /// Ends them, and returns what was acknowledged.
    async fn stop(mut self) -> Outcomes<Vec<String>> {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = timeout(Duration::from_secs(40), self.tasks.join_next()).await? {
            ended??;
        }
        let mut acknowledged = self.acknowledged.lock().expect("not poisoned");
        Ok(std::mem::take(&mut *acknowledged))
    }
}

#[tokio::test]
async fn whichever_host_is_first_a_store_is_connected_to_the_primary() -> TestResult {
    let cluster = Cluster::start(false).await?;
    let (primary, standby) = (cluster.primary().port(), cluster.standby().port());
    // Accepts connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0))?;
    let silent = silent.local_addr()?.port();
    for (ports, attributes) in [
        (vec![standby, primary], ""),
        (vec![primary, standby], ""),
        (vec![standby, primary], "?target_session_attrs=primary"),
        (vec![standby, primary], "?target_session_attrs=read-write"),
        (vec![primary], "?target_session_attrs=read-write"),
        (vec![silent, standby, primary], ""),
    ] {
        let store = pgqrs::connect(&url(&ports, attributes)).await?;
        assert_eq!(port_of(&store), primary, "{ports:?} {attributes}");
        support::send(&store, &[1]).await?;
        pgqrs::admin(&store).install().await?;
    }
    let any = url(&[standby, primary], "?target_session_attrs=any");
    assert_eq!(port_of(&pgqrs::connect(&any).await?), standby);

    // LISTEN too, if it has a URL of its own.
    let options = ConnectOptions::builder()
        .url(cluster.primary().url())
        .listen_url(url(&[standby, primary], ""));
    let store = pgqrs::connect_with(options.build()).await?;
    let direct = cluster.direct().await?;
    // It would not poll before the test times out.
    let consumer = consumer().poll_interval(Duration::from_secs(3_600));
    let seen = Seen::default();
    let running = start(consumer.create(&store).await?, seen.handler());
    drained(&direct).await;
    listens(&direct).await;
    let elsewhere = pgqrs::connect(&cluster.primary().url()).await?;
    support::send(&elsewhere, &["woken"]).await?;
    drained(&direct).await;
    running.stop().await?;
    direct.close().await;
    Ok(())
}

async fn listens(direct: &PgPool) {
    until("a consumer listens", async || {
        let listening = "select count(*) from pg_stat_activity where query like 'LISTEN%'";
        let listening: Result<i64, _> = sqlx::query_scalar(listening).fetch_one(direct).await;
        listening.is_ok_and(|listening| listening > 0)
    })
    .await;
}

#[tokio::test]
async fn an_error_names_each_host_and_why_it_was_not_taken() -> TestResult {
    let cluster = Cluster::start(false).await?;
    let standby = cluster.standby().port();
    let closed = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let silent = TcpListener::bind(("127.0.0.1", 0))?;
    let silent = silent.local_addr()?.port();
    let connect = async |url: String| {
        let options = ConnectOptions::builder()
            .url(url)
            .acquire_timeout(Duration::from_secs(1));
        let error = pgqrs::connect_with(options.build()).await.err();
        let error = error.expect("no host can be taken");
        assert!(matches!(&error, Error::Connect(_)), "{error:?}");
        let text = chain(&error);
        assert!(!text.contains("secret"), "{text}");
        (text, error.is_retryable())
    };
    let (text, is_retryable) = connect(url(&[closed, silent, standby], "")).await;
    assert!(is_retryable, "{text}");
    for said in [
        format!("127.0.0.1:{closed}/postgres: error communicating with database: "),
        format!("127.0.0.1:{silent}/postgres: no answer within 1s"),
        format!("127.0.0.1:{standby}/postgres: it is a standby"),
        "none of the URL's hosts accepts writes".to_owned(),
    ] {
        assert!(text.contains(&said), "{said}: {text}");
    }
    let (text, is_retryable) = connect(url(&[standby], "?target_session_attrs=primary")).await;
    assert!(is_retryable && text.ends_with("it is a standby"), "{text}");
    let (text, is_retryable) =
        connect(url(&[closed], "?target_session_attrs=prefer-standby")).await;
    assert!(!is_retryable, "{text}");
    assert!(
        text.contains("it must be `read-write` or `primary`"),
        "{text}"
    );
    Ok(())
}

#[tokio::test]
async fn a_crash_of_the_primary_ends_no_send_and_no_consumer() -> TestResult {
    let mut cluster = Cluster::start(true).await?;
    let (notes, _guard) = Notes::start();
    let (old, new) = (cluster.primary().port(), cluster.standby().port());
    let store = cluster.store().await?;
    let elsewhere = cluster.store().await?;
    let before = cluster.direct().await?;
    // What was delivered when the primary crashed comes again after its lease.
    let busy = consumer().lease(Duration::from_secs(3));
    let seen = Seen::default();
    let running = start(busy.create(&store).await?, seen.handler());
    // It would not poll before the test times out.
    store.queue("calls").await?;
    let patient = prepare(pgqrs::consumer("calls")).poll_interval(Duration::from_secs(3_600));
    let woken = Seen::default();
    let waiting = start(patient.create(&store).await?, woken.handler());
    listens(&before).await;
    before.close().await;

    let senders = Senders::start(&elsewhere, 8);
    senders.until_more(50).await;
    cluster.fail_over().await?;
    // Until the old one is a standby, no commit is acknowledged.
    cluster.rebuild().await?;
    senders.until_more(50).await;
    let acknowledged = senders.stop().await.map_err(|error| error.to_string())?;

    let direct = cluster.direct().await?;
    drained(&direct).await;
    let stored = logged(&direct).await?;
    let once: HashSet<_> = stored.iter().collect();
    assert_eq!(once.len(), stored.len(), "a message is stored twice");
    assert_eq!(once, acknowledged.iter().collect());
    let handled = seen.times();
    assert!(stored.iter().all(|payload| handled.contains_key(payload)));
    // Nothing but a notification can wake it now.
    listens(&direct).await;
    let call = pgqrs::enqueue().message("woken").to("calls");
    call.execute(&elsewhere).await?;
    until("it is woken", async || woken.len() == 1).await;
    running.stop().await?;
    waiting.stop().await?;

    let changes = notes.lines("server changed");
    let expected =
        format!("server=\"127.0.0.1:{new}/postgres\" previous=\"127.0.0.1:{old}/postgres\"");
    assert_eq!(changes.len(), 2, "one for each store: {changes:#?}");
    for change in changes {
        assert!(
            change.starts_with("INFO  server changed after "),
            "{change}"
        );
        assert!(change.ends_with(&expected), "{change}");
    }
    assert!(!notes.all().contains("secret"));
    assert_eq!((port_of(&store), port_of(&elsewhere)), (new, new));
    direct.close().await;
    Ok(())
}

#[tokio::test]
async fn a_former_primary_that_comes_back_is_not_written_to() -> TestResult {
    let mut cluster = Cluster::start(false).await?;
    let old = Arc::clone(cluster.primary());
    let options = ConnectOptions::builder()
        .url(cluster.url())
        .acquire_timeout(Duration::from_secs(2))
        .retry_for(Duration::from_secs(5));
    let store = pgqrs::connect_with(options.build()).await?;
    support::send(&store, &["before"]).await?;
    cluster.fail_over().await?;
    support::send(&store, &["after"]).await?;
    let new = cluster.primary().port();
    assert_eq!(port_of(&store), new);

    // It doesn't know that another one is the primary.
    beside(&old, Server::up).await?;
    let direct = cluster.direct().await?;
    for n in 0..5 {
        sqlx::raw_sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgqrs'",
        )
        .execute(&direct)
        .await?;
        support::send(&store, &[n]).await?;
    }
    assert_eq!(port_of(&store), new);
    // Nor does one that starts now write to it.
    let fresh = cluster.store().await?;
    assert_eq!(port_of(&fresh), new);
    support::send(&fresh, &["fresh"]).await?;
    let on_old = PgPool::connect(&old.url()).await?;
    let before = json!("before").to_string();
    assert!(
        logged(&on_old)
            .await?
            .iter()
            .all(|payload| *payload == before)
    );

    // If it is the only one, sends wait for another.
    direct.close().await;
    beside(cluster.primary(), |primary| primary.down("immediate")).await?;
    let refused = support::send(&store, &["refused"]).await.unwrap_err();
    let text = chain(&refused);
    assert!(
        text.contains("it is a former primary, on timeline 1"),
        "{text}"
    );
    beside(cluster.primary(), Server::up).await?;
    support::send(&store, &["back"]).await?;
    assert!(
        logged(&on_old)
            .await?
            .iter()
            .all(|payload| *payload == before)
    );
    on_old.close().await;
    Ok(())
}

#[tokio::test]
async fn a_primary_that_becomes_read_only_is_left_for_the_one_that_is_promoted() -> TestResult {
    let mut cluster = Cluster::start(false).await?;
    let (old, new) = (Arc::clone(cluster.primary()), cluster.standby().port());
    let store = cluster.store().await?;
    let senders = Senders::start(&store, 4);
    senders.until_more(20).await;
    let on_old = cluster.direct().await?;
    let read_only = "alter system set default_transaction_read_only = on";
    change(cluster.primary(), read_only).await?;
    until("it is read-only", async || {
        let read_only = "select current_setting('default_transaction_read_only') = 'on'";
        let read_only: Result<bool, _> = sqlx::query_scalar(read_only).fetch_one(&on_old).await;
        read_only.is_ok_and(|read_only| read_only)
    })
    .await;
    // What was under way is over, and replicated.
    until("no statement of the store is under way", async || {
        let active = "select count(*) from pg_stat_activity
            where application_name = 'pgqrs' and state <> 'idle'";
        let active: Result<i64, _> = sqlx::query_scalar(active).fetch_one(&on_old).await;
        active.is_ok_and(|active| active == 0)
    })
    .await;
    until("the standby has it all", async || {
        let flushed = "select flush_lsn >= pg_current_wal_lsn() from pg_stat_replication";
        let flushed: Result<bool, _> = sqlx::query_scalar(flushed).fetch_one(&on_old).await;
        flushed.is_ok_and(|flushed| flushed)
    })
    .await;
    let before: HashSet<_> = logged(&on_old).await?.into_iter().collect();
    cluster.promote().await?;
    senders.until_more(20).await;
    let acknowledged = senders.stop().await.map_err(|error| error.to_string())?;
    assert_eq!(port_of(&store), new);
    let direct = cluster.direct().await?;
    let stored = logged(&direct).await?;
    let once: HashSet<_> = stored.iter().collect();
    assert_eq!(once.len(), stored.len(), "a message is stored twice");
    assert_eq!(once, acknowledged.iter().collect());
    let after: HashSet<_> = logged(&on_old).await?.into_iter().collect();
    assert_eq!(after, before, "{} was written to", old.port());
    on_old.close().await;
    direct.close().await;
    Ok(())
}

/// As after a power cut, or if a network drops packets: nothing is refused, and nothing is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_does_not_answer_any_more_is_left_for_the_one_that_is_promoted() -> TestResult
{
    let mut cluster = Cluster::start(true).await?;
    let old = Proxy::start("127.0.0.1", cluster.primary().port()).await?;
    let new = Proxy::start("127.0.0.1", cluster.standby().port()).await?;
    let options = ConnectOptions::builder()
        .url(url(&[old.port(), new.port()], ""))
        // A third of it is the time-out of a statement.
        .retry_for(Duration::from_secs(9));
    let store = pgqrs::connect_with(options.build()).await?;
    let senders = Senders::start(&store, 4);
    senders.until_more(20).await;
    old.swallow();
    cluster.promote().await?;
    // It has no standby to wait for.
    change(
        cluster.primary(),
        "alter system reset synchronous_standby_names",
    )
    .await?;
    senders.until_more(20).await;
    let acknowledged = senders.stop().await.map_err(|error| error.to_string())?;
    assert_eq!(port_of(&store), new.port());
    let direct = cluster.direct().await?;
    let stored = logged(&direct).await?;
    let once: HashSet<_> = stored.iter().collect();
    assert_eq!(once.len(), stored.len(), "a message is stored twice");
    assert_eq!(once, acknowledged.iter().collect());
    direct.close().await;
    Ok(())
}
