//! Wakes idle consumers when a message was enqueued; without it they find the message at their next poll. A wake-up is
//! only a hint: it may come late, get lost or be spurious. Correctness rests on polling.
//!
//! Consumers of the same store are woken directly, those in other processes by NOTIFY. It is sent after the commit,
//! since inside the transaction it would make all commits wait for each other.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    connection::{Connections, StoreConnection},
    search::Suspicion,
};
use crate::{
    error::Result, message::cancel_notice::CancelNotice, postgres::messages, queue::QueueName,
    telemetry,
};

/// The channel of NOTIFY; its payload is a queue's name.
const CHANNEL: &str = "pgqrs";
/// The channel of NOTIFY for cancelled leases; see [`CancelNotice`].
pub(crate) const CANCELLED: &str = "pgqrs_cancelled";
/// Maximum number of notices that wait for a consumer. Those beyond it are dropped: it notices at its next extension.
const MAX_NOTICES: usize = 1_000;
/// Minimum time between two NOTIFYs; the second one is for everything enqueued in between.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(5);
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// A listener that receives nothing for this long checks its connection.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Pause between two searches for the host to listen at, if the URL names several.
const SEARCH_INTERVAL: Duration = Duration::from_millis(500);

/// Shared by all clones of a store.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    connections: Connections,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Never held across an await.
    state: Mutex<State>,
    /// A subscription was dropped.
    unsubscribed: Notify,
}

/// Receives wake-ups for a queue until it is dropped.
#[derive(Debug)]
pub(crate) struct WakeSubscription {
    subscriber: Arc<Subscriber>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Subscriber {
    woken: Notify,
    /// Never held across an await.
    notices: Mutex<Vec<CancelNotice>>,
    noticed: Notify,
}

impl Subscriber {
    fn notices(&self) -> MutexGuard<'_, Vec<CancelNotice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WakeSubscription {
    pub(crate) async fn notified(&self) {
        self.subscriber.woken.notified().await;
    }

    /// Waits for notices of cancelled leases, which may be those of any consumer.
    pub(crate) async fn cancelled(&self) -> Vec<CancelNotice> {
        self.subscriber.noticed.notified().await;
        mem::take(&mut *self.subscriber.notices())
    }
}

impl Drop for WakeSubscription {
    fn drop(&mut self) {
        for subscriptions in self.shared.lock().subscriptions.values_mut() {
            subscriptions.retain(|subscriber| !Arc::ptr_eq(subscriber, &self.subscriber));
        }
        self.shared.unsubscribed.notify_one();
    }
}

#[derive(Debug, Default)]
struct State {
    subscriptions: HashMap<QueueName, Vec<Arc<Subscriber>>>,
    /// Queues for which a NOTIFY is to be sent.
    pending: HashSet<QueueName>,
    notify_task: Option<JoinHandle<()>>,
    listen_task: Option<JoinHandle<()>>,
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
        // Compared as a string: a name that comes from the server need not be a valid queue name.
        for (name, subscriptions) in &state.subscriptions {
            if name.as_str() == queue {
                subscriptions
                    .iter()
                    .for_each(|subscriber| subscriber.woken.notify_one());
            }
        }
    }

    /// Takes the queues for which a NOTIFY is to be sent; `None` if there are none, and then the task ends. Under the
    /// same lock under which the next enqueue looks for the task, so that it either finds the task or starts another.
    fn take_pending(&self) -> Option<Vec<String>> {
        let mut state = self.lock();
        if state.pending.is_empty() {
            state.notify_task = None;
            return None;
        }
        Some(
            state
                .pending
                .drain()
                .map(|queue| queue.as_str().to_owned())
                .collect(),
        )
    }

    /// Whether there are subscriptions to listen for. If there are none, the task ends.
    fn has_subscriptions(&self) -> bool {
        let mut state = self.lock();
        state
            .subscriptions
            .retain(|_, subscriptions| !subscriptions.is_empty());
        if state.subscriptions.is_empty() {
            state.listen_task = None;
        }
        !state.subscriptions.is_empty()
    }

    fn wake_all(&self) {
        let state = self.lock();
        for subscriber in state.subscriptions.values().flatten() {
            subscriber.woken.notify_one();
        }
    }

    fn cancelled(&self, notice: CancelNotice) {
        let state = self.lock();
        for subscriber in state.subscriptions.values().flatten() {
            let mut notices = subscriber.notices();
            if notices.len() < MAX_NOTICES {
                notices.push(notice);
            }
            drop(notices);
            subscriber.noticed.notify_one();
        }
    }
}

impl Notifier {
    #[cfg(feature = "testing")]
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) fn new(connections: Connections) -> Self {
        Self {
            connections,
            shared: Arc::default(),
        }
    }

    /// Wakes the consumers of a queue in which a message is ready now.
    pub(crate) fn wake(&self, queue: &QueueName) {
        self.shared.wake(queue.as_str());
        let mut state = self.shared.lock();
        if !state.pending.contains(queue) {
            state.pending.insert(queue.clone());
        }
        if is_gone(&state.notify_task) {
            state.notify_task = Some(tokio::spawn(notify_loop(
                Arc::clone(&self.shared),
                self.connections.clone(),
            )));
        }
    }

    /// Notifies the consumers of this process that a lease was cancelled.
    pub(crate) fn cancelled(&self, notice: CancelNotice) {
        self.shared.cancelled(notice);
    }

    /// Subscribes to a queue: to what this process enqueues, and with `listen` also to what other processes enqueue.
    pub(crate) fn subscribe(&self, queue: &QueueName, listen: bool) -> WakeSubscription {
        let subscriber = Arc::new(Subscriber::default());
        let mut state = self.shared.lock();
        let subscriptions = state.subscriptions.entry(queue.clone()).or_default();
        subscriptions.push(Arc::clone(&subscriber));
        if listen {
            self.start_listening(&mut state);
        }
        WakeSubscription {
            subscriber,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Restarts the listener if the runtime that ran it has ended. To be called by long-running operations.
    pub(crate) fn resume_listening(&self) {
        self.start_listening(&mut self.shared.lock());
    }

    fn start_listening(&self, state: &mut State) {
        if is_gone(&state.listen_task) {
            state.listen_task = Some(tokio::spawn(listen_loop(
                Arc::clone(&self.shared),
                self.connections.clone(),
            )));
        }
    }
}

async fn notify_loop(shared: Arc<Shared>, connections: Connections) {
    // Kept from one NOTIFY to the next.
    let mut kept: Option<StoreConnection> = None;
    while let Some(queues) = shared.take_pending() {
        let notified = async {
            let mut connection = match kept.take() {
                Some(connection) if !connections.is_closed() && !connection.is_left() => connection,
                _ => connections.acquire().await?,
            };
            connection
                .within(STATEMENT_TIMEOUT, async |connection| {
                    messages::notify(connection, CHANNEL, &queues).await
                })
                .await?;
            kept = connections.can_keep().then_some(connection);
            Ok(())
        };
        let notified: Result<()> = notified.await;
        if let Err(error) = notified {
            telemetry::notification_failed(&error);
        }
        sleep(NOTIFY_INTERVAL).await;
    }
}

async fn listen_loop(shared: Arc<Shared>, connections: Connections) {
    let mut backoff = NOTIFY_INTERVAL;
    while shared.has_subscriptions() {
        let moves = connections.moves();
        let listening = tokio::select! {
            listening = listen(&connections) => listening,
            () = connections.moved(moves) => continue,
        };
        match listening {
            Ok(mut listener) => {
                backoff = NOTIFY_INTERVAL;
                // For messages that were enqueued before this process listened.
                shared.wake_all();
                loop {
                    let received = tokio::select! {
                        received = timeout(LISTEN_TIMEOUT, listener.try_recv()) => received,
                        () = connections.moved(moves) => break,
                        () = shared.unsubscribed.notified() => {
                            if shared.has_subscriptions() {
                                continue;
                            }
                            return;
                        }
                    };
                    match received {
                        Ok(Ok(Some(notification))) if notification.channel() == CANCELLED => {
                            if let Some(notice) = CancelNotice::parse(notification.payload()) {
                                shared.cancelled(notice);
                            }
                        }
                        Ok(Ok(Some(notification))) => shared.wake(notification.payload()),
                        // The connection is closed.
                        Ok(Ok(None) | Err(_)) => break,
                        // Nothing was received, or the server has vanished.
                        Err(_) => {
                            match timeout(STATEMENT_TIMEOUT, listener.listen(CHANNEL)).await {
                                Ok(Ok(())) => {}
                                Ok(Err(_)) | Err(_) => break,
                            }
                        }
                    }
                }
            }
            Err(error) => telemetry::notification_failed(&error),
        }
        sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
        if connections.has_several_hosts() {
            // In an idle process, nothing else searches.
            while !connections.probe(Suspicion::Changed).await && shared.has_subscriptions() {
                sleep(SEARCH_INTERVAL).await;
            }
        }
    }
}

/// Uses its own connection: those of the pool are for statements.
async fn listen(connections: &Connections) -> Result<PgListener> {
    let alone = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(STATEMENT_TIMEOUT)
        .connect_lazy_with(connections.listen_options().await?);
    let mut listener = PgListener::connect_with(&alone).await?;
    // The next connection is made here, perhaps to another host.
    listener.eager_reconnect(false);
    listener.listen_all([CHANNEL, CANCELLED]).await?;
    Ok(listener)
}
