//! One fail-over after another, under load. `PGQRS_FAILOVERS` asks for more of them, and `PGQRS_SEED` makes the same draws
//! again.

use super::{
    hosts::{Cluster, logged},
    *,
};

/// How often the primary crashes and the standby is promoted.
fn fail_overs() -> u64 {
    number("PGQRS_FAILOVERS", 2)
}

/// What the rounds of [`crashes`] have left.
struct Rounds {
    ledger: Arc<Ledger>,
    direct: PgPool,
    seed: u64,
    _cluster: Cluster,
}

/// One crash and promotion after another, while messages are sent and handled. After each, the former primary becomes
/// the standby.
async fn crashes(is_synchronous: bool) -> Result<Rounds, Box<dyn std::error::Error>> {
    let seed = number("PGQRS_SEED", rand::random::<u32>().into());
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(is_synchronous).await?;
    let ledger = Arc::new(Ledger::default());
    let (mut senders, mut consumers) = (JoinSet::new(), JoinSet::new());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for sender in 0..6 {
        let store = cluster.store().await?;
        let random = StdRng::seed_from_u64(seed ^ (sender + 1));
        senders.spawn(send(store, sender, Arc::clone(&ledger), random));
    }
    for _ in 0..2 {
        let store = cluster.store().await?;
        consumers.spawn(consume(store, Arc::clone(&ledger), stopped.clone()));
    }
    for round in 1..=fail_overs() {
        let enough = ledger.sent.load(Ordering::Relaxed) + random.random_range(200..1_500);
        until("messages are sent", async || {
            ledger.sent.load(Ordering::Relaxed) >= enough
        })
        .await;
        cluster.fail_over().await?;
        cluster.rebuild().await?;
        let sent = ledger.sent.load(Ordering::Relaxed);
        eprintln!(
            "{round} of {} fail-overs, {sent} messages sent",
            fail_overs()
        );
    }
    ledger.over.store(true, Ordering::Relaxed);
    let calls = async { while senders.join_next().await.is_some() {} };
    timeout(Duration::from_secs(60), calls)
        .await
        .map_err(|_| format!("a send hangs; seed {seed}"))?;
    let direct = cluster.direct().await?;
    let drained = until_within(Duration::from_secs(60), async || {
        count(&direct).await.is_ok_and(|left| left == 0)
    });
    assert!(drained.await, "messages are left; seed {seed}");
    stop.send(true)?;
    while let Some(ended) = timeout(Duration::from_secs(60), consumers.join_next()).await? {
        ended?.map_err(|error| format!("a consumer ended: {error}; seed {seed}"))?;
    }
    Ok(Rounds {
        ledger,
        direct,
        seed,
        _cluster: cluster,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn with_synchronous_standbys_one_fail_over_after_another_loses_nothing() -> TestResult {
    let rounds = crashes(true).await?;
    let summary = check(&rounds.ledger, &rounds.direct)
        .await
        .map_err(|why| format!("{why}; seed {}", rounds.seed))?;
    eprintln!("{} fail-overs: {summary}", fail_overs());
    rounds.direct.close().await;
    Ok(())
}

/// What was acknowledged and had not reached the standby is lost, and counted here. Nothing is stored twice, and whatever
/// is left is handled.
#[tokio::test(flavor = "multi_thread")]
async fn with_asynchronous_standbys_a_fail_over_loses_at_most_what_had_not_been_replicated()
-> TestResult {
    let rounds = crashes(false).await?;
    let log = logged(&rounds.direct).await?;
    rounds.direct.close().await;
    let seed = rounds.seed;
    let lost = Lost::count(&rounds.ledger, &log).map_err(|why| format!("{why}; seed {seed}"))?;
    let Lost { acknowledged, lost } = lost;
    eprintln!(
        "{} fail-overs: {acknowledged} messages acknowledged, {lost} of them lost",
        fail_overs()
    );
    assert!(
        lost < acknowledged / 2,
        "{lost} of {acknowledged}; seed {seed}"
    );
    Ok(())
}

/// How many messages were acknowledged, and how many of these are lost.
struct Lost {
    acknowledged: usize,
    lost: usize,
}

impl Lost {
    fn count(ledger: &Ledger, log: &[String]) -> Result<Self, String> {
        let stored: HashSet<_> = log.iter().map(String::as_str).collect();
        if stored.len() < log.len() {
            return Err("a message is stored twice".to_owned());
        }
        let handled = ledger.handled.lock().expect("no panic while it is held");
        let handled: HashSet<_> = handled.iter().map(|(_, payload)| &**payload).collect();
        if let Some(payload) = stored.difference(&handled).next() {
            return Err(format!("{payload} was never handled"));
        }
        let (mut acknowledged, mut lost) = (0, 0);
        let calls = ledger.calls.lock().expect("no panic while it is held");
        for Call { payloads, returned } in calls.iter() {
            let is_stored = |payload: &&String| stored.contains(payload.as_str());
            let found = payloads.iter().filter(is_stored).count();
            match returned {
                Returned::Stored(_) if found == 0 || found == payloads.len() => {
                    acknowledged += payloads.len();
                    lost += payloads.len() - found;
                }
                Returned::Stored(_) => return Err(format!("a part is lost of {payloads:?}")),
                Returned::Refused(why) if found > 0 => {
                    return Err(format!("refused with {why}, and stored: {payloads:?}"));
                }
                _ => {}
            }
        }
        Ok(Self { acknowledged, lost })
    }
}
