//! Returns the outcome of a call to Python, as an awaitable or by blocking. For every verb. The GIL is not held while
//! the database works.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pyo3::{IntoPyObjectExt, intern, prelude::*};
use pyo3_async_runtimes::{generic, get_running_loop};
use tokio::{runtime::Handle, task::AbortHandle, time::timeout};
use tracing::instrument::WithSubscriber;

use crate::{
    engine::{self, Engine},
    errors,
};

/// Whether calls return awaitables, or block.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Awaitable,
    Blocking,
}

impl Mode {
    pub(crate) fn new(blocking: bool) -> Self {
        if blocking {
            Self::Blocking
        } else {
            Self::Awaitable
        }
    }

    /// Makes a call.
    pub(crate) fn answer<'py, T>(
        self,
        py: Python<'py>,
        call: impl Future<Output = pgqrs::Result<T>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let runtime = engine::handle(py)?;
        match self {
            Self::Awaitable => {
                generic::future_into_py::<Engine, _, _>(py, async move { Ok(Answer(call.await)) })
            }
            Self::Blocking => wait(py, &runtime, call)?.into_bound_py_any(py),
        }
    }

    /// Makes a call that may end at the same time as many others.
    pub(crate) fn answer_among_many<'py, T>(
        self,
        py: Python<'py>,
        call: impl Future<Output = pgqrs::Result<T>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
        Answer<T>: Into<Ended>,
    {
        let runtime = engine::handle(py)?;
        match self {
            Self::Awaitable => Completions::of_running_loop(py)?
                .add(py, &runtime, async move { Answer(call.await).into() }),
            Self::Blocking => wait(py, &runtime, call)?.into_bound_py_any(py),
        }
    }
}

/// The outcome of a call. Converting it into a Python object raises its error.
pub(crate) struct Answer<T>(pub(crate) pgqrs::Result<T>);

impl<'py, T> IntoPyObject<'py> for Answer<T>
where
    T: IntoPyObject<'py>,
{
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0 {
            Ok(value) => value.into_bound_py_any(py),
            Err(error) => Err(errors::raised(py, &error)),
        }
    }
}

/// Maximum time until Ctrl-C is noticed.
const TICK: Duration = Duration::from_millis(50);

fn wait<T: Send>(
    py: Python<'_>,
    runtime: &Handle,
    call: impl Future<Output = pgqrs::Result<T>> + Send,
) -> PyResult<Answer<T>> {
    let mut call = std::pin::pin!(call.with_subscriber(engine::dispatch()));
    loop {
        let waited = py.detach(|| runtime.block_on(async { timeout(TICK, call.as_mut()).await }));
        match waited {
            Ok(outcome) => return Ok(Answer(outcome)),
            // Dropping the call cancels it.
            Err(_) => py.check_signals()?,
        }
    }
}

/// The outcome of one of many calls.
pub(crate) type Ended = Answer<i64>;

/// Calls from one event loop that are under way, and those that have ended and are to be reported to the loop.
///
/// Sends that share a statement end at the same time. `pyo3-async-runtimes` would attach to Python, and wake the loop,
/// for each of them; here this is done once for all that have ended until the loop collects them.
pub(crate) struct Completions {
    event_loop: Py<PyAny>,
    create_future: Py<PyAny>,
    ended: Mutex<AllEnded>,
}

#[derive(Default)]
struct AllEnded {
    calls: VecDeque<(Py<PyAny>, Ended)>,
    /// Whether the loop is going to collect them.
    is_scheduled: bool,
}

/// How many results are set in one turn of an event loop: each makes a task run in the next turn, and what else the loop
/// has to do waits for all of them.
const AT_ONCE: usize = 256;

thread_local! {
    /// Of the loop that last ran in this thread, while a call is under way.
    static RUNNING: RefCell<Weak<Completions>> = const { RefCell::new(Weak::new()) };
}

impl Completions {
    fn of_running_loop(py: Python<'_>) -> PyResult<Arc<Self>> {
        let event_loop = get_running_loop(py)?;
        let known = RUNNING.with_borrow(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.event_loop.is(&event_loop)) {
            return Ok(known);
        }
        let new = Arc::new(Self {
            create_future: event_loop.getattr(intern!(py, "create_future"))?.unbind(),
            event_loop: event_loop.unbind(),
            ended: Mutex::default(),
        });
        RUNNING.set(Arc::downgrade(&new));
        Ok(new)
    }

    fn add<'py>(
        self: Arc<Self>,
        py: Python<'py>,
        runtime: &Handle,
        call: impl Future<Output = Ended> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let future = self.create_future.bind(py).call0()?;
        let waiting = future.clone().unbind();
        let task = runtime.spawn(async move {
            let ended = call.await;
            self.end(waiting, ended);
        });
        let cancel = Cancel(task.abort_handle());
        future.call_method1(intern!(py, "add_done_callback"), (cancel,))?;
        Ok(future)
    }

    fn end(self: Arc<Self>, future: Py<PyAny>, ended: Ended) {
        let was_scheduled = {
            let mut all = self.lock();
            all.calls.push_back((future, ended));
            std::mem::replace(&mut all.is_scheduled, true)
        };
        if !was_scheduled {
            // Attaching may block for a while, which would hold up other tasks.
            Handle::current().spawn_blocking(move || {
                // If the interpreter or the loop has ended, the result is no longer needed.
                Python::try_attach(|py| {
                    let event_loop = self.event_loop.clone_ref(py);
                    let complete = Complete(self);
                    event_loop
                        .call_method1(py, intern!(py, "call_soon_threadsafe"), (complete,))
                        .is_ok()
                })
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, AllEnded> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called by the loop itself, once more in its next turn as long as there is something left.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
struct Complete(Arc<Completions>);

#[pymethods]
impl Complete {
    fn __call__(this: Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let completions = &this.get().0;
        let (ended, is_scheduled) = {
            let mut all = completions.lock();
            let count = all.calls.len().min(AT_ONCE);
            let ended: Vec<_> = all.calls.drain(..count).collect();
            all.is_scheduled = !all.calls.is_empty();
            (ended, all.is_scheduled)
        };
        if is_scheduled {
            let event_loop = completions.event_loop.bind(py);
            event_loop.call_method1(intern!(py, "call_soon"), (&this,))?;
        }
        for (future, ended) in ended {
            let future = future.bind(py);
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                continue;
            }
            match ended.into_pyobject(py) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error,))?,
            };
        }
        Ok(())
    }
}

/// Called when a future is done. If it was cancelled, the call is cancelled too.
#[pyclass(frozen, module = "pgqrs._pgqrs")]
struct Cancel(AbortHandle);

#[pymethods]
impl Cancel {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future
            .call_method0(intern!(future.py(), "cancelled"))?
            .is_truthy()?
        {
            self.0.abort();
        }
        Ok(())
    }
}
