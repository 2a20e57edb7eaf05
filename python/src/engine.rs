//! The process's one tokio runtime, for everything that waits. It is not that of `pyo3_async_runtimes::tokio`, which is
//! never replaced: in a child made by `fork` its threads are missing, and connecting there would never end.

use std::{
    future::Future,
    mem,
    pin::Pin,
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pyo3::{exceptions::PyRuntimeError, intern, prelude::*};
use pyo3_async_runtimes::{TaskLocals, generic};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{self, JoinHandle},
};
use tracing::dispatcher::{self, Dispatch};

use crate::log::Log;

/// The runtime, and the process that it runs in. Locked only by threads that are attached to Python, such as the one
/// that forks: so it is never locked while a process forks.
static RUNTIME: Mutex<State> = Mutex::new(State::None);

enum State {
    None,
    Running(u32, Runtime, Events),
    /// The interpreter is shutting down.
    Ended(u32),
}

/// What takes the events of pgqrs, made once: making it has tracing look at all of its events.
struct Events {
    dispatch: Dispatch,
    log: Log,
}

/// They wait for the GIL, which only one of them holds at a time.
const BLOCKING_THREADS: usize = 8;

/// The runtime of this process, started if there is none.
pub(crate) fn handle(py: Python<'_>) -> PyResult<Handle> {
    let (handle, new_log) = running()?;
    // Without the lock, since Python code may let other threads run, which would wait for it.
    if let Some(log) = new_log {
        py.import(intern!(py, "pgqrs._logging"))?
            .call_method1(intern!(py, "start"), (log,))?;
    }
    Ok(handle)
}

/// Of this process: takes the events of calls that block a thread of Python's.
pub(crate) fn dispatch() -> Dispatch {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*runtime {
        State::Running(_, _, events) => events.dispatch.clone(),
        _ => Dispatch::none(),
    }
}

/// The runtime, and its log if it was started just now.
fn running() -> PyResult<(Handle, Option<Log>)> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*runtime {
        State::Running(process, running, _) if *process == process::id() => {
            return Ok((running.handle().clone(), None));
        }
        State::Ended(process) if *process == process::id() => {
            return Err(PyRuntimeError::new_err("the interpreter is shutting down"));
        }
        _ => {}
    }
    let log = Log::new();
    let events = Events {
        dispatch: log.dispatch(),
        log: log.clone(),
    };
    let dispatch = events.dispatch.clone();
    let started = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("pgqrs")
        // For all events of that thread, until it ends.
        .on_thread_start(move || mem::forget(dispatcher::set_default(&dispatch)))
        .enable_all()
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("no runtime can be started: {error}")))?;
    let handle = started.handle().clone();
    // Dropping the parent's runtime would wait for threads that don't exist here.
    mem::forget(mem::replace(
        &mut *runtime,
        State::Running(process::id(), started, events),
    ));
    Ok((handle, Some(log)))
}

/// Ends the runtime; called by `atexit`. A thread of the runtime that waits for the GIL when the interpreter shuts down
/// is terminated, and the process with it.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) -> PyResult<()> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let last = mem::replace(&mut *runtime, State::Ended(process::id()));
    drop(runtime);
    match last {
        State::Running(process, running, events) if process == process::id() => {
            py.detach(|| running.shutdown_timeout(SHUTDOWN_TIMEOUT));
            events.log.close();
            for module in [
                intern!(py, "pgqrs._measuring"),
                intern!(py, "pgqrs._logging"),
            ] {
                py.import(module)?.call_method0(intern!(py, "end"))?;
            }
        }
        parents => mem::forget(parents),
    }
    Ok(())
}

/// Time limit for threads that are about to report to Python.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The runtime for futures of `pyo3-async-runtimes`.
pub(crate) struct Engine;

/// The failure of a task, in the form that `pyo3-async-runtimes` requires.
pub(crate) struct Failed(task::JoinError);

impl generic::JoinError for Failed {
    fn is_panic(&self) -> bool {
        self.0.is_panic()
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        self.0.into_panic()
    }
}

/// A task of the runtime.
pub(crate) struct Joined(JoinHandle<()>);

impl Future for Joined {
    type Output = Result<(), Failed>;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|ended| ended.map_err(Failed))
    }
}

/// Inside the runtime, that one: no lock is taken there.
fn current() -> Handle {
    Handle::try_current().unwrap_or_else(|_| {
        Python::attach(handle).expect("`answer` has started it before it spawns the first task")
    })
}

impl generic::Runtime for Engine {
    type JoinError = Failed;
    type JoinHandle = Joined;

    fn spawn<F>(task: F) -> Joined
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Joined(current().spawn(task))
    }

    fn spawn_blocking<F>(work: F) -> Joined
    where
        F: FnOnce() + Send + 'static,
    {
        Joined(current().spawn_blocking(work))
    }
}

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl generic::ContextExt for Engine {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(Clone::clone).ok()
    }
}
