//! The two protocols that the crate's promises rest on, searched through from end to end with `stateright`:
//! [`writer`] stores what is sent exactly once, [`lease`] delivers what is stored until it is settled.
//!
//! A model is a small machine that holds all that matters of the real one: in each state every step that
//! the rules allow may be the next, faults included, and the search visits every state that can be reached.
//! Each rule can be left out, and a test for each shows what then goes wrong. The models share no code with
//! the crate: what ties the two together are the rules, which stand in each model under their own names, and
//! the tests against a real server.

mod lease;
mod writer;

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::Hash,
    time::{Duration, Instant},
};

use stateright::{Checker, HasDiscoveries, Model};

/// Looks at every state, and panics where a promise is broken or where something never happens that should.
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
    // What is left are the properties that something happens at all.
    checker.assert_properties();
}

/// Looks for a way to break this promise, and panics where there is none.
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
