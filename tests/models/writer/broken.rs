//! What breaks if a rule is left out.

use super::*;

#[test]
fn without_the_guard_a_late_attempt_stores_again() {
    without(Rule::Guard, NONE_TWICE);
}

#[test]
fn a_statement_that_stores_a_part_is_settled_as_stored_and_lacks_the_rest() {
    without(Rule::AllOrNone, NONE_LOST);
}

#[test]
fn a_refusal_that_takes_its_number_is_settled_as_stored_and_lost() {
    without(Rule::RefusalAdvancesNothing, NONE_LOST);
}

#[test]
fn half_a_large_batch_that_is_committed_alone_is_stored_again() {
    without(Rule::OneTransaction, NONE_TWICE);
}

#[test]
fn an_attempt_answered_before_it_is_on_disk_acknowledges_what_a_crash_loses() {
    without(Rule::AttemptOnDisk, NONE_LOST);
}

#[test]
fn a_number_used_for_a_second_attempt_is_refused_for_no_reason() {
    without(Rule::FreshNumber, REASONS_ARE_TRUE);
}

#[test]
fn a_number_used_again_after_giving_up_is_acknowledged_and_lost() {
    without(Rule::FreshNumber, NONE_LOST);
}

#[test]
fn a_next_attempt_before_the_last_is_settled_stores_again() {
    without(Rule::SettleFirst, NONE_TWICE);
}

#[test]
fn a_refusal_returned_before_the_last_attempt_is_settled_is_stored_all_the_same() {
    without(Rule::SettleFirst, NOT_STORED);
}

#[test]
fn settling_without_the_lock_overlooks_a_attempt_that_is_under_way() {
    without(Rule::SettleWaits, NONE_TWICE);
}

#[test]
fn settling_by_only_looking_lets_a_late_attempt_store_again() {
    without(Rule::SettleForbids, NONE_TWICE);
}

#[test]
fn forbidding_with_the_number_of_the_attempt_acknowledges_what_is_not_stored() {
    without(Rule::NumbersApart, NONE_LOST);
}

#[test]
fn settling_that_a_crash_undoes_lets_a_late_attempt_store_again() {
    without(Rule::SettleOnDisk, NONE_TWICE);
}

#[test]
fn a_large_batch_settled_by_its_first_number_is_stored_again() {
    without(Rule::LastNumberResolves, NONE_TWICE);
}

#[test]
fn a_writer_that_never_gives_up_leaves_its_callers_waiting() {
    without(Rule::GiveUpInTime, ALL_END);
}

#[test]
fn settling_believed_after_its_row_was_pruned_stores_again() {
    without(Rule::GiveUpInTime, NONE_TWICE);
}

#[test]
fn giving_up_with_a_failure_denies_what_a_late_attempt_stores() {
    without(Rule::ReturnUnknown, NOT_STORED);
}

#[test]
fn a_token_kept_after_giving_up_makes_the_next_send_wait_for_the_stuck_one() {
    without(Rule::NewTokenAfterwards, NONE_QUEUES);
}

#[test]
fn a_token_used_after_long_idleness_loses_its_row_before_it_is_settled() {
    without(Rule::RetireBeforeUse, NONE_TWICE);
}

#[test]
fn a_row_pruned_too_early_is_settled_as_not_stored_and_sent_again() {
    without(Rule::PruneLate, NONE_TWICE);
}

#[test]
fn an_attempt_that_makes_its_own_row_stores_again_when_it_is_later_than_the_pruner() {
    without(Rule::RowFirst, NONE_TWICE);
}

#[test]
fn an_attempt_that_outlives_its_server_stores_again_on_the_next() {
    without(Rule::EndWithTheServer, NONE_TWICE);
}

#[test]
fn an_attempt_that_records_no_duplicates_acknowledges_what_it_did_not_store() {
    without(Rule::RecordSkipped, NONE_LOST);
}

#[test]
fn duplicates_looked_for_afterwards_acknowledge_what_is_not_stored() {
    without(Rule::RecordWhenStored, NONE_LOST);
}

#[test]
fn duplicates_looked_for_afterwards_are_new_ones() {
    without(Rule::RecordWhenStored, DUPLICATES);
}

#[test]
fn a_large_batch_that_forgets_the_duplicates_of_its_first_half_acknowledges_them() {
    without(Rule::RecordOfBoth, NONE_LOST);
}
