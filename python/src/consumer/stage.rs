//! How far a delivery's handler is, and what ends it early.

use std::{future::pending, sync::Arc, time::Duration};

use pgqrs::Outcome;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

use super::{Event, Stop, Verdict};

/// The state of a delivery's handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Python has not called it yet.
    Waiting,
    Begun,
    /// The loop has abandoned the delivery: the handler must not start any more.
    Over,
}

/// Moves from one stage to another, unless it is in a third one.
pub(super) fn advance(stage: &watch::Sender<Stage>, from: Stage, to: Stage) -> bool {
    stage.send_if_modified(|stage| {
        let is_from = *stage == from;
        if is_from {
            *stage = to;
        }
        is_from
    })
}

/// Python has dropped the delivery.
pub(super) fn dropped_unsettled(stage: &watch::Sender<Stage>) -> Verdict {
    if *stage.borrow() == Stage::Begun {
        Err("dropped without being settled".to_owned())
    } else {
        Ok(Outcome::Release)
    }
}

/// Ready when the handler has run for too long. The time limit starts with the handler's first step: while it is queued
/// in an event loop, or for a thread, it can't have failed.
pub(super) async fn over_limit(
    limit: Option<Duration>,
    mut stage: watch::Receiver<Stage>,
) -> Verdict {
    let begun = stage.wait_for(|stage| *stage == Stage::Begun).await.is_ok();
    match limit {
        Some(limit) if begun => {
            sleep(limit).await;
            Err(format!("the handler timed out after {limit:?}"))
        }
        _ => pending().await,
    }
}

/// Ready when a delivery is to be released: at once if the consumer is aborted; if it was stopped and the handler has
/// not started, shortly before the loop aborts it.
pub(super) async fn release_due(
    stop: watch::Receiver<Stop>,
    after: Duration,
    stage: &watch::Sender<Stage>,
) {
    let mut aborted = stop.clone();
    let aborted = aborted.wait_for(|stop| *stop == Stop::Abort);
    let not_begun = async move {
        let mut stop = stop;
        let stopped = stop.wait_for(|stop| *stop != Stop::No).await;
        let Ok(Stop::Graceful(at)) = stopped.map(|stop| *stop) else {
            return pending().await;
        };
        sleep_until(at + after).await;
        if !advance(stage, Stage::Waiting, Stage::Over) {
            pending().await
        }
    };
    tokio::select! {
        _ = aborted => {}
        () = not_begun => {}
    }
}

/// Reports a handler that is dropped, or aborted, before Python has settled its delivery.
pub(super) struct CutOff {
    pub(super) ticket: u64,
    pub(super) events: Option<mpsc::UnboundedSender<Event>>,
    pub(super) stage: Arc<watch::Sender<Stage>>,
}

impl CutOff {
    pub(super) fn is_settled(&mut self) {
        self.events = None;
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        if let Some(events) = &self.events {
            self.stage.send_replace(Stage::Over);
            let _ = events.send(Event::CutOff(self.ticket));
        }
    }
}
