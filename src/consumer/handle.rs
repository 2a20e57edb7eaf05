//! The handle of a consumer, by which other tasks stop it while it runs.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use tokio::sync::watch;

use crate::{
    consume::Stop,
    queue::Untyped,
    worker::{Receives, Registration, Worker, sealed::Registered},
};

/// A handle of a consumer that is, or will be, running. Cheap to clone.
///
/// It is a [`Worker`] too: the same one.
pub struct ConsumerHandle<C = Untyped> {
    registration: Arc<Registration>,
    stop: watch::Sender<Stop>,
    carries: PhantomData<fn() -> C>,
}

impl<C> ConsumerHandle<C> {
    pub(super) fn new(registration: Arc<Registration>) -> Self {
        Self {
            registration,
            stop: watch::Sender::new(Stop::Running),
            carries: PhantomData,
        }
    }

    /// Stops [`run`](crate::Consumer::run) gracefully: no more claims; handlers finish, up to the deadline; all other messages
    /// go back to the queue. Returns at once; `run` returns the report.
    pub fn stop(&self) {
        self.request(Stop::Graceful);
    }

    /// Stops [`run`](crate::Consumer::run) without waiting for handlers: they are aborted, and their messages go back to the
    /// queue. For a second signal, or instead of the first. Returns at once; `run` ends within about two seconds, even
    /// if the server is unavailable.
    pub fn abort(&self) {
        self.request(Stop::Abort);
    }

    fn request(&self, stop: Stop) {
        self.stop.send_if_modified(|asked| {
            let is_more = stop > *asked;
            *asked = stop.max(*asked);
            is_more
        });
    }

    pub(crate) fn stop_requests(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }
}

impl<C> Clone for ConsumerHandle<C> {
    fn clone(&self) -> Self {
        Self {
            registration: Arc::clone(&self.registration),
            stop: self.stop.clone(),
            carries: PhantomData,
        }
    }
}

impl<C> Registered for ConsumerHandle<C> {
    fn registration(&self) -> &Registration {
        &self.registration
    }
}

#[diagnostic::do_not_recommend]
impl<C> Worker for ConsumerHandle<C> {
    type Carries = C;
    type Role = Receives;
}

impl<C: 'static> Deref for ConsumerHandle<C> {
    type Target = dyn Worker<Carries = C, Role = Receives>;

    fn deref(&self) -> &Self::Target {
        self
    }
}

impl<C> fmt::Debug for ConsumerHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerHandle")
            .field(self.registration())
            .finish()
    }
}
