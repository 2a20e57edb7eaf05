//! Which settlements go out together, and in which order.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::pool::no_answer;

fn receipt(id: i64) -> Receipt {
    Receipt {
        is_grouped: false,
        max_attempts: 20,
        queue_id: 1,
        id: id.into(),
        attempt: 1,
        token: id,
    }
}

fn receipts(ids: std::ops::Range<i64>) -> Vec<Receipt> {
    ids.map(receipt).collect()
}

fn with_acks(many: i64) -> SettleQueue {
    let mut unsettled = SettleQueue::new();
    for id in 0..many {
        unsettled.ack(receipt(id));
    }
    unsettled
}

fn next(unsettled: &mut SettleQueue) -> Batch {
    unsettled.next_batch().expect("there is more")
}

fn no_connection() -> Error {
    Error::Connect(Arc::new(sqlx::Error::PoolTimedOut))
}

#[test]
fn a_batch_has_at_most_a_thousand() {
    let mut unsettled = with_acks(2_500);
    let mut sizes = Vec::new();
    while let Some(batch) = unsettled.next_batch() {
        sizes.push(batch.len());
        unsettled.settled();
    }
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert!(unsettled.is_empty());
}

#[test]
fn each_kind_gets_its_turn() {
    let mut unsettled = with_acks(3_000);
    unsettled.archive(receipt(3_000));
    unsettled.fail(Failure::retry(receipt(3_001), Duration::ZERO, ""));
    unsettled.release_untouched(receipts(3_002..3_003));
    unsettled.release_unfinished(receipts(3_003..3_004));
    unsettled.release_returned(receipt(3_004), false);
    let mut kinds = Vec::new();
    while let Some(batch) = unsettled.next_batch() {
        kinds.push(match batch.settlements {
            Settlements::Ack(_) => "ack",
            Settlements::Archive(_) => "archive",
            Settlements::Fail(_) => "fail",
            Settlements::Release { kind, .. } => match kind {
                Release::Untouched => "untouched",
                Release::Unfinished => "unfinished",
                Release::Returned => "returned",
            },
        });
        unsettled.settled();
    }
    let expected = [
        "ack",
        "archive",
        "fail",
        "untouched",
        "unfinished",
        "returned",
        "ack",
        "ack",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn after_a_failure_batches_are_half_as_large_and_grow_again() {
    let mut unsettled = with_acks(100_000);
    for expected in [1_000, 500, 250] {
        let batch = next(&mut unsettled);
        assert_eq!(batch.len(), expected);
        unsettled.failed(batch, &no_answer());
        assert!(unsettled.is_failing());
    }
    assert_eq!(next(&mut unsettled).len(), 125);
    for _ in 0..50 {
        unsettled.settled();
        assert!(!unsettled.is_failing());
        let _ = next(&mut unsettled);
    }
    assert_eq!(unsettled.limit.get(), 1_000);
}

#[test]
fn without_a_connection_the_size_is_not_to_blame() {
    let mut unsettled = with_acks(1_000);
    let batch = next(&mut unsettled);
    unsettled.failed(batch, &no_connection());
    let batch = next(&mut unsettled);
    assert_eq!((batch.len(), batch.is_uncertain), (1_000, false));
}

#[test]
fn what_was_sent_without_an_answer_is_uncertain_from_then_on() {
    let mut unsettled = with_acks(10);
    let batch = next(&mut unsettled);
    assert!(!batch.is_uncertain);
    unsettled.failed(batch, &no_answer());
    for id in 10..20 {
        unsettled.ack(receipt(id));
    }
    let again = next(&mut unsettled);
    assert!(again.is_uncertain);
    unsettled.failed(again, &no_connection());
    // The others take their turn.
    let fresh = next(&mut unsettled);
    assert_eq!(fresh.receipts(), receipts(10..15));
    assert!(!fresh.is_uncertain);
    unsettled.settled();
    let again = next(&mut unsettled);
    assert!(
        again.is_uncertain,
        "also after a failure that has sent nothing"
    );
}

#[test]
fn leases_are_kept_of_what_waits_and_of_what_is_on_its_way() {
    let mut unsettled = with_acks(1_500);
    let batch = next(&mut unsettled);
    let mut kept: Vec<_> = unsettled.receipts().iter().map(|kept| kept.token).collect();
    kept.sort_unstable();
    assert_eq!(kept, (0..1_500).collect::<Vec<_>>());
    assert_eq!(unsettled.len(), 1_500);
    unsettled.failed(batch, &no_answer());
    assert_eq!(
        (unsettled.receipts().len(), unsettled.len()),
        (1_500, 1_500)
    );
}

#[test]
fn what_is_abandoned_is_unknown_unless_no_handler_had_it() {
    let mut unsettled = with_acks(1_500);
    unsettled.release_untouched(receipts(1_500..1_510));
    unsettled.release_unfinished(receipts(1_510..1_512));
    unsettled.release_returned(receipt(1_512), false);
    let batch = next(&mut unsettled);
    assert_eq!(batch.len(), 1_000);
    assert_eq!(unsettled.abandon().unknown, 1_503);
    assert!(unsettled.is_empty() && !unsettled.is_settling());
    assert_eq!(unsettled.abandon().unknown, 0);
}

#[test]
fn the_halves_of_a_batch_are_all_of_it() {
    let mut unsettled = with_acks(7);
    let mut first = next(&mut unsettled);
    let second = first.split_off_half();
    assert_eq!(first.receipts(), receipts(0..3));
    assert_eq!(second.receipts(), receipts(3..7));
    first.append(second);
    assert_eq!(first.receipts(), receipts(0..7));
}

#[test]
fn texts_are_simplified_once() {
    let mut unsettled = SettleQueue::new();
    unsettled.fail(Failure::dead(receipt(1), "it can\u{2019}t"));
    unsettled.fail(Failure::retry(
        receipt(2),
        Duration::ZERO,
        "\u{201c}no\u{201d}",
    ));
    let mut batch = next(&mut unsettled);
    assert!(batch.simplify_texts());
    let Settlements::Fail(failures) = &batch.settlements else {
        panic!("a failure");
    };
    assert_eq!(failures[0].reason(), "it can?t");
    assert_eq!(failures[1].error.as_deref(), Some("?no?"));
    assert!(!batch.simplify_texts());
}
