//! The protocols on which the crate's promises rest, searched exhaustively with `stateright`: [`writer`] stores sent
//! messages exactly once, [`lease`] delivers stored messages until they are settled, [`watermark`] finds them,
//! [`groups`] lets few of a group in at a time, [`slots`] limits what runs, [`rates`] what starts within a time, and
//! [`group_rates`] what of a group does, and [`schedule`] sends a message for each time of a schedule.
//!
//! A model is a small state machine with everything that matters of the real one: in each state every step that the
//! rules allow may be the next, faults included, and the search visits every reachable state. Each rule can be left
//! out, and a test for each shows what then fails. The models share no code with the crate: they are linked by the
//! rules, which have names in each model, and by the tests against a real server.

mod group_rates;
mod groups;
mod lease;
mod rates;
mod schedule;
mod slots;
mod watermark;
mod writer;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::Hash,
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model};

/// Visits every state, and panics if a promise is broken or if something never happens that should.
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().spawn_bfs().join();
    println!(
        "{name}: {} states, up to {} steps deep, in {:.1} s",
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32(),
    );
    for (property, path) in checker.discoveries() {
        if checker
            .model()
            .property(property)
            .expectation
            .discovery_is_failure()
        {
            panic!("{name}: not `{property}`, by {:#?}", path.into_actions());
        }
    }
    // The remaining properties: that each thing happens at all.
    checker.assert_properties();
}

/// Searches for a way to break this promise, and panics if there is none.
fn breaks<M>(name: &str, model: M, promise: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([promise])))
        .timeout(Duration::from_secs(120))
        .spawn_bfs()
        .join();
    let Some(path) = checker.discovery(promise) else {
        panic!(
            "{name}: `{promise}` holds in all of {} states, so nothing depends on the rule",
            checker.unique_state_count()
        );
    };
    println!(
        "{name}: not `{promise}`, found after {} states in {:.1} s:",
        checker.unique_state_count(),
        began.elapsed().as_secs_f32(),
    );
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}
