//! Waking consumers when something was enqueued. For idle consumers, who would otherwise find it only at
//! their next poll. It is a hint: it may be late, lost or for nothing, and polling is what is relied on.
//!
//! A consumer of the same store is woken directly, those in other processes by NOTIFY: after the commit,
//! since inside the transaction it would make all commits wait for each other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    error::Result,
    postgres::messages,
    queue::QueueName,
    store::{Lent, TO_SPARE},
    telemetry,
};

/// The channel of NOTIFY; its payload is a queue's name.
const CHANNEL: &str = "pgqrs";
/// After one NOTIFY the next waits this long, and then stands for all that came in between.
const PAUSE: Duration = Duration::from_millis(5);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// After this much silence a listener asks whether the server is still there.
const HEARING: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Shared by all clones of a store.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    /// A sleeper has left.
    left: Notify,
}

/// Is woken for a queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct Sleeper {
    woken: Arc<Notify>,
    shared: Arc<Shared>,
}

impl Sleeper {
    pub(crate) async fn notified(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        for sleepers in self.shared.lock().sleepers.values_mut() {
            sleepers.retain(|sleeper| !Arc::ptr_eq(sleeper, &self.woken));
        }
        self.shared.left.notify_one();
    }
}

#[derive(Debug, Default)]
struct State {
    sleepers: HashMap<QueueName, Vec<Arc<Notify>>>,
    /// To be told to other processes.
    untold: HashSet<QueueName>,
    teller: Option<JoinHandle<()>>,
    listener: Option<JoinHandle<()>>,
}

/// Whether a task has to be started: there is none, or it ended with its runtime.
fn is_gone(task: &Option<JoinHandle<()>>) -> bool {
    task.as_ref().is_none_or(JoinHandle::is_finished)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, queue: &str) {
        let state = self.lock();
        // By string: what comes from the server need not be a queue's name.
        for (name, sleepers) in &state.sleepers {
            if name.as_str() == queue {
                sleepers.iter().for_each(|sleeper| sleeper.notify_one());
            }
        }
    }

    /// What is to be told. Where there is nothing, the task is told to end, under the same lock by which the
    /// next enqueue looks for it: so none falls between.
    fn untold(&self) -> Option<Vec<String>> {
        let mut state = self.lock();
        if state.untold.is_empty() {
            state.teller = None;
            return None;
        }
        Some(
            state
                .untold
                .drain()
                .map(|queue| queue.as_str().to_owned())
                .collect(),
        )
    }

    /// Whether there is anybody to listen for. Where there is nobody, the task is told to end.
    fn has_sleepers(&self) -> bool {
        let mut state = self.lock();
        state.sleepers.retain(|_, sleepers| !sleepers.is_empty());
        if state.sleepers.is_empty() {
            state.listener = None;
        }
        !state.sleepers.is_empty()
    }

    fn wake_all(&self) {
        let state = self.lock();
        for sleeper in state.sleepers.values().flatten() {
            sleeper.notify_one();
        }
    }
}

impl Wakes {
    /// Something was enqueued and is ready.
    pub(crate) fn enqueued(&self, pool: &PgPool, queue: &QueueName) {
        self.shared.wake(queue.as_str());
        let mut state = self.shared.lock();
        if !state.untold.contains(queue) {
            state.untold.insert(queue.clone());
        }
        if is_gone(&state.teller) {
            state.teller = Some(tokio::spawn(tell(Arc::clone(&self.shared), pool.clone())));
        }
    }

    /// To be woken for a queue, by this process, and by others where it is to `listen`.
    pub(crate) fn sleeper(&self, pool: &PgPool, queue: &QueueName, listen: bool) -> Sleeper {
        let woken = Arc::new(Notify::new());
        let mut state = self.shared.lock();
        let sleepers = state.sleepers.entry(queue.clone()).or_default();
        sleepers.push(Arc::clone(&woken));
        if listen && is_gone(&state.listener) {
            state.listener = Some(tokio::spawn(hear(Arc::clone(&self.shared), pool.clone())));
        }
        Sleeper {
            woken,
            shared: Arc::clone(&self.shared),
        }
    }
}

async fn tell(shared: Arc<Shared>, pool: PgPool) {
    // From one NOTIFY to the next.
    let can_keep = pool.options().get_max_connections() >= TO_SPARE;
    let mut kept = None;
    while let Some(queues) = shared.untold() {
        let told = async {
            let mut lent = match kept.take() {
                Some(lent) => lent,
                None => Lent::of(&pool).await?,
            };
            lent.within(STATEMENT_TIMEOUT, async |connection| {
                messages::notify(connection, CHANNEL, &queues).await
            })
            .await?;
            kept = can_keep.then_some(lent);
            Ok(())
        };
        let told: Result<()> = told.await;
        if let Err(error) = told {
            telemetry::hint_failed(&error.to_string());
        }
        sleep(PAUSE).await;
    }
}

async fn hear(shared: Arc<Shared>, pool: PgPool) {
    let mut backoff = PAUSE;
    while shared.has_sleepers() {
        match listen(&pool).await {
            Ok(mut listener) => {
                backoff = PAUSE;
                // Whatever was told before somebody listened.
                shared.wake_all();
                loop {
                    let heard = tokio::select! {
                        heard = timeout(HEARING, listener.try_recv()) => heard,
                        () = shared.left.notified() => {
                            if shared.has_sleepers() {
                                continue;
                            }
                            return;
                        }
                    };
                    match heard {
                        Ok(Ok(Some(notification))) => shared.wake(notification.payload()),
                        // The connection is gone.
                        Ok(Ok(None) | Err(_)) => break,
                        // Silence is as it should be, or the server has vanished: a question tells.
                        Err(_) => {
                            match timeout(STATEMENT_TIMEOUT, listener.listen(CHANNEL)).await {
                                Ok(Ok(())) => {}
                                Ok(Err(_)) | Err(_) => break,
                            }
                        }
                    }
                }
            }
            Err(error) => telemetry::hint_failed(&error.to_string()),
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// On a connection of its own: the store's are there for statements.
async fn listen(pool: &PgPool) -> Result<PgListener> {
    let alone = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(STATEMENT_TIMEOUT)
        .connect_lazy_with((*pool.connect_options()).clone());
    let mut listener = PgListener::connect_with(&alone).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
