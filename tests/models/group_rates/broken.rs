//! What breaks without each of the rules.

use super::*;
use crate::breaks;

fn without(rule: Rule, variant: Protocol, promise: &'static str) {
    let model = Protocol {
        without: Some(rule),
        ..variant
    };
    breaks(&format!("rates of groups without {rule:?}"), model, promise);
}

#[test]
fn statements_that_draw_at_the_same_time_get_the_same_place() {
    without(Rule::Lock, TWO, LIMITED);
}

#[test]
fn statements_that_waited_for_the_lock_with_an_old_time_draw_places_that_are_past() {
    without(Rule::ClockAfterTheLock, ONE, LIMITED);
}

#[test]
fn a_process_that_crashes_before_the_arrival_time_is_moved_has_others_start_at_the_same_time() {
    without(Rule::OneTransaction, ONE, LIMITED);
}

#[test]
fn messages_that_are_put_back_without_another_place_start_too_often() {
    without(Rule::DrawAgain, ONE, LIMITED);
}

#[test]
fn places_that_are_saved_up_for_ever_start_too_many_at_once() {
    without(Rule::SaveNoMoreThanABurst, ONE, LIMITED);
}

#[test]
fn a_rate_of_a_group_that_is_raised_waits_for_the_old_one_s_time() {
    without(Rule::NoFurtherThanOnTheWay, RAISED, SOON);
}

#[test]
fn an_arrival_time_that_is_cut_forgets_a_pause_that_is_longer() {
    without(Rule::KeepThePause, SLOWED, PAUSED);
}

#[test]
fn a_short_pause_ends_a_longer_one() {
    without(Rule::LongestPause, SLOWED, PAUSED);
}
