//! What is around a handler: `run.around(..)`, for what a service does for each message. Without it, a handler is called
//! directly; with it, each call is boxed.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    executor::Execute,
    handler::{HandlerError, IntoOutcome, IntoVerdict, Outcome},
};

/// The rest of the way to the handler, for a closure that is [`around`](crate::Run::around) it.
///
/// ```compile_fail,E0382
/// # async fn example(delivery: pgqrs::Delivery<u32>, other: pgqrs::Delivery<u32>, next: pgqrs::Next<pgqrs::Delivery<u32>>) {
/// next.run(delivery).await;
/// next.run(other).await; // a handler is called once
/// # }
/// ```
#[must_use = "the handler isn't called unless this runs: `next.run(delivery).await`"]
pub struct Next<I>(Boxed<I>);

impl<I> Next<I> {
    /// Calls the handler.
    ///
    /// # Shape
    /// Takes the delivery, or the chunk, and returns what the handler has returned, which the closure returns in turn.
    ///
    /// # Errors
    /// The error of the handler. A panic of the handler, and its [timeout](crate::Run::handler_timeout), end the
    /// closure too.
    pub fn run(self, input: I) -> Execute<'static, Result<Outcome, HandlerError>> {
        (self.0)(input)
    }
}

impl<I> fmt::Debug for Next<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

type Boxed<I> = Arc<dyn Fn(I) -> Execute<'static, Result<Outcome, HandlerError>> + Send + Sync>;

/// Puts something around a handler.
pub(crate) type Layer<I> = Box<dyn FnOnce(Boxed<I>) -> Boxed<I> + Send>;

pub(crate) fn layer<I, F, R>(around: F) -> Layer<I>
where
    I: 'static,
    F: Fn(I, Next<I>) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    Box::new(move |inner| {
        Arc::new(move |input| {
            let handling = around(input, Next(Arc::clone(&inner)));
            Execute::new(async move { handling.await.into_verdict() })
        })
    })
}

/// A handler, and what is around it.
pub(crate) struct Layered<I, F> {
    handler: Arc<F>,
    /// `None` if nothing is.
    around: Option<Boxed<I>>,
}

impl<I, F, R> Layered<I, F>
where
    I: 'static,
    F: Fn(I) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    pub(crate) fn new(handler: F, layers: Vec<Layer<I>>) -> Self {
        let handler = Arc::new(handler);
        let mut around = None;
        for layer in layers {
            let inner = around.take().unwrap_or_else(|| boxed(Arc::clone(&handler)));
            around = Some(layer(inner));
        }
        Self { handler, around }
    }

    pub(crate) async fn call(&self, input: I) -> Result<Outcome, HandlerError> {
        match &self.around {
            None => (self.handler)(input).await.into_verdict(),
            Some(around) => around(input).await,
        }
    }
}

fn boxed<I, F, R>(handler: Arc<F>) -> Boxed<I>
where
    F: Fn(I) -> R + Send + Sync + 'static,
    R: Future<Output: IntoOutcome> + Send + 'static,
{
    Arc::new(move |input| {
        let handling = handler(input);
        Execute::new(async move { handling.await.into_verdict() })
    })
}
