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

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use pyo3_async_runtimes::{TaskLocals, generic};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{self, JoinHandle},
};

/// The runtime, and the process that it runs in. Locked only by threads that are attached to Python, such as the one
/// that forks: so it is never locked while a process forks.
static RUNTIME: Mutex<State> = Mutex::new(State::None);

enum State {
    None,
    Running(u32, Runtime),
    /// The interpreter is shutting down.
    Ended(u32),
}

/// They wait for the GIL, which only one of them holds at a time.
const BLOCKING_THREADS: usize = 8;

/// The runtime of this process, started if there is none.
pub(crate) fn handle(_attached: Python<'_>) -> PyResult<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*runtime {
        State::Running(process, running) if *process == process::id() => {
            return Ok(running.handle().clone());
        }
        State::Ended(process) if *process == process::id() => {
            return Err(PyRuntimeError::new_err(
                "the interpreter is coming to its end",
            ));
        }
        _ => {}
    }
    let started = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("pgqrs")
        .enable_all()
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("no runtime can be started: {error}")))?;
    let handle = started.handle().clone();
    // Dropping the parent's runtime would wait for threads that don't exist here.
    mem::forget(mem::replace(
        &mut *runtime,
        State::Running(process::id(), started),
    ));
    Ok(handle)
}

/// Ends the runtime; called by `atexit`. A thread of the runtime that waits for the GIL when the interpreter shuts down
/// is terminated, and the process with it.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let last = mem::replace(&mut *runtime, State::Ended(process::id()));
    drop(runtime);
    match last {
        State::Running(process, running) if process == process::id() => {
            py.detach(|| running.shutdown_timeout(SHUTDOWN_TIMEOUT));
        }
        parents => mem::forget(parents),
    }
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
